from __future__ import annotations

import pytest

from ledgerd.config import Console
from tests.http.console.visitor import Seen, Visitor, ops_visitor
from tests.http.outside import on_disk


async def look(world, q: str, visitor: Visitor | None = None) -> Seen:
    visitor = visitor or await ops_visitor(world)
    return await visitor.submit(await visitor.get("/console/search/"), "/console/search/", q=q)


async def test_a_loan_or_a_borrower_is_found_by_its_id(world, borrower, loan):
    assert (await look(world, f" {loan} ")).address == f"/console/loans/{loan}/"
    assert (await look(world, borrower.id)).address == f"/console/borrowers/{borrower.id}/"


async def test_a_borrower_is_found_by_email_in_any_case(world, borrower):
    assert (await look(world, borrower.email.upper())).address == f"/console/borrowers/{borrower.id}/"


async def test_borrowers_are_found_by_the_last_four_digits(world, monkeypatch):
    people = [
        await world.borrower(aadhar_id=f"identity-{number}-4321", name=f"B{number}") for number in range(3)
    ]
    other = await world.borrower(aadhar_id="identity-4322")
    page = await look(world, "4321")
    assert page.table("What was found") == [["Borrower", f"B{number}"] for number in range(3)]
    links = [link["href"] for link in page.html.select("main a")]
    assert links == [f"/console/borrowers/{who.id}/" for who in people]
    assert (await look(world, "4322")).address == f"/console/borrowers/{other.id}/"
    monkeypatch.setattr("ledgerd.http.console.search.FOUND_MAX", 2)
    page = await look(world, "4321")
    assert len(page.table("What was found")) == 2
    assert "More than 2 borrowers end so" in page.text


@pytest.mark.parametrize("events", [1, 2, 100])
async def test_a_payment_is_found_by_its_transaction_id_whoever_made_it(
    open_world, tmp_path, monkeypatch, events
):
    monkeypatch.setattr("ledgerd.http.console.search.EVENTS_A_READ", events)
    async with open_world(storage=on_disk(tmp_path)) as world:
        borrower = await world.borrower()
        loan = (await world.lend(borrower))["loan_id"]
        other = (await world.lend(borrower))["loan_id"]
        await world.pay(world.payer, loan, "1.00", "by-client")
        await world.pay(borrower, other, "1.00", "by-borrower")
        await world.pay(world.payer, loan, "1.00", "same")
        await world.pay(borrower, other, "1.00", "same")
        visitor = await ops_visitor(world)
        assert (await look(world, "by-client", visitor)).address == f"/console/loans/{loan}/"
        assert (await look(world, "by-borrower", visitor)).address == f"/console/loans/{other}/"
        page = await look(world, "same", visitor)
        assert page.table("What was found") == [
            ["Payment", f"same, event 6, to loan {other}"],
            ["Payment", f"same, event 5, to loan {loan}"],
        ]


async def test_a_borrower_s_old_payment_is_said_not_to_be_looked_for(open_world):
    async with open_world(console=Console(search_rows=1)) as world:
        borrower = await world.borrower()
        loan = (await world.lend(borrower))["loan_id"]
        await world.pay(borrower, loan, "1.00", "old")
        await world.pay(world.payer, loan, "1.00", "client-old")
        await world.pay(world.payer, loan, "1.00", "new")
        page = await look(world, "old")
        assert page.html.h1.text == "Nothing found for old"
        assert "among the newest 1 events alone" in page.text
        assert loan in (await look(world, "client-old")).text


async def test_where_there_are_more_than_are_shown_it_says_so(world, borrower, loan, monkeypatch):
    for who in (world.payer, borrower):
        await world.pay(who, loan, "1.00", "same")
    monkeypatch.setattr("ledgerd.http.console.search.FOUND_MAX", 1)
    page = await look(world, "same")
    assert len(page.table("What was found")) == 1
    assert "these are the newest 1." in page.text


async def test_clients_beyond_the_bound_are_said_not_to_be_asked(world, loan, monkeypatch):
    monkeypatch.setattr("ledgerd.http.console.search.CLIENTS_MAX", 1)
    assert "the newest 1 were asked by key" in (await look(world, "t-404")).text


@pytest.mark.parametrize(
    "q", ["nobody@example.com", "0123456789abcdef", "9999", "no such thing", "t-404", "<b>", "é", "%"]
)
async def test_nothing_found_says_what_can_be(world, loan, q):
    page = await look(world, q)
    assert page.status == 200
    assert page.html.h1.text == f"Nothing found for {q}"
    assert "last four digits" in page.text


async def test_an_empty_search_says_what_can_be_found(world):
    page = await look(world, "  ")
    assert page.html.h1.text == "Search"


async def test_what_is_looked_for_stands_in_no_log(world, borrower):
    await look(world, "secret-number-1234")
    world.access.flush()
    assert "secret-number-1234" not in world.log.getvalue()
