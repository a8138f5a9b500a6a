"""The rule book on figures worked out by hand, each with its working beside it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ledgerd.domain.commands import Disburse, Rejection
from ledgerd.domain.events import Allocation, BillIssued, Due, LoanDisbursed, PaymentRecorded, Plan
from ledgerd.domain.loan import Instalment, decide, level_instalment, next_due, principal_due, schedule
from tests.domain.lives import START, Book, lend, repayment


def asks(bill: BillIssued) -> tuple[int, int, int, int]:
    return bill.interest_paise, bill.principal_due_paise, bill.min_due_paise, bill.past_due_paise


def paid(answer: PaymentRecorded | Rejection) -> PaymentRecorded:
    assert isinstance(answer, PaymentRecorded), answer
    return answer


def after_days(days: int, *loan: Any, **rules: Any) -> tuple[Book, int]:
    return lend(*loan, **rules), START + days


# Lending ----------------------------------------------------------------------------------------------


def test_a_loan_is_dated_on_the_day_that_it_is_decided() -> None:
    """A date that moves between the asking and the deciding leaves no loan older than its ledger."""
    asked = lend(5_000_00, 14_00, 12).loan.terms
    assert asked.disbursed_on == START
    decided = decide(None, Disburse(7, asked, 1_000, "key"), START + 1)
    terms = msgspec.structs.replace(asked, disbursed_on=START + 1)
    assert decided == [LoanDisbursed(7, terms, 1_000, "key")]


# Bills ------------------------------------------------------------------------------------------------


def test_a_bill_is_dated_by_its_cycle_and_due_fifteen_days_later() -> None:
    book = lend(5_000_00, 14_00, 12)
    assert book.loan.next_billing == START + 30
    assert book.bill(START + 29) == []
    assert book.bill(START + 30) == [BillIssued(1, START + 30, 57_00, 150_00, 0)]  # 30 x 1.90; 3 %
    assert book.loan.next_billing == START + 60
    assert book.loan.unpaid_dues() == (Due(1, START + 30, START + 45, 207_00),)


def test_money_paid_before_a_bill_never_counts_towards_it() -> None:
    book, today = after_days(29, 5_000_00, 14_00, 12)
    receipt = paid(book.pay(207_00, today))
    assert (receipt.interest_paise, receipt.principal_paise) == (55_10, 151_90)
    assert receipt.allocations == (Allocation(0, 0, 55_10, 151_90),)
    assert (receipt.outstanding_principal_paise, receipt.outstanding_interest_paise) == (4_848_10, 0)
    # one day on 4,848.10 is 1.842278; 3 % of 4,848.10 is 145.443
    assert receipt.next_due == Due(1, START + 30, START + 45, 147_28)
    [bill] = book.bill(START + 30)
    assert asks(bill) == (1_84, 145_44, 147_28, 0)
    assert book.loan.accrued_units == 22_780  # 0.2278 paise stay


def test_bills_ignored_are_carried_forward() -> None:
    book, today = after_days(100, 5_000_00, 14_00, 12)
    bills = book.bill(today)
    assert [bill.number for bill in bills] == [1, 2, 3]
    assert [asks(bill) for bill in bills] == [
        (57_00, 150_00, 207_00, 0),
        (57_00, 150_00, 207_00, 207_00),
        (57_00, 150_00, 207_00, 414_00),
    ]
    assert book.loan.interest_paise(today) == 190_00  # 171.00 billed and 10 x 1.90
    assert book.loan.payoff_paise(today) == 5_190_00
    past_due = {days: book.loan.past_due_paise(START + days) for days in (45, 46, 75, 76, 105, 106)}
    assert past_due == {45: 0, 46: 207_00, 75: 207_00, 76: 414_00, 105: 414_00, 106: 621_00}

    receipt = paid(book.pay(300_00, today))
    assert receipt.allocations == (
        Allocation(1, START + 45, 57_00, 150_00),
        Allocation(2, START + 75, 57_00, 36_00),
    )
    assert receipt.next_due == Due(2, START + 60, START + 75, 114_00)
    assert book.loan.past_due_paise(today) == 114_00
    [fourth] = book.bill(START + 120)
    # 10 x 1.90 and 20 x 1.82932 are 55.5864; 3 % of 4,814.00 is 144.42; 114.00 and 207.00 forward
    assert asks(fourth) == (55_58, 144_42, 200_00, 321_00)
    assert book.loan.accrued_units == 64_000


def test_bills_go_on_after_tenure_with_interest_alone() -> None:
    book, today = after_days(125, 100_00, 14_00, 2)
    assert [asks(bill) for bill in book.bill(today)] == [
        (1_14, 3_00, 4_14, 0),
        (1_14, 97_00, 98_14, 4_14),  # the last cycle asks for all that bill 1 does not
        (1_14, 0, 1_14, 102_28),
        (1_14, 0, 1_14, 103_42),
    ]
    receipt = paid(book.pay(104_56, today))  # every bill; the interest since, 5 x 3.8 paise, is still owed
    assert (receipt.outstanding_principal_paise, receipt.outstanding_interest_paise) == (0, 19)
    assert receipt.next_due == Due(5, START + 150, START + 165, 19)
    assert book.loan.closed_on is None
    assert asks(book.bill(START + 150)[0]) == (19, 0, 19, 0)
    assert paid(book.pay(19, START + 155)).next_due is None
    assert book.loan.closed_on == START + 155
    assert book.bill(START + 500) == []


def test_paying_every_bill_closes_the_loan() -> None:
    book = lend(1_000_00, 14_00, 3)
    # 30 x 0.38; then 970.00: 11.058, 0.8 paisa stays; then 940.90: 10.72626 + 0.008, 0.426 paisa is waived
    for number, asked in enumerate([41_40, 40_15, 951_63], 1):
        today = START + 30 * number
        assert next_due(book.view(today)) == Due(number, today, today + 15, asked)
        receipt = paid(book.pay(asked, today))
    assert receipt.next_due is None
    assert book.loan.closed_on == today
    assert (book.loan.payoff_paise(today + 900), book.loan.accrued_units) == (0, 0)
    assert (book.loan.interest_received_paise, book.loan.principal_received_paise) == (33_18, 1_000_00)


def test_a_bill_that_asks_for_nothing_is_issued_all_the_same() -> None:
    book, today = after_days(120, 100_00, 0, 3, "equal_emi")
    assert [asks(bill) for bill in book.bill(today)] == [
        (0, 33_34, 33_34, 0),
        (0, 33_33, 33_33, 33_34),
        (0, 33_33, 33_33, 66_67),
        (0, 0, 0, 100_00),
    ]
    assert (book.loan.bills_issued, len(book.loan.unpaid_bills)) == (4, 3)


def test_a_bill_asks_for_no_principal_twice() -> None:
    book, today = after_days(90, 100_00, 0, 12, min_due_hundredths=60_00)
    assert [bill.principal_due_paise for bill in book.bill(today)] == [60_00, 40_00, 0]


@pytest.mark.parametrize(
    ("amount_paise", "percent_hundredths", "expected"),
    [(10, 5_00, 0), (30, 5_00, 2), (50, 3_00, 2), (150, 3_00, 4)],  # 0.5, 1.5, 1.5 and 4.5 paise
)
def test_the_share_of_principal_goes_half_even(
    amount_paise: int, percent_hundredths: int, expected: int
) -> None:
    book, today = after_days(30, amount_paise, 0, 3, min_due_hundredths=percent_hundredths)
    assert book.bill(today)[0].principal_due_paise == expected


def test_the_bill_of_a_day_comes_before_its_payment() -> None:
    book, today = after_days(30, 1_000_00, 14_00, 3)
    bill, payment = book.tell(repayment(41_40), today)
    assert isinstance(bill, BillIssued)
    assert isinstance(payment, PaymentRecorded)
    assert payment.allocations == (Allocation(1, START + 45, 11_40, 30_00),)
    assert paid(book.pay(100_00, today)).allocations == (Allocation(0, 0, 0, 100_00),)
    assert book.loan.accrued_on(today + 1) == 870_00 * 38  # the day after is charged on what is left


# The level instalment -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("principal_paise", "rate_units", "cycles", "level"),
    [
        (1_000_00, 990, 3, 339_96),  # 9.9 / (1 - 1.0099^-3) = 339.9550
        (669_94, 990, 2, 339_96),  # 339.9525
        (1_000_00, 8_220, 120, 82_21),  # 82.2 / (1 - 1.0822^-120) = 82.2063
        (1_000_00, 0, 3, 333_34),
        (999_99, 0, 3, 333_33),
        (1_000_00, 990, 1, 1_009_90),
        (1, 1_140, 3, 1),
        (0, 1_140, 3, 0),
        (0, 0, 3, 0),
    ],
)
def test_level_instalment(principal_paise: int, rate_units: int, cycles: int, level: int) -> None:
    assert level_instalment(principal_paise, rate_units, cycles) == level


def test_equal_emi_whole_life() -> None:
    book = lend(1_000_00, 12_00, 3, "equal_emi")
    # 339.96 less 9.90; 6.632406 on 669.94, 339.96 less 6.63; 336.61 and 3.332439 + 0.002406
    life = [(9_90, 330_06), (6_63, 333_33), (3_33, 336_61)]
    assert [(row.interest_paise, row.principal_paise) for row in schedule(book.loan, START)] == life
    for number, (interest_paise, principal_paise) in enumerate(life, 1):
        [bill] = book.bill(START + 30 * number)
        assert asks(bill) == (interest_paise, principal_paise, interest_paise + principal_paise, 0)
        paid(book.pay(bill.min_due_paise, bill.billing_date))
    assert book.loan.closed_on == START + 90


def test_equal_emi_interest_on_billed_principal_lowers_the_principal_due() -> None:
    book, today = after_days(60, 1_000_00, 12_00, 3, "equal_emi")
    assert asks(book.bill(today)[1]) == (9_90, 330_06, 339_96, 339_96)  # interest on all 1,000 again


def test_equal_emi_money_ahead_of_time_recalculates_what_follows() -> None:
    book = lend(1_000_00, 12_00, 3, "equal_emi")
    book.pay(500_00, START)
    # 4.95 / (1 - 1.0099^-3) = 169.9775
    assert schedule(book.loan, START)[0] == Instalment(1, START + 30, START + 45, 4_95, 165_03)


def test_equal_emi_is_held_within_nothing_and_all() -> None:
    book = lend(1_000_00, 100_00, 120, "equal_emi")  # 2.74 a day
    book.pay(79_46, START + 29)
    # 82.21 less 2.74; then the level on 920.53 is 75.67 or a little more, less than the interest
    assert [asks(bill)[:2] for bill in book.bill(START + 60)] == [(2_74, 79_47), (82_20, 0)]
    book = lend(1_000_00, 100_00, 2, "equal_emi", cycle_days=365)
    book.pay(997_36, START + 364)
    # 1,000.1 / (1 - 2.0001^-2) = 1,333.4, less 2.74, is more than there is
    assert asks(book.bill(START + 365)[0])[:2] == (2_74, 1_000_00)


@pytest.mark.parametrize("plan", ["min_due", "equal_emi"])
@pytest.mark.parametrize(
    ("number", "expected"), [(1, "some"), (11, "some"), (12, "all"), (13, "all"), (99, "all")]
)
def test_all_principal_is_asked_for_from_the_last_cycle_on(plan: Plan, number: int, expected: str) -> None:
    terms = lend(5_000_00, 14_00, 12, plan).loan.terms
    asked = principal_due(terms, number, 5_000_00, 4_000_00, 57_00)
    assert asked == 4_000_00 if expected == "all" else 0 < asked < 4_000_00


# Payments -----------------------------------------------------------------------------------------------

# On day 40 of 1,000 at 14 %, bill 1 asks 11.40 + 30.00 and ten days since are 3.80.
SPLITS = {
    1: [(1, 1, 0)],
    11_40: [(1, 11_40, 0)],
    11_41: [(1, 11_40, 1)],
    41_39: [(1, 11_40, 29_99)],
    41_40: [(1, 11_40, 30_00)],
    41_41: [(1, 11_40, 30_00), (0, 1, 0)],
    45_20: [(1, 11_40, 30_00), (0, 3_80, 0)],
    45_21: [(1, 11_40, 30_00), (0, 3_80, 1)],
    50_00: [(1, 11_40, 30_00), (0, 3_80, 4_80)],
    1_015_20: [(1, 11_40, 30_00), (0, 3_80, 970_00)],
}


@pytest.mark.parametrize(("amount_paise", "parts"), SPLITS.items())
def test_splits(amount_paise: int, parts: list[tuple[int, int, int]]) -> None:
    book, today = after_days(40, 1_000_00, 14_00, 3)
    receipt = paid(book.pay(amount_paise, today))
    due_dates = {0: 0, 1: START + 45}
    assert receipt.allocations == tuple(
        Allocation(bill, due_dates[bill], interest, principal) for bill, interest, principal in parts
    )
    assert receipt.interest_paise == sum(interest for _, interest, _ in parts)
    assert receipt.principal_paise == sum(principal for _, _, principal in parts)
    assert receipt.outstanding_principal_paise == 1_000_00 - receipt.principal_paise
    assert receipt.outstanding_interest_paise == 15_20 - receipt.interest_paise
    assert (receipt.next_due is None) == (book.loan.closed_on == today) == (amount_paise == 1_015_20)


def test_a_receipt_says_who_paid_what_and_when() -> None:
    book, today = after_days(3, 1_000_00, 14_00, 3)
    receipt = paid(book.pay(5_00, today))
    assert (receipt.caller, receipt.transaction_id, receipt.payment_id) == ("c:1", "t-1", 1)
    assert (receipt.paid_on, receipt.recorded_at_ms, receipt.amount_paise) == (today, 1_001, 5_00)


def test_a_payment_of_exactly_the_payoff_waives_the_fraction() -> None:
    book, today = after_days(1, 100_01, 14_00, 3)  # 3.80038 paise
    assert book.loan.payoff_paise(today) == 100_04
    assert book.pay(100_05, today) == Rejection("amount-exceeds-payoff", payoff_paise=100_04)
    almost = paid(lend(100_01, 14_00, 3).pay(100_03, today))
    assert (almost.outstanding_principal_paise, almost.outstanding_interest_paise) == (1, 0)
    receipt = paid(book.pay(100_04, today))
    assert (receipt.interest_paise, receipt.principal_paise, receipt.next_due) == (3, 100_01, None)
    assert (book.loan.closed_on, book.loan.accrued_units) == (today, 0)
    assert book.loan.next_billing is None
    assert schedule(book.loan, today) == []
    assert [book.loan.payoff_paise(today + days) for days in (0, 1, 400)] == [0, 0, 0]


def test_paid_back_on_the_day_it_was_lent() -> None:
    book = lend(100_00, 14_00, 3)
    assert paid(book.pay(100_00, START)).interest_paise == 0
    assert book.loan.closed_on == START


def test_a_payment_dated_before_the_last_one_counts_on_the_last_ones_day() -> None:
    book = lend(1_000_00, 14_00, 3)
    book.pay(10_00, START + 20)
    before = book.loan
    assert paid(book.pay(10_00, START + 10)).paid_on == START + 20
    assert book.loan.accrued_through == before.accrued_through == START + 20
    assert book.loan.accrued_on(START + 10) == book.loan.accrued_on(START + 20), "no day is charged backwards"
    assert book.loan.payoff_paise(START) == book.loan.payoff_paise(START + 20)
    assert schedule(book.loan, START + 10) == schedule(book.loan, START + 20)


# The projection -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("apr_hundredths", "plan", "life"),
    [
        (0, "min_due", [(0, 3_00), (0, 2_91), (0, 94_09)]),
        (0, "equal_emi", [(0, 33_34), (0, 33_33), (0, 33_33)]),
        (14_00, "min_due", [(1_14, 3_00), (1_10, 2_91), (1_07, 94_09)]),  # 1.1058; 1.072626 + 0.0058
    ],
)
def test_schedules(apr_hundredths: int, plan: Plan, life: list[tuple[int, int]]) -> None:
    book = lend(100_00, apr_hundredths, 3, plan)
    rows = schedule(book.loan, START)
    assert rows == [
        Instalment(number, START + 30 * number, START + 30 * number + 15, interest, principal)
        for number, (interest, principal) in enumerate(life, 1)
    ]
    assert [row.amount_paise for row in rows] == [interest + principal for interest, principal in life]


def test_the_projection_takes_unpaid_bills_as_paid_today() -> None:
    book, today = after_days(100, 5_000_00, 14_00, 12)
    # 5,000 - 450.00 = 4,550; 10 days of 1.90 and 20 of 1.729 are 53.58; 3 % of 4,550 is 136.50
    assert schedule(book.view(today), today)[0] == Instalment(4, START + 120, START + 135, 53_58, 136_50)
    assert next_due(book.view(today)) == Due(1, START + 30, START + 45, 207_00)


def test_the_projection_ends_when_less_than_a_paisa_is_left() -> None:
    book = lend(1_00, 36_50, 1)  # a tenth of a paisa a day; bill 1 asks for all principal
    loan = book.view(START + 39)
    assert schedule(loan, START + 39) == []
    assert schedule(loan, START + 40) == [Instalment(2, START + 60, START + 75, 1, 0)]
