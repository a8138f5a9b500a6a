"""The whole book in sums: what was lent, what came back, what is overdue and for how long.

Age follows the RBI's norms for asset classification (circular RBI/2021-22/125): by the days past due of the
oldest unpaid bill, a loan is a special mention account (SMA) or, beyond 90 days, non-performing (NPA).
"""

from typing import Final

import msgspec

from ledgerd.domain.loan import Loan, bring_up_to_date

# By the first day past due that counts as such.
AGES: Final = ((1, "SMA-0"), (31, "SMA-1"), (61, "SMA-2"), (91, "NPA"))
IN_TIME: Final = "in time"


class Aged(msgspec.Struct, array_like=True):
    """The open loans of one age."""

    loans: int = 0
    outstanding_paise: int = 0
    past_due_paise: int = 0

    def join(self, other: "Aged") -> None:
        """Add the loans of another part of the book."""
        self.loans += other.loans
        self.outstanding_paise += other.outstanding_paise
        self.past_due_paise += other.past_due_paise


class Book(msgspec.Struct, array_like=True):
    """Sums over loans, in paise. `disbursed_on` is what was lent, by day number."""

    loans: int = 0
    open_loans: int = 0
    disbursed_paise: int = 0
    principal_paise: int = 0
    interest_paise: int = 0
    principal_received_paise: int = 0
    interest_received_paise: int = 0
    ages: dict[str, Aged] = msgspec.field(default_factory=dict)
    disbursed_on: dict[int, int] = msgspec.field(default_factory=dict)

    def add(self, loan: Loan, today: int) -> None:
        """Add a loan as it stands on `today`."""
        _, loan = bring_up_to_date(loan, today)
        terms = loan.terms
        self.loans += 1
        self.disbursed_paise += terms.amount_paise
        self.disbursed_on[terms.disbursed_on] = (
            self.disbursed_on.get(terms.disbursed_on, 0) + terms.amount_paise
        )
        self.principal_received_paise += loan.principal_received_paise
        self.interest_received_paise += loan.interest_received_paise
        if loan.closed_on is not None:
            return
        self.open_loans += 1
        self.principal_paise += loan.principal_paise
        self.interest_paise += loan.interest_paise(today)
        aged = Aged(1, loan.payoff_paise(today), loan.past_due_paise(today))
        self._of_age(age_of(days_past_due(loan, today))).join(aged)

    def join(self, other: "Book") -> None:
        """Add another part of the book, of the same day."""
        self.loans += other.loans
        self.open_loans += other.open_loans
        self.disbursed_paise += other.disbursed_paise
        self.principal_paise += other.principal_paise
        self.interest_paise += other.interest_paise
        self.principal_received_paise += other.principal_received_paise
        self.interest_received_paise += other.interest_received_paise
        for age, aged in other.ages.items():
            self._of_age(age).join(aged)
        for day, paise in other.disbursed_on.items():
            self.disbursed_on[day] = self.disbursed_on.get(day, 0) + paise

    def _of_age(self, age: str) -> Aged:
        return self.ages.setdefault(age, Aged())


class Collected(msgspec.Struct, array_like=True):
    """What was paid in on one day, in paise."""

    payments: int = 0
    interest_paise: int = 0
    principal_paise: int = 0

    @property
    def amount_paise(self) -> int:
        """Both parts together."""
        return self.interest_paise + self.principal_paise


def days_past_due(loan: Loan, today: int) -> int:
    """Return the days since the due date of the oldest unpaid bill; 0 when none has passed."""
    if not loan.unpaid_bills:
        return 0
    return max(0, today - loan.terms.due_date(loan.unpaid_bills[0].number))


def age_of(days: int) -> str:
    """Return the class of so many days past due."""
    age = IN_TIME
    for first_day, name in AGES:
        if days >= first_day:
            age = name
    return age
