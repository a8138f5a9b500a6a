"""What a payment is refused for, in the order of precedence, and that the guard moves no money."""

from __future__ import annotations

import pytest

from ledgerd.domain.commands import Rejection
from ledgerd.domain.events import Allocation, Due, PaymentRecorded
from ledgerd.domain.loan import decide, repay
from tests.domain.lives import BORROWER, START, lend, repayment

# On day 60 of 1,000 at 14 %: bill 1 41.40 was due on day 45, bill 2 41.40; the payoff is 1,022.80.
UNPAID_1 = Due(1, START + 30, START + 45, 41_40)
NOT_FOUND = Rejection("loan-not-found")
NO_SUCH_BILL = Rejection("no-such-bill")
PAST_DUE = Rejection("past-due-unpaid", unpaid_bills=(UNPAID_1,))
EXCEEDS = Rejection("amount-exceeds-payoff", payoff_paise=1_022_80)


@pytest.mark.parametrize(
    ("amount_paise", "for_bill", "borrower_id", "expected"),
    [
        (1_022_80, None, None, None),
        (1_022_80, 1, BORROWER, None),
        (1, 1, BORROWER, None),
        (1_022_81, None, None, EXCEEDS),
        (1_022_81, 1, None, EXCEEDS),
        (1, 2, None, PAST_DUE),
        (1_022_81, 2, None, PAST_DUE),
        (1, 0, None, NO_SUCH_BILL),
        (1, -1, None, NO_SUCH_BILL),
        (1, 3, None, NO_SUCH_BILL),  # not yet, although older ones are unpaid
        (1_022_81, 3, None, NO_SUCH_BILL),
        (1, None, BORROWER + 1, NOT_FOUND),
        (1, None, 0, NOT_FOUND),
        (1_022_81, 2, BORROWER + 1, NOT_FOUND),
        (1_022_81, 3, BORROWER + 1, NOT_FOUND),
    ],
)
def test_refusals_by_descending_precedence(
    amount_paise: int, for_bill: int | None, borrower_id: int | None, expected: Rejection | None
) -> None:
    book, today = lend(1_000_00, 14_00, 3), START + 60
    outcome = book.tell(repayment(amount_paise, for_bill=for_bill, borrower_id=borrower_id), today)
    assert expected == (outcome if isinstance(outcome, Rejection) else None)
    assert len(book.events) == (1 if expected else 4)


@pytest.mark.parametrize("borrower_id", [None, BORROWER])
def test_a_loan_that_is_not_there_is_not_found(borrower_id: int | None) -> None:
    assert decide(None, repayment(1, for_bill=9, borrower_id=borrower_id), START) == NOT_FOUND
    assert repay(None, repayment(1, borrower_id=borrower_id), START) == NOT_FOUND


def test_a_closed_loan_refuses_before_all_but_a_stranger() -> None:
    book = lend(1_000_00, 14_00, 3)
    book.pay(1_000_00, START)
    for for_bill in (None, 0, 1, 9):
        assert book.pay(9_999_00, START + 90, for_bill) == Rejection("loan-closed")
    assert book.tell(repayment(1, borrower_id=BORROWER), START) == Rejection("loan-closed")
    assert book.tell(repayment(1, borrower_id=BORROWER + 1), START) == NOT_FOUND


def test_every_older_unpaid_bill_is_named_with_what_it_still_asks_for() -> None:
    book, today = lend(1_000_00, 14_00, 6), START + 90
    book.pay(11_41, today)
    second = Due(2, START + 60, START + 75, 41_40)
    part_paid = Due(1, START + 30, START + 45, 29_99)
    assert book.pay(1, today, for_bill=3) == Rejection("past-due-unpaid", unpaid_bills=(part_paid, second))
    assert book.pay(1, today, for_bill=2) == Rejection("past-due-unpaid", unpaid_bills=(part_paid,))


def test_the_guard_moves_no_money() -> None:
    guarded, today = lend(1_000_00, 14_00, 3), START + 60
    free = lend(1_000_00, 14_00, 3)
    assert guarded.pay(50_00, today, for_bill=1) == free.pay(50_00, today)
    # bill 1 is paid now; naming it is no refusal, and the money goes to bill 2
    second = guarded.pay(10_00, today, for_bill=1)
    assert isinstance(second, PaymentRecorded)
    assert second.allocations == (Allocation(2, START + 75, 2_80, 7_20),)
