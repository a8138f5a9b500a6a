"""From paise and day numbers to what is shown."""

from __future__ import annotations

from datetime import UTC, date, datetime

from ledgerd.domain.commands import Disburse, Repay
from ledgerd.domain.events import Allocation, BillIssued, Due, LoanDisbursed, PaymentRecorded, Terms
from ledgerd.domain.loan import Loan, decide, evolve
from ledgerd.http import payloads, present

START = date(2026, 1, 1).toordinal()
TERMS = Terms(5_000_00, 14_00, 38, 12, "min_due", START, 30, 15, 3_00)


def lent() -> tuple[LoanDisbursed, Loan]:
    [event] = decide(None, Disburse(7, TERMS, 1), START)
    return event, evolve(None, event)


def test_an_instant_is_rfc_3339_in_utc():
    for time_ms in (0, 1, 999, 1_000, 1_800_000_000_000, 1_800_000_000_001, 4_102_444_799_999):
        shown = present.instant(time_ms)
        assert shown.endswith("Z")
        assert datetime.fromisoformat(shown) == datetime.fromtimestamp(time_ms // 1000, UTC).replace(
            microsecond=time_ms % 1000 * 1000
        )


def test_money_beyond_the_bills_has_no_bill():
    due_date = date(2026, 2, 15).toordinal()
    shown = present.allocations([Allocation(3, due_date, 5, 100_00), Allocation(0, 0, 1, 0)])
    assert shown == [
        payloads.AllocationShown(3, "2026-02-15", "0.05", "100.00"),
        payloads.AllocationShown(None, None, "0.01", "0.00"),
    ]


def test_what_is_owed_adds_up():
    assert present.outstanding(4_848_10, 99) == payloads.OutstandingShown("4848.10", "0.99", "4849.09")


def test_nothing_due_is_null():
    assert present.due(None) is None
    assert present.due(Due(1, START + 30, START + 45, 207_00)) == payloads.DueShown(
        "2026-01-31", "2026-02-15", "207.00"
    )


def test_a_receipt_is_closed_when_nothing_is_to_come():
    event, loan = lent()
    [paid] = decide(loan, Repay("c:1", "t", 5_000_00, 1, 0), START)
    assert isinstance(paid, PaymentRecorded)
    receipt = present.receipt(255, paid, replayed=True)
    assert (receipt.loan_status, receipt.next_due, receipt.replayed) == ("closed", None, True)
    assert (receipt.loan_id, receipt.payment_id) == ("00000000000000ff", "0000000000000001")
    [part] = decide(loan, Repay("c:1", "t", 1_00, 1, 0), START)
    assert present.receipt(255, part, replayed=False).loan_status == "active"
    shown = present.new_loan(255, event, loan)
    assert shown.emi_schedule[0].amount_due == "207.00"


def test_upcoming_is_unpaid_bills_and_then_the_projection():
    _, loan = lent()
    loan = evolve(loan, BillIssued(1, START + 30, 57_00, 150_00, 0))
    upcoming = present.upcoming(loan, START + 40)
    assert [each.number for each in upcoming] == list(range(1, 13))
    assert upcoming[0] == payloads.UpcomingShown(1, "2026-01-31", "2026-02-15", "207.00")
    [open_bill] = present.open_bills(loan)
    assert (open_bill.interest, open_bill.principal, open_bill.amount_due) == ("57.00", "150.00", "207.00")
    bills = present.bills(loan, [BillIssued(1, START + 30, 57_00, 150_00, 0)])
    assert (bills[0].status, bills[0].paid, bills[0].total_due) == ("unpaid", "0.00", "207.00")
    assert present.status(loan) == "active"


def test_a_row_of_payments_is_shown_as_its_receipt_was():
    row = [
        9,
        255,
        2,
        None,
        1,
        "t",
        START,
        1_800_000_000_000,
        207_00,
        57_00,
        150_00,
        b"[[1,739296,5700,15000]]",
    ]
    shown = present.past_payment(row)
    assert (shown.payment_id, shown.date, shown.transaction_id) == ("0000000000000001", "2026-01-01", "t")
    assert (shown.amount_paid, shown.interest, shown.principal) == ("207.00", "57.00", "150.00")
    assert shown.allocations == [payloads.AllocationShown(1, "2025-02-14", "57.00", "150.00")]
