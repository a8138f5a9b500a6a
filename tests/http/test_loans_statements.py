"""Statements over HTTP: all that they say, page by page, and reads of a past that nobody billed."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from tests.http.outside import START, day

STATEMENT = [
    "loan_id", "status", "as_of", "outstanding", "payoff", "past_due", "bills", "past_transactions",
    "upcoming_emis", "next_cursor",
]  # fmt: skip
BILL = [
    "number", "billing_date", "due_date", "interest", "principal_due", "min_due", "past_due", "total_due",
    "paid", "status",
]  # fmt: skip
PAST_TRANSACTION = [
    "payment_id", "date", "recorded_at", "principal", "interest", "amount_paid", "transaction_id", "status",
    "allocations",
]  # fmt: skip


async def test_a_statement_says_all_of_it(world, borrower, loan):
    await world.advance(46)
    receipt = (await world.pay(borrower, loan, "100.00", "first")).json
    statement = await world.statement(borrower, loan)
    assert list(statement) == STATEMENT
    shown = await world.loan(borrower, loan)
    assert statement["outstanding"] == shown["outstanding"]
    for name in ("loan_id", "status", "as_of", "payoff", "past_due"):
        assert statement[name] == shown[name]
    assert [list(bill) for bill in statement["bills"]] == [BILL]
    assert statement["bills"] == [
        {
            "number": 1,
            "billing_date": day(30),
            "due_date": day(45),
            "interest": "57.00",
            "principal_due": "150.00",
            "min_due": "207.00",
            "past_due": "0.00",
            "total_due": "207.00",
            "paid": "100.00",
            "status": "part_paid",
        }
    ]
    [past] = statement["past_transactions"]
    assert list(past) == PAST_TRANSACTION
    assert past == {
        "payment_id": receipt["payment_id"],
        "date": day(46),
        "recorded_at": receipt["recorded_at"],
        "principal": "43.00",
        "interest": "57.00",
        "amount_paid": "100.00",
        "transaction_id": "first",
        "status": "applied",
        "allocations": receipt["allocations"],
    }
    upcoming = statement["upcoming_emis"]
    assert upcoming[0] == {"number": 1, "date": day(30), "due_date": day(45), "amount_due": "107.00"}
    assert upcoming[1:] == [
        {name: each[name] for name in ("number", "date", "due_date", "amount_due")}
        for each in shown["emi_schedule"]
    ]
    assert statement["next_cursor"] is None
    assert (await world.statement(world.ops, loan)) == statement


async def test_past_due_begins_the_day_after_the_due_date(world, borrower, loan):
    await world.advance(45)
    assert (await world.statement(borrower, loan))["past_due"] == "0.00"
    await world.advance(1)
    assert (await world.statement(borrower, loan))["past_due"] == "207.00"
    await world.pay(borrower, loan, "7.00")
    assert (await world.statement(borrower, loan))["past_due"] == "200.00"
    assert (await world.loan(borrower, loan))["past_due"] == "200.00"
    await world.advance(30)
    statement = await world.statement(borrower, loan)
    assert (statement["past_due"], statement["bills"][1]["past_due"]) == ("407.00", "200.00")


async def test_a_read_of_an_unbilled_past_shows_it_and_writes_nothing(world, borrower, loan):
    await world.advance(29)
    world.jump(70)  # three bills fall due, and no job has run
    before = await world.head()
    statement = await world.statement(borrower, loan)
    assert [(bill["number"], bill["billing_date"]) for bill in statement["bills"]] == [
        (number, day(30 * number)) for number in (1, 2, 3)
    ]
    assert [bill["past_due"] for bill in statement["bills"]] == ["0.00", "207.00", "414.00"]
    shown = await world.loan(borrower, loan)
    assert len(shown["open_bills"]) == 3
    listed = (await world.get("/api/loans/", borrower)).json["loans"]
    assert [len(each["open_bills"]) for each in listed] == [3]
    assert (await world.pay(borrower, loan, "9999.00")).slug == "amount-exceeds-payoff"
    assert (await world.pay(borrower, loan, "1.00", for_bill=3)).slug == "past-due-unpaid"
    assert shown["version"] == 1
    assert await world.head() == before
    # The first payment writes what the read has shown, and changes none of it.
    await world.pay(borrower, loan, "1.00")
    assert await world.head() == before + 4
    after = await world.statement(borrower, loan)
    assert [{**bill, "paid": "", "status": ""} for bill in after["bills"]] == [
        {**bill, "paid": "", "status": ""} for bill in statement["bills"]
    ]
    first = after["bills"][0]
    assert (first["paid"], first["status"]) == ("1.00", "part_paid")
    run = (await world.post("/api/billing-runs/", {}, world.ops)).json
    assert (run["due"], run["billed"]) == (0, 0)
    assert await world.statement(borrower, loan) == after


@pytest.mark.parametrize("by", ["run", "payment"])
async def test_a_bill_that_is_written_meanwhile_is_shown_once(
    world, borrower, loan, monkeypatch: pytest.MonkeyPatch, by: str
):
    """The view issues bills that nobody wrote; before the statement reads those on disk, they are there."""
    world.jump(70)
    before = await world.head()
    store, registry = world.service.store, world.service.registry
    read = store.read

    async def read_late(name: str, *params: Any) -> Any:
        if name == "issued_bills":
            if by == "run":
                await world.service.billing.run(world.today.toordinal())
            else:
                assert (await world.pay(borrower, loan, "1.00")).status == 201
            await store.project_through(registry.committer.head_seq)
        return await read(name, *params)

    with monkeypatch.context() as patch:
        patch.setattr(store, "read", read_late)
        meanwhile = await world.statement(borrower, loan)
    assert await world.head() == before + (2 if by == "run" else 3)
    assert [bill["number"] for bill in meanwhile["bills"]] == [1, 2]
    later = await world.statement(borrower, loan)
    assert [bill["total_due"] for bill in later["bills"]] == [
        bill["total_due"] for bill in meanwhile["bills"]
    ]


async def test_a_statement_comes_in_pages_newest_payment_first(world, borrower, loan):
    paid = []
    for number in range(7):
        await world.advance(9)
        paid.insert(0, (await world.pay(borrower, loan, f"{number + 1}.00")).json["payment_id"])
    whole = await world.statement(borrower, loan)
    assert [each["payment_id"] for each in whole["past_transactions"]] == paid
    assert len(whole["bills"]) == 2
    for limit in (1, 2, 3, 6, 7, 8, 500):
        found, cursor, page_number = [], "", 0
        while True:
            page = await world.statement(borrower, loan, f"&limit={limit}{cursor}")
            assert list(page) == STATEMENT
            assert 1 <= len(page["past_transactions"]) <= limit
            found += [each["payment_id"] for each in page["past_transactions"]]
            first = page_number == 0
            assert page["bills"] == (whole["bills"] if first else [])
            assert page["upcoming_emis"] == (whole["upcoming_emis"] if first else [])
            assert page["payoff"] == whole["payoff"]
            if page["next_cursor"] is None:
                break
            cursor, page_number = f"&cursor={page['next_cursor']}", page_number + 1
        assert found == paid
        assert page_number == (len(paid) - 1) // limit
    # A payment that comes between two pages moves none of them.
    page = await world.statement(borrower, loan, "&limit=3")
    await world.pay(borrower, loan, "50.00")
    rest = await world.statement(borrower, loan, f"&cursor={page['next_cursor']}")
    assert [each["payment_id"] for each in rest["past_transactions"]] == paid[3:]


async def test_what_a_page_may_not_be(world, borrower, loan):
    for _ in range(3):
        await world.pay(borrower, loan, "1.00")
    other = await world.borrower()
    foreign = (await world.lend(other))["loan_id"]
    for _ in range(3):
        await world.pay(other, foreign, "1.00")
    cursor = (await world.statement(other, foreign, "&limit=1"))["next_cursor"]

    async def refused(query: str) -> list[str]:
        answer = await world.get(f"/api/get-statement/?{query}", borrower)
        assert (answer.status, answer.slug) == (422, "invalid-fields"), query
        return answer.paths

    for limit in ("0", "501", "-1", "1.0", "", "x", "１", "%2B1", "9" * 5_000):
        assert await refused(f"loan_id={loan}&limit={limit}") == ["limit"]
    for bad in ("x", "", "0", "0" * 16, "7fffffffffffffff", loan, cursor, "%00", cursor.upper() + "0"):
        assert await refused(f"loan_id={loan}&cursor={bad}") == ["cursor"], bad
    assert await refused("") == ["loan_id"]
    assert await refused("limit=3") == ["loan_id"]


async def test_another_borrower_s_loan_is_not_there(world, borrower, loan):
    other = await world.borrower()
    for path in ("/api/loans/{}/", "/api/get-statement/?loan_id={}"):
        answers = [
            await world.get(path.format(loan_id), other)
            for loan_id in (loan, "0" * 16, "7" * 16, "x", "%00", "%FF", "%27%20OR%201%3D1", "9" * 6_000)
        ]
        assert {(answer.status, answer.slug) for answer in answers} == {(404, "loan-not-found")}
        assert len({str(answer.bare) for answer in answers}) == 1
    assert (await world.get("/api/get-statement/?loan_id=", borrower)).slug == "loan-not-found"


async def test_a_closed_loan_still_has_a_statement(world, borrower):
    loan = (await world.lend(borrower, "100.00", "0", 1))["loan_id"]
    await world.advance(31)
    await world.pay(borrower, loan, "40.00")
    await world.pay(borrower, loan, "60.00")
    closed = await world.statement(borrower, loan)
    await world.advance(400)
    later = await world.statement(borrower, loan)
    assert later == closed | {"as_of": world.today.isoformat()}
    assert (later["status"], later["payoff"], later["past_due"]) == ("closed", "0.00", "0.00")
    assert [(bill["paid"], bill["status"]) for bill in later["bills"]] == [("100.00", "paid")]
    assert later["upcoming_emis"] == []
    assert [each["amount_paid"] for each in later["past_transactions"]] == ["60.00", "40.00"]


async def test_bills_are_numbered_by_cycle_also_when_they_ask_for_nothing(world, borrower):
    loan = (await world.lend(borrower, "0.10", "0", 3))["loan_id"]  # 3 % of ten paise is nothing
    await world.advance(200)
    bills = (await world.statement(borrower, loan))["bills"]
    assert [(bill["number"], bill["min_due"], bill["status"]) for bill in bills] == [
        (1, "0.00", "paid"),
        (2, "0.00", "paid"),
        (3, "0.10", "unpaid"),
        (4, "0.00", "paid"),
        (5, "0.00", "paid"),
        (6, "0.00", "paid"),
    ]
    assert [bill["total_due"] for bill in bills] == ["0.00", "0.00", "0.10", "0.10", "0.10", "0.10"]
    assert date.fromisoformat(bills[5]["due_date"]) == START + timedelta(195)
