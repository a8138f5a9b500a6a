"""Laws of the rule book, over lives and loans of any size that hypothesis finds."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

import msgspec
from hypothesis import assume, given
from hypothesis import strategies as st

from ledgerd.domain.commands import IssueBills, Rejection
from ledgerd.domain.events import BillIssued, LoanDisbursed, PaymentRecorded, Terms
from ledgerd.domain.loan import (
    Loan,
    bring_up_to_date,
    decide,
    evolve,
    level_instalment,
    next_due,
    principal_due,
    schedule,
)
from ledgerd.domain.money import UNITS_PER_PAISA
from tests.domain.lives import LAW, MOVES, TERMS, Book, Move, lend_under, repayment


def lived(terms: Terms, moves: list[Move]) -> tuple[Book, int]:
    book = lend_under(terms)
    return book, book.live(moves)


def payments(book: Book) -> list[PaymentRecorded]:
    return [event for event in book.events if isinstance(event, PaymentRecorded)]


def bills(book: Book) -> list[BillIssued]:
    return [event for event in book.events if isinstance(event, BillIssued)]


# Nothing is lost --------------------------------------------------------------------------------------


@given(TERMS, MOVES)
@LAW
def test_what_was_paid_in_is_interest_and_principal_received(terms: Terms, moves: list[Move]) -> None:
    book, _ = lived(terms, moves)
    loan, receipts = book.loan, payments(book)
    assert sum(paid.interest_paise for paid in receipts) == loan.interest_received_paise
    assert sum(paid.principal_paise for paid in receipts) == loan.principal_received_paise
    for paid in receipts:
        assert paid.interest_paise + paid.principal_paise == paid.amount_paise
        assert sum(part.interest_paise for part in paid.allocations) == paid.interest_paise
        assert sum(part.principal_paise for part in paid.allocations) == paid.principal_paise
        assert all(part.interest_paise + part.principal_paise > 0 for part in paid.allocations)
        assert min(min(part.interest_paise, part.principal_paise) for part in paid.allocations) >= 0


@given(TERMS, MOVES)
@LAW
def test_what_was_lent_is_principal_received_and_outstanding(terms: Terms, moves: list[Move]) -> None:
    book, _ = lived(terms, moves)
    received_paise = 0
    for paid in payments(book):
        received_paise += paid.principal_paise
        assert terms.amount_paise == received_paise + paid.outstanding_principal_paise
    assert terms.amount_paise == book.loan.principal_received_paise + book.loan.principal_paise


@given(TERMS, MOVES)
@LAW
def test_every_unit_of_interest_is_received_owed_or_waived_at_the_end(
    terms: Terms, moves: list[Move]
) -> None:
    """Charged here day by day from the receipts alone: the principal falls with each payment, on its day."""
    book, today = lived(terms, moves)
    principal_paise, through, charged_units = terms.amount_paise, terms.disbursed_on, 0
    for paid in payments(book):
        charged_units += principal_paise * terms.daily_rate_thousandths * (paid.paid_on - through)
        principal_paise, through = principal_paise - paid.principal_paise, paid.paid_on
    charged_units += principal_paise * terms.daily_rate_thousandths * (today - through)

    loan = book.view(today)
    settled_paise = loan.interest_received_paise + loan.billed_interest_paise
    rest_units = charged_units - settled_paise * UNITS_PER_PAISA - loan.accrued_on(today)
    assert rest_units == 0 if loan.closed_on is None else 0 <= rest_units < UNITS_PER_PAISA


@given(TERMS, MOVES)
@LAW
def test_a_loan_is_closed_exactly_when_nothing_is_owed(terms: Terms, moves: list[Move]) -> None:
    book, today = lived(terms, moves)
    loan = book.view(today)
    assert (loan.closed_on is not None) == (loan.payoff_paise(today) == 0) == (next_due(loan) is None)
    assert loan.payoff_paise(today) == loan.principal_paise + loan.interest_paise(today)
    assert 0 <= loan.billed_principal_paise <= loan.principal_paise
    assert all(bill.amount_paise > 0 for bill in loan.unpaid_bills)
    receipts = payments(book)
    assert all(paid.next_due is not None for paid in receipts[:-1])
    assert loan.closed_on == (receipts[-1].paid_on if receipts and receipts[-1].next_due is None else None)


# Refusals ---------------------------------------------------------------------------------------------


@given(TERMS, MOVES, st.integers(0, 200), st.integers(1, 10**6), st.one_of(st.none(), st.integers(-2, 20)))
@LAW
def test_a_refused_command_changes_nothing(
    terms: Terms, moves: list[Move], days: int, extra_paise: int, for_bill: int | None
) -> None:
    book, today = lived(terms, moves)
    today += days
    loan, before = book.loan, msgspec.msgpack.encode(book.loan)
    commands = [
        repayment(book.view(today).payoff_paise(today) + extra_paise, for_bill=for_bill),
        repayment(1, borrower_id=loan.borrower_id + 1),
        repayment(1, for_bill=0),
    ]
    for command in commands:
        assert isinstance(decide(loan, command, today), Rejection)
        assert isinstance(book.tell(command, today), Rejection)
    assert book.loan is loan
    assert msgspec.msgpack.encode(loan) == before


@given(TERMS, MOVES)
@LAW
def test_what_is_refused_leaves_no_trace_in_a_life(terms: Terms, moves: list[Move]) -> None:
    """The payments that counted, made alone, lead to the same state and the same receipts."""
    book, today = lived(terms, moves)
    again = lend_under(terms)
    for paid in payments(book):
        assert again.pay(paid.amount_paise, paid.paid_on) == msgspec.structs.replace(
            paid,
            payment_id=again.payments,
            transaction_id=f"t-{again.payments}",
            recorded_at_ms=1_000 + again.payments,
        )
    assert again.view(today) == book.view(today)


@given(TERMS, MOVES, st.integers(0, 400))
@LAW
def test_the_payoff_is_taken_and_one_paisa_more_is_not(terms: Terms, moves: list[Move], days: int) -> None:
    book, today = lived(terms, moves)
    today += days
    view = book.view(today)
    assume(view.closed_on is None)
    payoff_paise = view.payoff_paise(today)
    refused = book.pay(payoff_paise + 1, today)
    assert refused == Rejection("amount-exceeds-payoff", payoff_paise=payoff_paise)
    last = book.pay(payoff_paise, today)
    assert isinstance(last, PaymentRecorded)
    assert last.next_due is None
    assert (last.outstanding_principal_paise, last.outstanding_interest_paise) == (0, 0)
    assert (book.loan.closed_on, book.loan.accrued_units, book.loan.unpaid_bills) == (today, 0, ())


# Days and bills ---------------------------------------------------------------------------------------


@given(TERMS, MOVES)
@LAW
def test_bills_are_numbered_in_order_and_dated_by_their_cycle(terms: Terms, moves: list[Move]) -> None:
    book, today = lived(terms, moves)
    issued = book.issued(today)
    assert [bill.number for bill in issued] == list(range(1, len(issued) + 1))
    assert all(bill.billing_date == terms.disbursed_on + terms.cycle_days * bill.number for bill in issued)
    if book.loan.closed_on is None:
        assert len(issued) == (today - terms.disbursed_on) // terms.cycle_days
    paid_on = [paid.paid_on for paid in payments(book)]
    assert paid_on == sorted(paid_on)


@given(TERMS, MOVES, st.integers(0, 150))
@LAW
def test_one_jump_is_as_many_days_one_by_one(terms: Terms, moves: list[Move], days: int) -> None:
    book, today = lived(terms, moves)
    jumped, jump = bring_up_to_date(book.loan, today + days)
    walked, step = [], book.loan
    for day in range(today, today + days + 1):
        before, was_units = step, step.accrued_on(day - 1)
        events, step = bring_up_to_date(step, day)
        walked += events
        billed_paise = sum(event.interest_paise for event in events if isinstance(event, BillIssued))
        if day > today:
            charged_units = before.principal_paise * terms.daily_rate_thousandths
            assert step.accrued_on(day) == was_units + charged_units - billed_paise * UNITS_PER_PAISA
    assert (walked, step) == (jumped, jump)
    assert bring_up_to_date(jump, today + days) == ([], jump)


@given(TERMS, MOVES)
@LAW
def test_billed_on_the_night_or_caught_up_late_is_the_same_ledger(terms: Terms, moves: list[Move]) -> None:
    late, today = lived(terms, moves)
    nightly = lend_under(terms)
    assert nightly.live(moves, nightly=True) == today
    late.bill(today)
    assert nightly.events == late.events
    assert nightly.loan == late.loan


@given(TERMS, MOVES, st.integers(-100, 400))
@LAW
def test_issuing_bills_is_never_refused_and_never_repeats(terms: Terms, moves: list[Move], days: int) -> None:
    book, today = lived(terms, moves)
    outcome = decide(book.loan, IssueBills(today + days), today)
    assert not isinstance(outcome, Rejection)
    assert decide(book.loan, IssueBills(today + days), today + 1_000) == outcome  # dated by the cycle alone
    book.bill(today + days)
    assert decide(book.loan, IssueBills(today + days), today) == []
    assert decide(None, IssueBills(today + days), today) == []


# Events -----------------------------------------------------------------------------------------------


@given(TERMS, MOVES)
@LAW
def test_the_state_is_what_the_events_evolve_to(terms: Terms, moves: list[Move]) -> None:
    book = lend_under(terms)
    today = book.live(moves)
    state: Loan | None = None
    for event in book.events:
        state = evolve(state, event)
        if isinstance(event, PaymentRecorded):
            assert event.outstanding_principal_paise == state.principal_paise
            assert event.outstanding_interest_paise == state.interest_paise(event.paid_on)
            assert event.next_due == next_due(state)
    assert state == book.loan
    assert isinstance(book.events[0], LoanDisbursed)
    # the state that a decision works on is the state that its events lead to
    events, view = bring_up_to_date(book.loan, today + 100)
    for event in events:
        state = evolve(state, event)
    assert state == view


# What is to come --------------------------------------------------------------------------------------


@given(TERMS, MOVES)
@LAW
def test_the_schedule_pays_back_what_no_unpaid_bill_asks_for(terms: Terms, moves: list[Move]) -> None:
    book, today = lived(terms, moves)
    loan = book.view(today)
    coming = schedule(loan, today)
    unasked_paise = loan.principal_paise - loan.billed_principal_paise
    assert sum(row.principal_paise for row in coming) == unasked_paise
    assert [row.number for row in coming] == list(
        range(loan.bills_issued + 1, loan.bills_issued + 1 + len(coming))
    )
    assert all(row.billing_date == terms.disbursed_on + terms.cycle_days * row.number for row in coming)
    assert all(row.due_date == row.billing_date + terms.due_days for row in coming)
    assert all(row.interest_paise >= 0 <= row.principal_paise for row in coming)
    assert len(coming) <= max(1, terms.tenure - loan.bills_issued)
    if coming and not loan.unpaid_bills:
        due = next_due(loan)
        assert due is not None
        assert (due.number, due.amount_paise) == (coming[0].number, coming[0].amount_paise)


@given(TERMS, MOVES)
@LAW
def test_paid_as_projected_is_billed_as_projected(terms: Terms, moves: list[Move]) -> None:
    """Whoever pays all bills today, and each coming one on its date, is asked for exactly the schedule."""
    book, today = lived(terms, moves)
    loan = book.view(today)
    projected = schedule(loan, today)
    owed_paise = loan.billed_interest_paise + loan.billed_principal_paise
    if owed_paise:
        assert isinstance(book.pay(owed_paise, today), PaymentRecorded)
    for row in projected:
        [bill] = book.bill(row.billing_date)
        assert (bill.number, bill.billing_date, bill.past_due_paise) == (row.number, row.billing_date, 0)
        assert (bill.interest_paise, bill.principal_due_paise) == (row.interest_paise, row.principal_paise)
        if bill.min_due_paise:
            assert isinstance(book.pay(bill.min_due_paise, row.billing_date), PaymentRecorded)
    assert book.loan.closed_on is not None


@given(st.integers(0, 10**15), st.one_of(st.just(0), st.integers(1, 300_000)), st.integers(1, 120))
@LAW
def test_the_level_instalment_is_exact(principal_paise: int, rate_units: int, cycles: int) -> None:
    rate = Fraction(rate_units, UNITS_PER_PAISA)
    exact = (
        principal_paise * rate / (1 - (1 + rate) ** -cycles) if rate else Fraction(principal_paise, cycles)
    )
    assert level_instalment(principal_paise, rate_units, cycles) == ceil(exact)


@given(TERMS, st.integers(1, 130), st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**10))
@LAW
def test_principal_due_is_never_below_nothing_nor_above_what_is_unasked(
    terms: Terms, number: int, unasked_paise: int, billed_paise: int, interest_paise: int
) -> None:
    asked = principal_due(terms, number, unasked_paise + billed_paise, unasked_paise, interest_paise)
    assert 0 <= asked <= unasked_paise
    if number >= terms.tenure:
        assert asked == unasked_paise
    elif terms.plan == "min_due":
        share = round(Fraction(unasked_paise + billed_paise) * Fraction(terms.min_due_hundredths, 10_000))
        assert asked == min(share, unasked_paise)
