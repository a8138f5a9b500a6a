from __future__ import annotations

import asyncio
import json
from decimal import Decimal

import pytest

from ledgerd.config import Console
from ledgerd.domain.book import Book
from ledgerd.http.console import book as book_module
from ledgerd.http.console.book import Bookkeeper
from tests.http.console.visitor import Seen, Visitor, borrower_visitor, ops_visitor
from tests.http.outside import on_disk


def plain(figure: str) -> Decimal:
    return Decimal(figure.split(maxsplit=1)[0].replace(",", ""))


async def the_book(world, address="/console/") -> Seen:
    return await (await ops_visitor(world)).get(address)


async def test_an_empty_book_says_so(world):
    page = await the_book(world)
    assert "0 loans, of which 0 open, as of 1 Jan 2026." in page.text
    assert page.figure("Disbursed") == "0.00"
    assert [row[2] for row in page.table("Open loans")] == ["0"] * 5


async def test_the_sums_are_those_of_all_loans(open_world, tmp_path):
    async with open_world(storage=on_disk(tmp_path)) as world:
        lent = []
        for number in range(3):
            borrower = await world.borrower()
            lent.append((await world.lend(borrower, str(1000 * (number + 1))))["loan_id"])
        await world.advance(46)
        await world.pay(world.payer, lent[0], "41.40")
        payoff = (await world.loan(world.ops, lent[1]))["payoff"]
        await world.pay(world.payer, lent[1], payoff)
        page = await the_book(world)
        loans = [await world.loan(world.ops, each) for each in lent]
        assert "3 loans, of which 2 open, as of 16 Feb 2026." in page.text
        for name, figures in {
            "Disbursed": [loan["amount"] for loan in loans],
            "Outstanding principal": [loan["outstanding"]["principal"] for loan in loans],
            "Outstanding interest": [loan["outstanding"]["interest"] for loan in loans],
            "Interest earned": [loan["interest_received"] for loan in loans],
            "Collected": ["41.40", payoff],
        }.items():
            assert plain(page.figure(name)) == sum(map(Decimal, figures)), name
        ages = {row[0]: row[1:] for row in page.table("Open loans")}
        assert ages["in time"][:2] == ["none", "1"]
        assert ages["SMA-0"][:2] == ["1 to 30", "1"]
        assert plain(ages["SMA-0"][2]) == Decimal(loans[2]["payoff"])
        assert plain(ages["SMA-0"][3]) == Decimal(loans[2]["past_due"])
        assert ages["NPA"] == ["91 and more", "0", "0.00", "0.00"]


async def test_the_pictures_end_in_the_figures(world, borrower, loan):
    await world.advance(3)
    await world.pay(borrower, loan, "100.00")
    await world.advance(1)
    page = await the_book(world)
    flows, balance = [json.loads(element["data-plot"]) for element in page.html.select("[data-plot]")]
    assert len(balance["x"]) == 30
    assert balance["series"][0]["values"][-6:] == [0, 5000, 5000, 5000, 4909.5 - 3.8, 4909.5 - 3.8]
    disbursed, collected = flows["series"]
    assert disbursed["values"][-5:] == [5000, 0, 0, 0, 0]
    assert collected["values"][-5:] == [0, 0, 0, 100, 0]


@pytest.mark.parametrize("days", [30, 90, 365])
async def test_one_may_look_further_back(world, loan, days):
    page = await the_book(world, f"/console/?days={days}")
    assert all(
        len(json.loads(element["data-plot"])["x"]) == days for element in page.html.select("[data-plot]")
    )
    assert page.html.select_one("nav a[aria-current=true]").text == f"{days} days"


async def test_other_spans_are_not_drawn(world):
    for days in ("0", "31", "-1", "x", "99999999999"):
        assert (await the_book(world, f"/console/?days={days}")).status == 404


async def test_sums_are_counted_again_when_they_are_old_or_of_yesterday(world, borrower, loan, monkeypatch):
    now_s = [1000.0]
    monkeypatch.setattr(book_module.time, "monotonic", lambda: now_s[0])
    keeper, services = Bookkeeper(), world.service.services
    await keeper.look(services)
    assert keeper.book.loans == 1
    await world.lend(borrower)
    await keeper.look(services)
    assert keeper.book.loans == 1
    now_s[0] += services.config.console.book_refresh_s
    await keeper.look(services)
    assert keeper.book.loans == 2
    await world.lend(borrower)
    world.jump(1)
    await keeper.look(services)
    assert (keeper.book.loans, keeper.today) == (3, services.clock.today())


async def test_each_payment_is_counted_once_however_often_one_looks(open_world):
    async with open_world(console=Console(book_refresh_s=1)) as world:
        borrower = await world.borrower()
        loan = (await world.lend(borrower))["loan_id"]
        keeper = Bookkeeper()
        for _ in range(3):
            await world.pay(borrower, loan, "1.00")
            keeper._next_at_s = 0.0
            await asyncio.gather(*(keeper.look(world.service.services) for _ in range(5)))
        [collected] = keeper.collected.values()
        assert (collected.payments, collected.amount_paise) == (3, 300)


async def test_a_large_book_is_said_to_be_counted_and_then_shown(open_world, tmp_path, monkeypatch):
    monkeypatch.setattr("ledgerd.http.console.book.LOOK_S", 0)
    async with open_world(storage=on_disk(tmp_path)) as world:
        await world.lend(await world.borrower())
        visitor = Visitor(world)
        page = await visitor.log_in(world.ops.id, world.ops.secret)
        part = page.html.select_one("[hx-get]")
        assert "is being counted" in part.text
        for _ in range(1000):
            page = await visitor.get(part["hx-get"])
            if "is being counted" not in page.text:
                break
        assert page.figure("Disbursed") == "5,000.00"
        assert not page.html.select("main")


async def test_a_count_that_fails_is_logged_and_tried_again(world, loan, monkeypatch):
    world.errors_allowed = True
    read = world.service.store.read

    def failing(name, *params):
        if name == "book_part":
            raise RuntimeError("no")
        return read(name, *params)

    monkeypatch.setattr(world.service.store, "read", failing)
    assert "is being counted" in (await the_book(world)).text
    assert "the book could not be counted" in world.log.getvalue()
    monkeypatch.setattr(world.service.store, "read", read)
    keeper = Bookkeeper()
    await keeper.look(world.service.services)
    assert isinstance(keeper.book, Book)


async def test_a_borrower_has_no_book(world, borrower):
    assert (await (await borrower_visitor(world, borrower)).get("/console/book/")).status == 404
