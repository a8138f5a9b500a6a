"""The rules as a machine that hypothesis turns: it looks for the shortest life in which they and the
reference part ways, or in which a refusal changes something.
"""

from __future__ import annotations

import copy
import datetime as dt
from fractions import Fraction
from typing import get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ledgerd.domain.commands import Rejection
from ledgerd.domain.events import Plan
from tests.domain.lives import LAW, START, lend
from tests.domain.test_loan_lives import (
    rupees,
    shown_payment,
    shown_refusal,
    shown_standing,
    standing_of,
)
from tests.reference import ReferenceLoan

AMOUNTS = st.one_of(st.integers(1, 300), st.integers(1, 5_000_00))


class Loans(RuleBasedStateMachine):
    """One loan, twice: by the rules in `book`, and on paper."""

    @initialize(
        amount_paise=AMOUNTS,
        apr_hundredths=st.sampled_from([0, 14_00, 36_50, 100_00]),
        tenure=st.integers(1, 5),
        plan=st.sampled_from(get_args(Plan)),
    )
    def lend(self, amount_paise: int, apr_hundredths: int, tenure: int, plan: Plan) -> None:
        self.today = START
        self.book = lend(amount_paise, apr_hundredths, tenure, plan)
        self.paper = ReferenceLoan(
            Fraction(amount_paise, 100),
            rupees(apr_hundredths),
            tenure,
            plan,
            dt.date.fromordinal(START),
        )

    @rule(days=st.one_of(st.integers(1, 3), st.integers(4, 40)))
    def days_pass(self, days: int) -> None:
        self.today += days
        self.paper.advance_to(dt.date.fromordinal(self.today))

    @rule()
    def run_billing(self) -> None:
        self.book.bill(self.today)

    @rule()
    def run_billing_twice(self) -> None:
        self.book.bill(self.today)
        assert self.book.bill(self.today) == []

    @rule(amount_paise=AMOUNTS, for_bill=st.sampled_from([None, None, None, 1, 2, 9]))
    def pay(self, amount_paise: int, for_bill: int | None) -> None:
        self._pay(amount_paise, for_bill)

    @precondition(lambda self: not self.paper.closed)
    @rule(more_paise=st.sampled_from([-1, 0, 1]))
    def pay_off(self, more_paise: int) -> None:
        self._pay(max(1, int(self.paper._payoff()) + more_paise), None)

    @precondition(lambda self: bool(self.paper._unpaid()))
    @rule(more_paise=st.sampled_from([-1, 0, 1]))
    def pay_the_oldest_bill(self, more_paise: int) -> None:
        bill = self.paper._unpaid()[0]
        self._pay(max(1, int(bill.asked) + more_paise), bill.number)

    def _pay(self, amount_paise: int, for_bill: int | None) -> None:
        before, events = copy.deepcopy(self.book.loan), len(self.book.events)
        expected = self.paper.pay(rupees(amount_paise), for_bill)
        outcome = self.book.pay(amount_paise, self.today, for_bill)
        if isinstance(outcome, Rejection):
            assert shown_refusal(outcome) == expected
            assert (self.book.loan, len(self.book.events)) == (before, events), "a refusal changed something"
        else:
            assert shown_payment(outcome) == expected

    @invariant()
    def both_say_the_same(self) -> None:
        assert shown_standing(self.book, self.today) == standing_of(self.paper)

    @invariant()
    def nothing_is_gained_or_lost(self) -> None:
        loan = self.book.loan
        assert loan.terms.amount_paise == loan.principal_paise + loan.principal_received_paise


Loans.TestCase.settings = settings(LAW, max_examples=60, stateful_step_count=25)
TestLoans = Loans.TestCase
