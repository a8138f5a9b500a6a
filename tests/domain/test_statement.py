"""The statement's bills: frozen figures, with `paid` and `status` as the loan stands."""

from __future__ import annotations

from typing import Any

from hypothesis import given

from ledgerd.domain.events import BillIssued, PaymentRecorded, Terms
from ledgerd.domain.statement import StatementBill, bills_of
from tests.domain.lives import LAW, MOVES, START, Book, Move, lend, lend_under
from tests.domain.lives import TERMS as ANY_TERMS


def standing(book: Book, today: int) -> list[tuple[int, str]]:
    return [(shown.paid_paise, shown.status) for shown in bills_of(book.view(today), book.issued(today))]


def test_bills_as_payments_reach_them() -> None:
    book, today = lend(1_000_00, 14_00, 6), START + 70  # two bills, of 41.40 each
    assert standing(book, today) == [(0, "unpaid"), (0, "unpaid")]
    steps: list[tuple[int, list[tuple[int, str]]]] = [
        (1, [(1, "part_paid"), (0, "unpaid")]),
        (41_38, [(41_39, "part_paid"), (0, "unpaid")]),
        (1, [(41_40, "paid"), (0, "unpaid")]),
        (11_40, [(41_40, "paid"), (11_40, "part_paid")]),
        (30_00, [(41_40, "paid"), (41_40, "paid")]),
        (500_00, [(41_40, "paid"), (41_40, "paid")]),
    ]
    for amount_paise, expected in steps:
        assert isinstance(book.pay(amount_paise, today), PaymentRecorded)
        assert standing(book, today) == expected


def test_figures_are_frozen_at_issue() -> None:
    book = lend(1_000_00, 14_00, 6)
    book.bill(START + 60)
    issued = book.issued(START + 60)
    book.pay(60_00, START + 61)
    shown = bills_of(book.loan, issued)
    assert shown == [
        StatementBill(BillIssued(1, START + 30, 11_40, 30_00, 0), START + 45, 41_40, "paid"),
        StatementBill(BillIssued(2, START + 60, 11_40, 30_00, 41_40), START + 75, 18_60, "part_paid"),
    ]
    assert [each.bill for each in shown] == issued


def test_a_bill_that_asks_for_nothing_is_paid_at_once() -> None:
    book = lend(100_00, 0, 3, "equal_emi")
    assert standing(book, START + 120) == [*[(0, "unpaid")] * 3, (0, "paid")]


def test_a_closed_loan_still_shows_its_bills() -> None:
    book = lend(1_000_00, 14_00, 6)
    book.bill(START + 30)
    payoff_paise = book.loan.payoff_paise(START + 31)
    book.pay(payoff_paise, START + 31)
    assert standing(book, START + 400) == [(41_40, "paid")]


def test_bills_that_the_loan_does_not_know_of_yet_are_left_out() -> None:
    """The rows of bills may be newer than the state that the statement is about, never the other way."""
    book = lend(1_000_00, 14_00, 6)
    book.bill(START + 30)
    later = book.issued(START + 90)
    assert [shown.bill.number for shown in bills_of(book.loan, later)] == [1]
    assert bills_of(lend(1_000_00, 14_00, 6).loan, later) == []


def test_a_page_of_bills_is_shown_as_it_is_asked_for() -> None:
    book = lend(1_000_00, 14_00, 6)
    issued = book.issued(START + 90)
    shown = bills_of(book.view(START + 90), issued[1:])
    assert [each.bill.number for each in shown] == [2, 3]


@given(ANY_TERMS, MOVES)
@LAW
def test_what_bills_were_paid_is_what_payments_allotted_to_them(terms: Terms, moves: list[Move]) -> None:
    book = lend_under(terms)
    today = book.live(moves)
    allotted: dict[Any, int] = {}
    for event in book.events:
        for part in event.allocations if isinstance(event, PaymentRecorded) else ():
            allotted[part.bill] = allotted.get(part.bill, 0) + part.interest_paise + part.principal_paise
    for shown in bills_of(book.view(today), book.issued(today)):
        assert shown.paid_paise == allotted.get(shown.bill.number, 0)
        assert shown.due_date == shown.bill.billing_date + terms.due_days
        if shown.paid_paise == shown.bill.min_due_paise:
            assert shown.status == "paid"
        else:
            assert shown.status == ("part_paid" if shown.paid_paise else "unpaid")
