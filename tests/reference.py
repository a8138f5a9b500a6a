"""The loan rules a second time, slow and obvious, to check the service's own arithmetic against.

ReferenceLoan walks one loan through every single day in exact fractions. It shares no code with ledgerd and
imports the standard library alone, so that the two can only agree by following the same rules.
Inside, money is a Fraction of paise; outside, rupees as a string with two decimals, dates as ISO.
Used by tests that run random lives through both, purely and over HTTP.
"""

from __future__ import annotations

import copy
import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

ZERO = Fraction(0)
ONE_DAY = dt.timedelta(days=1)


def floor(value: Fraction) -> Fraction:
    """The largest whole number that is not above value."""
    return Fraction(value.numerator // value.denominator)


def ceiling(value: Fraction) -> Fraction:
    """The smallest whole number that is not below value."""
    return -floor(-value)


def half_even(value: Fraction) -> Fraction:
    """The nearest whole number; a tie goes to the even one."""
    below = floor(value)
    rest = value - below
    if rest < Fraction(1, 2):
        return below
    if rest > Fraction(1, 2):
        return below + 1
    return below if below.numerator % 2 == 0 else below + 1


def hundredths(text: str) -> Fraction:
    """Read "12.34" as 1234. ValueError when it isn't 1 to 13 digits with at most two decimals."""
    if not re.fullmatch(r"[0-9]{1,13}(\.[0-9]{1,2})?", text):
        raise ValueError(f"not an amount: {text!r}")
    return Fraction(text) * 100


def rupees(paise: Fraction) -> str:
    """Show whole paise as rupees. ValueError for a fraction of a paisa or less than nothing."""
    if paise.denominator != 1 or paise < 0:
        raise ValueError(f"not whole paise: {paise}")
    return f"{paise.numerator // 100}.{paise.numerator % 100:02d}"


def daily_rate(apr: str) -> Fraction:
    """Percent per day, from the yearly percent: apr / 365, half-even to three decimals."""
    return half_even(Fraction(hundredths(apr), 100) / 365 * 1000) / 1000


@dataclass
class Bill:
    """What one cycle asks for. All figures but the two paid ones are frozen at issue."""

    number: int
    billing_date: dt.date
    due_date: dt.date
    interest: Fraction
    principal_due: Fraction
    past_due: Fraction
    interest_paid: Fraction = ZERO
    principal_paid: Fraction = ZERO

    @property
    def min_due(self) -> Fraction:
        return self.interest + self.principal_due

    @property
    def paid(self) -> Fraction:
        return self.interest_paid + self.principal_paid

    @property
    def interest_asked(self) -> Fraction:
        return self.interest - self.interest_paid

    @property
    def principal_asked(self) -> Fraction:
        return self.principal_due - self.principal_paid

    @property
    def asked(self) -> Fraction:
        return self.interest_asked + self.principal_asked

    @property
    def status(self) -> str:
        if self.asked == 0:
            return "paid"
        return "part_paid" if self.paid > 0 else "unpaid"


class ReferenceLoan:
    """One loan, from its disbursal on. `today` moves forward alone, by advance_to.

    amount: rupees, a string or a Fraction; apr: percent, a string; plan: "min_due" or "equal_emi".
    """

    def __init__(
        self,
        amount: Fraction | str,
        apr: str,
        tenure: int,
        plan: str,
        disbursed_on: dt.date,
        *,
        cycle_days: int = 30,
        due_days: int = 15,
        min_due_percent: str = "3",
    ) -> None:
        if plan not in ("min_due", "equal_emi"):
            raise ValueError(f"no such plan: {plan!r}")
        self.disbursed = hundredths(amount) if isinstance(amount, str) else amount * 100
        if self.disbursed <= 0 or self.disbursed.denominator != 1:
            raise ValueError(f"not an amount to lend: {amount!r}")
        self.rate = daily_rate(apr)
        self.tenure = tenure
        self.plan = plan
        self.disbursed_on = disbursed_on
        self.cycle_days = cycle_days
        self.due_days = due_days
        self.min_due_share = hundredths(min_due_percent) / 10_000

        self.today = disbursed_on
        self.closed = False
        self.principal = self.disbursed
        self.accrued = ZERO  # interest that no bill holds yet, to the last fraction of a paisa
        self.issued: list[Bill] = []
        self.interest_ever = ZERO  # all interest that ever accrued, to check that none is lost
        self.paid_in = ZERO
        self.interest_received = ZERO
        self.principal_received = ZERO
        self.waived = ZERO  # the fraction of a paisa that closing forgave

    # --- the passing of days

    def advance_to(self, date: dt.date) -> None:
        """Live through every day up to and including date. ValueError when date is past already."""
        if date < self.today:
            raise ValueError(f"{date} is before {self.today}")
        while self.today < date:
            self._next_day()

    def _next_day(self) -> None:
        self.today += ONE_DAY
        if self.closed:
            return
        interest = self.principal * self.rate / 100
        self.accrued += interest
        self.interest_ever += interest
        if (self.today - self.disbursed_on).days % self.cycle_days == 0:
            self._issue_bill()

    def _issue_bill(self) -> None:
        number = len(self.issued) + 1
        interest = floor(self.accrued)
        free = self.principal - sum((bill.principal_asked for bill in self._unpaid()), ZERO)
        self.issued.append(
            Bill(
                number=number,
                billing_date=self.today,
                due_date=self.today + dt.timedelta(days=self.due_days),
                interest=interest,
                principal_due=self._principal_due(number, interest, free),
                past_due=self._asked_by_bills(),
            )
        )
        self.accrued -= interest

    def _principal_due(self, number: int, interest: Fraction, free: Fraction) -> Fraction:
        """What bill `number` asks of the principal; free is what no earlier unpaid bill asks for."""
        if number >= self.tenure:
            return free
        if self.plan == "min_due":
            return min(half_even(self.principal * self.min_due_share), free)
        cycles_left = self.tenure - number + 1
        cycle_rate = self.cycle_days * self.rate / 100
        if cycle_rate == 0:
            level = ceiling(free / cycles_left)
        else:
            level = ceiling(free * cycle_rate / (1 - (1 + cycle_rate) ** -cycles_left))
        return max(ZERO, min(level - interest, free))

    # --- payments

    def pay(self, amount: str, for_bill: int | None = None) -> dict[str, Any]:
        """Pay today. The receipt's figures, or {"refused": code, ...} with nothing done.

        ValueError when amount is malformed or zero (a matter of shape, refused before any rule of the loan).
        """
        money = hundredths(amount)
        if money == 0:
            raise ValueError("a payment of nothing")
        refusal = self._refusal(money, for_bill)
        if refusal is not None:
            return refusal
        allocations = self._clear(money)
        return {
            "paid_on": self.today.isoformat(),
            "amount": rupees(money),
            "interest": rupees(sum((interest for _, interest, _ in allocations), ZERO)),
            "principal": rupees(sum((principal for _, _, principal in allocations), ZERO)),
            "allocations": [
                {
                    "bill": bill.number if bill else None,
                    "due_date": bill.due_date.isoformat() if bill else None,
                    "interest": rupees(interest),
                    "principal": rupees(principal),
                }
                for bill, interest, principal in allocations
            ],
            "outstanding": self.outstanding(),
            "loan_status": self.status(),
            "next_due": self.next_due(),
        }

    def _refusal(self, money: Fraction, for_bill: int | None) -> dict[str, Any] | None:
        if self.closed:
            return {"refused": "loan-closed"}
        if for_bill is not None:
            if not 1 <= for_bill <= len(self.issued):
                return {"refused": "no-such-bill"}
            older = [bill for bill in self._unpaid() if bill.number < for_bill]
            if older:
                rows = [_asking(bill) for bill in older]
                for row in rows:
                    del row["date"]
                return {"refused": "past-due-unpaid", "unpaid_bills": rows}
        if money > self._payoff():
            return {"refused": "amount-exceeds-payoff", "payoff": self.payoff()}
        return None

    def _clear(self, money: Fraction) -> list[tuple[Bill | None, Fraction, Fraction]]:
        """Split money (at most the payoff): rows of bill (None beyond the bills), interest, principal."""
        self.paid_in += money
        rows: list[tuple[Bill | None, Fraction, Fraction]] = []
        for bill in self._unpaid():
            if money == 0:
                break
            interest = min(money, bill.interest_asked)
            principal = min(money - interest, bill.principal_asked)
            bill.interest_paid += interest
            bill.principal_paid += principal
            money -= interest + principal
            rows.append((bill, interest, principal))
        if money > 0:
            interest = min(money, floor(self.accrued))
            principal = money - interest
            self.accrued -= interest
            rows.append((None, interest, principal))
        for _, interest, principal in rows:
            self.interest_received += interest
            self.principal_received += principal
            self.principal -= principal
        if self._payoff() == 0:
            self.closed = True
            self.waived, self.accrued = self.accrued, ZERO
        return rows

    # --- figures

    def _unpaid(self) -> list[Bill]:
        return [bill for bill in self.issued if bill.asked > 0]

    def _asked_by_bills(self) -> Fraction:
        return sum((bill.asked for bill in self._unpaid()), ZERO)

    def _interest_owed(self) -> Fraction:
        return sum((bill.interest_asked for bill in self._unpaid()), ZERO) + floor(self.accrued)

    def _payoff(self) -> Fraction:
        return self.principal + self._interest_owed()

    def status(self) -> str:
        return "closed" if self.closed else "active"

    def payoff(self) -> str:
        return rupees(self._payoff())

    def outstanding(self) -> dict[str, str]:
        """{principal, interest, total}"""
        return {
            "principal": rupees(self.principal),
            "interest": rupees(self._interest_owed()),
            "total": self.payoff(),
        }

    def past_due(self, as_of: dt.date | None = None) -> str:
        """What bills that fell due before as_of (today when left out) still ask for."""
        day = as_of or self.today
        return rupees(sum((bill.asked for bill in self._unpaid() if bill.due_date < day), ZERO))

    def bills(self) -> list[dict[str, Any]]:
        """Each issued bill, oldest first, as the statement shows it."""
        return [
            {
                "number": bill.number,
                "billing_date": bill.billing_date.isoformat(),
                "due_date": bill.due_date.isoformat(),
                "interest": rupees(bill.interest),
                "principal_due": rupees(bill.principal_due),
                "min_due": rupees(bill.min_due),
                "past_due": rupees(bill.past_due),
                "total_due": rupees(bill.min_due + bill.past_due),
                "paid": rupees(bill.paid),
                "status": bill.status,
            }
            for bill in self.issued
        ]

    def totals(self) -> dict[str, str]:
        """{disbursed, paid_in, interest_received, principal_received, principal_outstanding}"""
        return {
            "disbursed": rupees(self.disbursed),
            "paid_in": rupees(self.paid_in),
            "interest_received": rupees(self.interest_received),
            "principal_received": rupees(self.principal_received),
            "principal_outstanding": rupees(self.principal),
        }

    # --- what is to come

    def _coming_bills(self) -> Iterator[Bill]:
        """Live on in a copy: unpaid bills are paid today, each coming one in full on its billing date."""
        future = copy.deepcopy(self)
        if future._asked_by_bills() > 0:
            future._clear(future._asked_by_bills())
        while not future.closed:
            future._next_day()
            if future.issued and future.issued[-1].billing_date == future.today:
                bill = future.issued[-1]
                yield copy.copy(bill)
                if bill.asked > 0:
                    future._clear(bill.asked)

    def schedule(self) -> list[dict[str, Any]]:
        """The coming instalments: {number, date, due_date, principal, interest, amount_due}."""
        return [
            {
                "number": bill.number,
                "date": bill.billing_date.isoformat(),
                "due_date": bill.due_date.isoformat(),
                "principal": rupees(bill.principal_due),
                "interest": rupees(bill.interest),
                "amount_due": rupees(bill.min_due),
            }
            for bill in self._coming_bills()
        ]

    def upcoming(self) -> list[dict[str, Any]]:
        """Unpaid bills, what they still ask for, then the schedule: {number, date, due_date, amount_due}."""
        return [_asking(bill) for bill in [*self._unpaid(), *self._coming_bills()]]

    def next_due(self) -> dict[str, Any] | None:
        """The first of upcoming, without its number; None when nothing is to come."""
        first = next(iter(self._unpaid()), None) or next(self._coming_bills(), None)
        if first is None:
            return None
        due = _asking(first)
        del due["number"]
        return due


def _asking(bill: Bill) -> dict[str, Any]:
    return {
        "number": bill.number,
        "date": bill.billing_date.isoformat(),
        "due_date": bill.due_date.isoformat(),
        "amount_due": rupees(bill.asked),
    }
