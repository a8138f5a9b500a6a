"""Lives of loans, for the tests of the rules: how they are lent, their moves, and the book kept of each.

A Move says what happens next in words ("pay the payoff on the next billing date"), so that one list of moves
means something on any loan. `random_terms` and `random_move` draw from a seeded Random, `TERMS` and `MOVES`
from hypothesis. A Book is one loan as it is kept: the events so far and the state that they lead to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from random import Random
from typing import Literal, get_args

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from ledgerd.domain.commands import Command, Disburse, IssueBills, Rejection, Repay
from ledgerd.domain.events import BillIssued, Event, LoanDisbursed, PaymentRecorded, Plan, Terms
from ledgerd.domain.loan import Loan, bring_up_to_date, decide, evolve
from ledgerd.domain.money import daily_rate

START = date(2025, 1, 1).toordinal()
BORROWER = 7

# Reproducible, and no timing decides: the same examples on each run, however slow the machine.
LAW = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

When = Literal["same day", "days later", "billing date", "eve of billing", "due date", "day after due date"]
Pay = Literal["oldest bill", "all bills", "share", "tiny", "interest", "payoff", "payoff + 1", "far too much"]


@dataclass(frozen=True)
class Move:
    """Some days pass, and then a payment is tried."""

    when: When
    days: int  # used by "days later"
    pay: Pay
    share: int  # hundredths of the payoff, used by "share"; paise, used by "tiny"
    guard: int | None  # for_bill, counted from the oldest unpaid bill: 0 is that one

    def day(self, loan: Loan, today: int) -> int:
        """The day on which this move is made, today or later."""
        terms = loan.terms
        next_billing = today + terms.cycle_days - (today - terms.disbursed_on) % terms.cycle_days
        match self.when:
            case "same day":
                return today
            case "days later":
                return today + self.days
            case "billing date":
                return next_billing
            case "eve of billing":
                return max(today, next_billing - 1)
            case "due date":
                return next_billing + terms.due_days
            case "day after due date":
                return next_billing + terms.due_days + 1

    def amount_paise(self, loan: Loan, today: int) -> int:
        """What this move pays on a loan that is up to date; never less than one paisa."""
        payoff_paise = loan.payoff_paise(today)
        amounts = {
            "oldest bill": sum(bill.amount_paise for bill in loan.unpaid_bills[:1]),
            "all bills": sum(bill.amount_paise for bill in loan.unpaid_bills),
            "share": payoff_paise * self.share // 100,
            "tiny": self.share % 9,
            "interest": loan.interest_paise(today),
            "payoff": payoff_paise,
            "payoff + 1": payoff_paise + 1,
            "far too much": payoff_paise * 3 + 12_345,
        }
        return max(1, amounts[self.pay])

    def for_bill(self, loan: Loan) -> int | None:
        """The bill that the payment is guarded by: mostly the oldest unpaid one, or one near it."""
        if self.guard is None:
            return None
        oldest = loan.unpaid_bills[0].number if loan.unpaid_bills else loan.bills_issued
        return oldest + self.guard


@dataclass
class Book:
    """One loan as it is kept. `loan` has evolved over `events`, nothing else."""

    loan: Loan
    events: list[Event] = field(default_factory=list)
    payments: int = 0

    def tell(self, command: Command, today: int) -> list[Event] | Rejection:
        """Decide, and keep what was decided."""
        outcome = decide(self.loan, command, today)
        if not isinstance(outcome, Rejection):
            for event in outcome:
                self.loan = evolve(self.loan, event)
            self.events += outcome
        return outcome

    def pay(self, amount_paise: int, today: int, for_bill: int | None = None) -> PaymentRecorded | Rejection:
        self.payments += 1
        outcome = self.tell(repayment(amount_paise, number=self.payments, for_bill=for_bill), today)
        if isinstance(outcome, Rejection):
            return outcome
        *bills, paid = outcome
        assert isinstance(paid, PaymentRecorded)
        assert all(isinstance(bill, BillIssued) for bill in bills)
        return paid

    def bill(self, through: int) -> list[BillIssued]:
        outcome = self.tell(IssueBills(through), through)
        assert not isinstance(outcome, Rejection)
        return [event for event in outcome if isinstance(event, BillIssued)]

    def view(self, today: int) -> Loan:
        """What a read shows: the loan brought up to the date, nothing kept."""
        return bring_up_to_date(self.loan, today)[1]

    def issued(self, today: int) -> list[BillIssued]:
        """Every bill up to the date, in order."""
        events = self.events + bring_up_to_date(self.loan, today)[0]
        return [event for event in events if isinstance(event, BillIssued)]

    def live(self, moves: list[Move], *, nightly: bool = False) -> int:
        """Make the moves from disbursal on, perhaps with a billing run each night; return the last day."""
        today = self.loan.terms.disbursed_on
        for move in moves:
            day = move.day(self.loan, today)
            for night in range(today + 1, day + 1) if nightly else ():
                self.bill(night)
            today = day
            view = self.view(today)
            self.pay(move.amount_paise(view, today), today, move.for_bill(view))
        return today


def lend(
    amount_paise: int,
    apr_hundredths: int,
    tenure: int,
    plan: Plan = "min_due",
    *,
    cycle_days: int = 30,
    due_days: int = 15,
    min_due_hundredths: int = 3_00,
) -> Book:
    """A fresh loan, lent on START."""
    rate = daily_rate(apr_hundredths)
    terms = Terms(
        amount_paise, apr_hundredths, rate, tenure, plan, START, cycle_days, due_days, min_due_hundredths
    )
    return lend_under(terms)


def lend_under(terms: Terms) -> Book:
    [event] = lent = decide(None, Disburse(BORROWER, terms, recorded_at_ms=1), terms.disbursed_on)
    assert isinstance(event, LoanDisbursed)
    return Book(evolve(None, event), list(lent))


def repayment(
    amount_paise: int, *, number: int = 1, for_bill: int | None = None, borrower_id: int | None = None
) -> Repay:
    return Repay("c:1", f"t-{number}", amount_paise, number, 1_000 + number, borrower_id, for_bill)


# By a seed ------------------------------------------------------------------------------------------


def random_terms(chance: Random) -> Terms:
    """Mostly small lives under the usual rules, now and then something odd."""
    amounts = [1, chance.randint(2, 300), chance.randint(1, 5_000_00), 5_000_00, chance.randint(1, 10**9)]
    aprs = [0, chance.randint(0, 100), chance.randint(0, 100_00), 14_00, 12_00, 24_00, 100_00]
    tenure = chance.choices([1, chance.randint(2, 6), chance.randint(7, 24)], [10, 70, 20])[0]
    usual = chance.random() < 0.85
    return Terms(
        amount_paise=chance.choices(amounts, [2, 10, 50, 20, 18])[0],
        apr_hundredths=(apr_hundredths := chance.choice(aprs)),
        daily_rate_thousandths=daily_rate(apr_hundredths),
        tenure=tenure,
        plan=chance.choice(get_args(Plan)),
        disbursed_on=START + chance.randint(0, 1_500),
        cycle_days=30 if usual else chance.choice([1, 7, 31, 90, 365]),
        due_days=15 if usual else chance.choice([0, 1, 20, 45]),
        min_due_hundredths=3_00 if usual else chance.choice([0, 1, 5_00, 33_33, 60_00, 100_00]),
    )


def random_move(chance: Random) -> Move:
    whens = get_args(When)
    pays = get_args(Pay)
    return Move(
        when=chance.choices(whens, [15, 40, 20, 8, 10, 7])[0],
        days=chance.choices([1, chance.randint(2, 45), chance.randint(46, 300)], [15, 75, 10])[0],
        pay=chance.choices(pays, [24, 12, 22, 8, 8, 12, 8, 6])[0],
        share=chance.randint(1, 60),
        guard=chance.choices([None, 0, 1, 2, -1, -9], [70, 15, 7, 3, 3, 2])[0],
    )


# By hypothesis --------------------------------------------------------------------------------------

TERMS = st.builds(
    lambda apr_hundredths, **others: Terms(
        apr_hundredths=apr_hundredths, daily_rate_thousandths=daily_rate(apr_hundredths), **others
    ),
    amount_paise=st.one_of(st.integers(1, 300), st.integers(1, 5_000_00), st.integers(1, 10**13)),
    apr_hundredths=st.one_of(st.sampled_from([0, 14_00, 100_00]), st.integers(0, 100_00)),
    tenure=st.one_of(st.integers(1, 6), st.integers(1, 120)),
    plan=st.sampled_from(get_args(Plan)),
    disbursed_on=st.just(START),
    cycle_days=st.sampled_from([30, 30, 30, 7, 1]),
    due_days=st.sampled_from([15, 15, 0, 45]),
    min_due_hundredths=st.sampled_from([3_00, 3_00, 0, 33_33, 100_00]),
)
MOVES = st.lists(
    st.builds(
        Move,
        when=st.sampled_from(get_args(When)),
        days=st.integers(0, 100),
        pay=st.sampled_from(get_args(Pay)),
        share=st.integers(1, 60),
        guard=st.sampled_from([None, None, None, 0, 1, -1]),
    ),
    max_size=12,
)
