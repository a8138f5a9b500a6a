from __future__ import annotations

import json
from decimal import Decimal

from ledgerd.http.console.loan_page import exact
from tests.http.console.visitor import Seen, Visitor, borrower_visitor, ops_visitor


def paise(text: str) -> int:
    return int(Decimal(text.replace(",", "")) * 100)


def plots(page: Seen) -> list[dict]:
    return [json.loads(element["data-plot"]) for element in page.html.select("[data-plot]")]


async def opened(world, loan) -> tuple[Visitor, Seen]:
    visitor = await ops_visitor(world)
    return visitor, await visitor.get(f"/console/loans/{loan}/")


async def test_both_see_a_loan_and_no_other_borrower_does(world, borrower, loan):
    for visitor in (await ops_visitor(world), await borrower_visitor(world, borrower)):
        page = await visitor.get(f"/console/loans/{loan}/")
        assert page.status == 200
        assert loan in page.html.h1.text
    stranger = await borrower_visitor(world, await world.borrower())
    assert (await stranger.get(f"/console/loans/{loan}/")).status == 404
    assert (await stranger.get("/console/loans/nothing/")).status == 404


async def test_a_fresh_loan_says_what_is_empty(world, loan):
    _, page = await opened(world, loan)
    assert page.figure("Outstanding principal") == "5,000.00"
    assert page.figure("Payoff today") == "5,000.00"
    assert page.figure("Past due") == "0.00"
    assert page.figure("Next due") == "207.00 by 15 Feb 2026"
    assert page.table("Bills") == [["No bill yet: the first is dated 31 Jan 2026."]]
    assert page.table("Payments") == [["No payment yet."]]
    assert "5,000.00 lent on 1 Jan 2026 at 14.00 % a year (0.038 % a day) over 12 cycles" in page.text


async def test_the_page_says_what_the_api_says(world, borrower, loan):
    await world.advance(29)
    assert (await world.pay(world.payer, loan, "207.00", "early-1")).status == 201
    await world.advance(31)
    assert (await world.pay(borrower, loan, "100.00", "late-1")).status == 201
    _, page = await opened(world, loan)
    shown, statement = await world.loan(world.ops, loan), await world.statement(world.ops, loan)
    assert page.figure("Outstanding principal") == f"{Decimal(shown['outstanding']['principal']):,}"
    assert page.figure("Outstanding interest") == shown["outstanding"]["interest"]
    assert page.figure("Payoff today") == f"{Decimal(shown['payoff']):,}"
    assert page.figure("Past due") == shown["past_due"]
    bills = page.table("Bills")
    assert [bill[0] for bill in bills] == ["2", "1"]
    for row, bill in zip(bills, reversed(statement["bills"]), strict=True):
        assert row[3:9] == [
            bill[key] for key in ("interest", "principal_due", "min_due", "past_due", "total_due", "paid")
        ]
        assert row[9] == bill["status"].replace("_", " ")
    [late, early] = page.table("Payments")
    assert early[:6] == [
        "30 Jan 2026",
        "207.00",
        "55.10",
        "151.90",
        "beyond the bills: 55.10 interest + 151.90 principal",
        "early-1",
    ]
    assert late[4].startswith("bill 1: 1.84 interest + 98.16 principal")
    coming = page.table("What comes")
    assert len(coming) == len(statement["upcoming_emis"])
    assert paise(coming[0][3]) == paise(statement["upcoming_emis"][0]["amount_due"])


async def test_the_payoff_is_the_sum_of_its_reasons(world, loan):
    await world.advance(44)
    await world.pay(world.payer, loan, "10.01")
    await world.advance(3)
    _, page = await opened(world, loan)
    why = dict(page.table("Why the payoff is"))
    assert f"{why['What closes the loan today']}" == page.figure("Payoff today")
    parts = [
        paise(figure)
        for what, figure in why.items()
        if what.startswith(("Together", "Interest that", "Principal"))
    ]
    assert sum(parts) == paise(page.figure("Payoff today"))
    [grown] = [what for what in why if " x " in what]
    principal, rate, days = (
        grown.split(" x ")[0],
        grown.split(" x ")[1].split(" ")[0],
        grown.split(" x ")[2].split(" ")[0],
    )
    exactly = Decimal(principal.replace(",", "")) * Decimal(rate) / 100 * int(days)
    assert Decimal(why[grown]) == exactly


def test_exact_interest_is_shown_to_its_last_digit():
    assert [exact(units) for units in (0, 1, 10_000_000, 12_345_678, 190_000_000)] == [
        "0.00",
        "0.0000001",
        "1.00",
        "1.2345678",
        "19.00",
    ]


async def test_a_closed_loan_is_told_as_one(world, loan):
    await world.advance(3)
    payoff = (await world.loan(world.ops, loan))["payoff"]
    assert (await world.pay(world.payer, loan, payoff)).status == 201
    _, page = await opened(world, loan)
    assert "closed on 4 Jan 2026" in page.text
    assert page.figure("Payoff today") == "0.00"
    assert page.figure("Next due") == "nothing"
    assert page.table("Why the payoff is")[-1] == ["What closes the loan today", "0.00"]


async def test_the_pictures_show_the_balance_and_what_was_billed_and_paid(world, loan):
    await world.advance(29)
    await world.pay(world.payer, loan, "207.00")
    await world.advance(2)
    _, page = await opened(world, loan)
    balance, life = plots(page)
    assert [day_s // 86_400 - 20_454 for day_s in balance["x"]] == [0, 29, 31]
    assert balance["series"] == [
        {"label": "Principal outstanding", "kind": "steps", "values": [5000, 4848.1, 4848.1]}
    ]
    assert [series["values"] for series in life["series"]] == [[None, 147.28], [207, None]]


async def test_payments_are_paged(world, loan, monkeypatch):
    monkeypatch.setattr("ledgerd.http.console.loan_page.PAYMENTS_A_PAGE", 2)
    for number in range(3):
        await world.pay(world.payer, loan, "1.00", f"t{number}")
    visitor, page = await opened(world, loan)
    assert [row[5] for row in page.table("Payments")] == ["t2", "t1"]
    [older] = [link for link in page.html.select("main a") if link.text == "Older payments"]
    page = await visitor.get(f"/console/loans/{loan}/{older['href']}")
    assert [row[5] for row in page.table("Payments")] == ["t0"]
    assert "Bills" not in [caption.text for caption in page.html.select("caption")]
    assert (await visitor.get(f"/console/loans/{loan}/?cursor=x")).status == 422


async def test_only_those_who_run_the_book_are_led_to_the_journal(world, borrower, loan):
    _, page = await opened(world, loan)
    assert page.html.select(f'a[href="/console/loans/{loan}/journal/"]')
    assert page.html.select(f'a[href="/console/borrowers/{borrower.id}/"]')
    page = await (await borrower_visitor(world, borrower)).get(f"/console/loans/{loan}/")
    assert not page.html.select(f'a[href="/console/loans/{loan}/journal/"]')
