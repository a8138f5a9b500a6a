from __future__ import annotations

import csv
import io

from tests.http.console.visitor import borrower_visitor, ops_visitor


async def test_the_page_says_what_the_api_says(world, borrower, loan):
    await world.advance(31)
    await world.pay(borrower, loan, "250.00", "first")
    page = await (await borrower_visitor(world, borrower)).get(f"/console/loans/{loan}/statement/")
    statement = await world.statement(borrower, loan)
    stands = dict(page.table("How it stands"))
    assert stands["Payoff"].replace(",", "") == statement["payoff"]
    assert stands["Interest received"] == "58.90"
    assert page.table("Bills")[0][-1] == "paid"
    assert page.table("Payments") == [["1 Feb 2026", "250.00", "58.90", "191.10", "first"]]
    assert len(page.table("What comes")) == len(statement["upcoming_emis"])
    assert page.html.select_one("button[data-print]")


async def test_all_payments_are_in_it_up_to_a_bound_that_it_tells(world, borrower, loan, monkeypatch):
    monkeypatch.setattr("ledgerd.http.console.statement.PAYMENTS_A_READ", 2)
    for number in range(5):
        await world.pay(borrower, loan, "1.00", f"t{number}")
    visitor = await borrower_visitor(world, borrower)
    address = f"/console/loans/{loan}/statement/"
    page = await visitor.get(address)
    assert [row[-1] for row in page.table("Payments")] == ["t4", "t3", "t2", "t1", "t0"]
    assert "the newest" not in page.text
    monkeypatch.setattr("ledgerd.http.console.statement.PAYMENTS_MAX", 3)
    page = await visitor.get(address)
    assert len(page.table("Payments, newest first; the newest 4 of them")) == 4


async def test_the_csv_is_a_file_of_all_payments(world, borrower, loan):
    for name in ("plain", "-2+3", "a.b:c_d"):
        await world.pay(borrower, loan, "1.00", name.replace("+", "."))
    for visitor in (await borrower_visitor(world, borrower), await ops_visitor(world)):
        file = await visitor.get(f"/console/loans/{loan}/statement.csv")
        assert file.headers["Content-Type"] == "text/csv; charset=utf-8"
        name = f'attachment; filename="statement-{loan}-2026-01-01.csv"'
        assert file.headers["Content-Disposition"] == name
        assert file.body.count(b"\r\n") == 4
        rows = list(csv.DictReader(io.StringIO(file.body.decode())))
        assert [row["transaction_id"] for row in rows] == ["a.b:c_d", "'-2.3", "plain"]
        payments = (await world.statement(borrower, loan))["past_transactions"]
        for row, payment in zip(rows, payments, strict=True):
            for column in ("date", "recorded_at", "payment_id", "amount_paid", "interest", "principal"):
                assert row[column] == payment[column]


async def test_it_is_its_borrower_s_alone(world, borrower, loan):
    stranger = await borrower_visitor(world, await world.borrower())
    for file in ("statement/", "statement.csv"):
        assert (await stranger.get(f"/console/loans/{loan}/{file}")).status == 404


async def test_a_fresh_loan_says_what_is_empty(world, borrower, loan):
    visitor = await borrower_visitor(world, borrower)
    page = await visitor.get(f"/console/loans/{loan}/statement/")
    assert page.table("Payments") == [["No payment yet."]]
    assert page.table("Bills") == [["No bill yet."]]
    assert (await visitor.get(f"/console/loans/{loan}/statement.csv")).body.count(b"\r\n") == 1
