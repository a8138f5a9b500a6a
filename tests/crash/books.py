"""What the clients of a service know: what each sent, when, and every answer it got; and the laws that hold
among those, whatever crashed between.

Moments are the books' own: one number for each thing sent or heard, so that "answered before the other was
sent" is a comparison. Books outlive the service. Each law raises AssertionError.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Payment:
    """One payment as its sender knows it: acknowledged (a receipt), unsure when an answer stayed away, else
    refused.
    """

    transaction_id: str
    loan_id: str
    amount: str
    receipt: dict[str, Any] | None = None
    unsure: bool = False
    sent_at: int | None = None  # the first time
    known_at: int | None = None  # when its receipt came for the first time

    @property
    def body(self) -> dict[str, str]:
        return {"loan_id": self.loan_id, "amount": self.amount, "transaction_id": self.transaction_id}

    def note(self, status: int, answer: dict[str, Any]) -> None:
        """Note an answer; it must agree with every one before."""
        if status == 201:
            assert not answer["replayed"]
            assert self.receipt is None or answer == self.receipt, "counted twice"
            self.receipt = answer
        elif status == 200:
            assert answer["replayed"], answer
            first = answer | {"replayed": False}
            assert self.receipt in (None, first), (self.receipt, first)
            self.receipt = first
        elif status == 422:
            assert answer["type"] == "/problems/amount-exceeds-payoff"
            assert self.receipt is None
        elif status == 500:
            assert answer["type"] == "/problems/outcome-unknown"
            self.unsure = True
        else:
            assert status == 503, (status, answer)


@dataclass
class Application:
    """One application for a loan, sent under a key; the same states as a payment's."""

    key: str
    amount: str
    loan: dict[str, Any] | None = None
    unsure: bool = False

    @property
    def body(self) -> dict[str, Any]:
        return {"amount": self.amount, "interest_rate": "14", "tenure": 3}

    def note(self, status: int, answer: dict[str, Any]) -> None:
        """Note an answer; it must agree with every one before."""
        if status in {200, 201}:
            assert self.loan in (None, answer), (self.loan, answer)
            assert status == 200 or self.loan is None, "lent twice"
            self.loan = answer
        elif status == 500:
            assert answer["type"] == "/problems/outcome-unknown"
            self.unsure = True
        else:
            assert status == 503, (status, answer)


@dataclass
class Floor:
    """What is known of a loan for good: no later look may show less of it."""

    version: int = 0
    principal_paise: int = 0  # received: of every payment that was acknowledged
    business_date: str = ""

    def holds(self, seen: dict[str, Any]) -> None:
        """Hold a look at the loan against what was known before it was asked for."""
        assert seen["version"] >= self.version, f"version {seen['version']} after {self.version}"
        received_paise = paise(seen["principal_received"])
        assert received_paise >= self.principal_paise, "an acknowledged payment is not seen"
        assert seen["as_of"] >= self.business_date, "the business date went back"

    def learn(self, seen: dict[str, Any]) -> None:
        """Raise it to what was seen."""
        self.version = max(self.version, seen["version"])
        self.business_date = max(self.business_date, seen["as_of"])


@dataclass
class Books:
    """What was sent in all; `open` is what was sent since the last reckoning."""

    token: str
    loan_ids: list[str]
    settled: dict[str, Payment] = field(default_factory=dict)
    open: dict[str, Payment] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    business_date: str = ""
    borrower_token: str = ""
    lent: list[str] = field(default_factory=list)  # loans of settled applications
    applications: list[Application] = field(default_factory=list)  # since the last reckoning
    floors: dict[str, Floor] = field(default_factory=dict)
    _moment: int = 0

    def moment(self) -> int:
        """Return the next moment."""
        self._moment += 1
        return self._moment

    def floor(self, loan_id: str) -> Floor:
        return self.floors.setdefault(loan_id, Floor())

    def sending(self, payment: Payment) -> None:
        """Note that a payment is about to be sent."""
        if payment.sent_at is None:
            payment.sent_at = self.moment()
        if payment.transaction_id not in self.settled:
            self.open[payment.transaction_id] = payment

    def heard(self, payment: Payment, status: int, answer: dict[str, Any]) -> None:
        """Note an answer."""
        payment.note(status, answer)
        if payment.receipt is not None and payment.known_at is None:
            payment.known_at = self.moment()
            self.floor(payment.loan_id).principal_paise += paise(payment.receipt["principal"])


def in_real_order(payments: Sequence[Payment]) -> None:
    """Payments in the order in which the ledger has them: none stands behind one that was sent only after its
    receipt had come.
    """
    latest, of = 0, ""
    for payment in payments:
        if payment.known_at is not None:
            assert payment.known_at > latest, f"{payment.transaction_id} was known before {of} was sent"
        if payment.sent_at is not None and payment.sent_at > latest:
            latest, of = payment.sent_at, payment.transaction_id


def paise(rupees: str) -> int:
    whole, _, hundredths = rupees.partition(".")
    return int(whole) * 100 + int(hundredths)
