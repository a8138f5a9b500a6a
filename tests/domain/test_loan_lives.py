"""Random lives: the rules against the reference of tests/reference.py, after each step and to the paisa.

A life is known by its seed, which every failure names: `live(seed)` lives it again.
"""

from __future__ import annotations

import datetime as dt
from fractions import Fraction
from random import Random
from typing import Any

import pytest

from ledgerd.domain.commands import Rejection
from ledgerd.domain.events import Due, PaymentRecorded, Terms
from ledgerd.domain.loan import next_due, schedule
from ledgerd.domain.statement import bills_of
from tests.domain.lives import START, Book, lend, lend_under, random_move, random_terms
from tests.reference import ReferenceLoan

LIVES = 2_000
GROUPS = 8  # so that several workers share them
LONGEST_DAYS = 450
MOST_CYCLES = 15


def rupees(paise: int) -> str:
    return f"{paise // 100}.{paise % 100:02d}"


def iso(day: int) -> str:
    return dt.date.fromordinal(day).isoformat()


def shown_due(due: Due | None) -> dict[str, Any] | None:
    if due is None:
        return None
    return {
        "date": iso(due.billing_date),
        "due_date": iso(due.due_date),
        "amount_due": rupees(due.amount_paise),
    }


def shown_outstanding(principal_paise: int, interest_paise: int) -> dict[str, str]:
    return {
        "principal": rupees(principal_paise),
        "interest": rupees(interest_paise),
        "total": rupees(principal_paise + interest_paise),
    }


def shown_payment(paid: PaymentRecorded) -> dict[str, Any]:
    return {
        "paid_on": iso(paid.paid_on),
        "amount": rupees(paid.amount_paise),
        "interest": rupees(paid.interest_paise),
        "principal": rupees(paid.principal_paise),
        "allocations": [
            {
                "bill": part.bill or None,
                "due_date": iso(part.due_date) if part.bill else None,
                "interest": rupees(part.interest_paise),
                "principal": rupees(part.principal_paise),
            }
            for part in paid.allocations
        ],
        "outstanding": shown_outstanding(paid.outstanding_principal_paise, paid.outstanding_interest_paise),
        "loan_status": "closed" if paid.next_due is None else "active",
        "next_due": shown_due(paid.next_due),
    }


def shown_refusal(refusal: Rejection) -> dict[str, Any]:
    shown: dict[str, Any] = {"refused": refusal.code}
    if refusal.payoff_paise is not None:
        shown["payoff"] = rupees(refusal.payoff_paise)
    if refusal.unpaid_bills:
        shown["unpaid_bills"] = [
            {
                "number": bill.number,
                "due_date": iso(bill.due_date),
                "amount_due": rupees(bill.amount_paise),
            }
            for bill in refusal.unpaid_bills
        ]
    return shown


def shown_bills(book: Book, today: int) -> list[dict[str, Any]]:
    return [
        {
            "number": shown.bill.number,
            "billing_date": iso(shown.bill.billing_date),
            "due_date": iso(shown.due_date),
            "interest": rupees(shown.bill.interest_paise),
            "principal_due": rupees(shown.bill.principal_due_paise),
            "min_due": rupees(shown.bill.min_due_paise),
            "past_due": rupees(shown.bill.past_due_paise),
            "total_due": rupees(shown.bill.min_due_paise + shown.bill.past_due_paise),
            "paid": rupees(shown.paid_paise),
            "status": shown.status,
        }
        for shown in bills_of(book.view(today), book.issued(today))
    ]


def shown_schedule(book: Book, today: int) -> list[dict[str, Any]]:
    return [
        {
            "number": coming.number,
            "date": iso(coming.billing_date),
            "due_date": iso(coming.due_date),
            "principal": rupees(coming.principal_paise),
            "interest": rupees(coming.interest_paise),
            "amount_due": rupees(coming.amount_paise),
        }
        for coming in schedule(book.view(today), today)
    ]


def shown_standing(book: Book, today: int) -> dict[str, Any]:
    loan = book.view(today)
    return {
        "status": "active" if loan.closed_on is None else "closed",
        "payoff": rupees(loan.payoff_paise(today)),
        "past_due": rupees(loan.past_due_paise(today)),
        "outstanding": shown_outstanding(loan.principal_paise, loan.interest_paise(today)),
        "totals": {
            "disbursed": rupees(loan.terms.amount_paise),
            "paid_in": rupees(loan.interest_received_paise + loan.principal_received_paise),
            "interest_received": rupees(loan.interest_received_paise),
            "principal_received": rupees(loan.principal_received_paise),
            "principal_outstanding": rupees(loan.principal_paise),
        },
        "bills": shown_bills(book, today),
    }


def standing_of(reference: ReferenceLoan) -> dict[str, Any]:
    return {
        "status": reference.status(),
        "payoff": reference.payoff(),
        "past_due": reference.past_due(),
        "outstanding": reference.outstanding(),
        "totals": reference.totals(),
        "bills": reference.bills(),
    }


def reference_for(terms: Terms) -> ReferenceLoan:
    return ReferenceLoan(
        Fraction(terms.amount_paise, 100),
        rupees(terms.apr_hundredths),
        terms.tenure,
        terms.plan,
        dt.date.fromordinal(terms.disbursed_on),
        cycle_days=terms.cycle_days,
        due_days=terms.due_days,
        min_due_percent=rupees(terms.min_due_hundredths),
    )


def live(seed: int) -> int:
    """Live one life twice, compare after each step, and return how many steps it had."""
    chance = Random(seed)
    terms = random_terms(chance)
    book, reference = lend_under(terms), reference_for(terms)
    # The reference walks through every day of a schedule, and goes over all bills for each new one.
    schedules_compared = min(0.15, 15 / (terms.tenure * terms.cycle_days))
    last_day = terms.disbursed_on + min(LONGEST_DAYS, MOST_CYCLES * terms.cycle_days)
    nightly = chance.choice([0.0, 0.0, 0.3, 1.0])  # how often the billing run came before the payment
    today, steps, closed_steps = terms.disbursed_on, 0, 0
    while steps < 40 and closed_steps < 2:
        told = f"seed {seed}, step {steps}, {terms}"
        if chance.random() < schedules_compared:
            assert shown_schedule(book, today) == reference.schedule(), told
            assert shown_due(next_due(book.view(today))) == reference.next_due(), told
        move = random_move(chance)
        day = move.day(book.loan, today)
        if day > last_day:
            break
        today = day
        told += f", {move} on day {today - terms.disbursed_on}"
        reference.advance_to(dt.date.fromordinal(today))
        if chance.random() < nightly:
            book.bill(chance.randint(book.loan.accrued_through, today))
        assert shown_standing(book, today) == standing_of(reference), told

        view = book.view(today)
        amount_paise, for_bill = move.amount_paise(view, today), move.for_bill(view)
        expected = reference.pay(rupees(amount_paise), for_bill)
        answer = book.pay(amount_paise, today, for_bill)
        shown = shown_refusal(answer) if isinstance(answer, Rejection) else shown_payment(answer)
        assert shown == expected, told
        steps += 1
        closed_steps += reference.closed
    assert shown_standing(book, today) == standing_of(reference), f"seed {seed}, at the end, {terms}"
    return steps


@pytest.mark.parametrize("group", range(GROUPS))
def test_the_rules_agree_with_the_reference(group: int) -> None:
    steps = sum(live(seed) for seed in range(group, LIVES, GROUPS))
    assert steps > 5 * LIVES // GROUPS, "the lives have become too short to show anything"


@pytest.mark.parametrize("plan", ["min_due", "equal_emi"])
@pytest.mark.parametrize("apr_hundredths", [0, 14_00, 99_99])
def test_the_longest_schedule_agrees(plan: Any, apr_hundredths: int) -> None:
    book = lend(5_000_00, apr_hundredths, 120, plan)
    assert shown_schedule(book, START) == reference_for(book.loan.terms).schedule()
