"""What a caller sends and gets. Money is whole paise, an int, under names that end in `_paise`; on the wire
it is rupees as a string, read to the letter. Dates are business dates, `recorded_at` is real time in UTC.

Fields that a newer service adds are passed over.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

import msgspec

T = TypeVar("T")

LoanStatus = Literal["active", "closed"]
BillStatus = Literal["unpaid", "part_paid", "paid"]

_RUPEES_IN = re.compile(r"[0-9]{1,13}(\.[0-9]{1,2})?", re.ASCII)
_RUPEES_OUT = re.compile(r"[0-9]+\.[0-9]{2}", re.ASCII)
_TRANSACTION_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
_LOAN_ID = re.compile(r"[A-Za-z0-9._~-]{1,64}", re.ASCII)


class Paise(int):
    """Whole paise: an int like any other, read from rupees."""

    __slots__ = ()


def paise(rupees: str) -> int:
    """Read rupees such as "207", "207.5" or "207.00" as paise, exactly. ValueError for anything else."""
    if _RUPEES_IN.fullmatch(rupees) is None:
        raise ValueError(f"not rupees with at most two decimals: {rupees!r}")
    whole, _, hundredths = rupees.partition(".")
    return int(whole) * 100 + int(f"{hundredths:0<2}")


def rupees(amount_paise: int) -> str:
    """Write paise, zero or more, as rupees: 20700 is "207.00"."""
    return f"{amount_paise // 100}.{amount_paise % 100:02d}"


class Payment(msgspec.Struct, frozen=True):
    """A payment to make: so many paise to a loan, under the caller's own name for it. It counts once.

    `for_bill` is a guard: the payment is refused while an older bill is unpaid. It changes nothing else.
    Raises ValueError or TypeError for what could be no payment at all.
    """

    loan_id: str
    amount_paise: int  # more than zero
    transaction_id: str  # 1 to 64 of A-Za-z0-9._:-
    for_bill: int | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be told apart in an answer, or would not be sent as it is meant."""
        if type(self.amount_paise) not in {int, Paise}:
            raise TypeError(f"an amount is whole paise, an int: {self.amount_paise!r}")
        if self.amount_paise <= 0:
            raise ValueError(f"an amount is more than zero: {self.amount_paise}")
        if _TRANSACTION_ID.fullmatch(self.transaction_id) is None:
            raise ValueError(f"a transaction_id is 1 to 64 of A-Za-z0-9._:- {self.transaction_id!r}")
        if _LOAN_ID.fullmatch(self.loan_id) is None:
            raise ValueError(f"a loan_id is 1 to 64 URL-safe characters: {self.loan_id!r}")


class Shown(msgspec.Struct, frozen=True, rename=lambda name: name.removesuffix("_paise")):
    """What the service shows. `amount_paise` is called `amount` on the wire, and so on."""


class Outstanding(Shown, frozen=True):
    """What is owed; `total_paise` is the payoff."""

    principal_paise: Paise
    interest_paise: Paise
    total_paise: Paise


class Due(Shown, frozen=True):
    """What is to be paid next."""

    date: dt.date
    due_date: dt.date
    amount_due_paise: Paise


class Allocation(Shown, frozen=True):
    """The part of a payment that went to one bill; None for money beyond the bills."""

    bill: int | None
    due_date: dt.date | None
    interest_paise: Paise
    principal_paise: Paise


class Receipt(Shown, frozen=True):
    """A payment that counted, and the loan as it left it. `replayed`: it had counted before this was sent."""

    payment_id: str
    transaction_id: str
    loan_id: str
    status: str
    paid_on: dt.date
    recorded_at: dt.datetime
    amount_paise: Paise
    interest_paise: Paise
    principal_paise: Paise
    allocations: tuple[Allocation, ...]
    outstanding: Outstanding
    loan_status: LoanStatus
    next_due: Due | None
    replayed: bool


class OpenBill(Shown, frozen=True):
    """An unpaid bill, with what it still asks for."""

    number: int
    billing_date: dt.date
    due_date: dt.date
    interest_paise: Paise
    principal_paise: Paise
    amount_due_paise: Paise


class Instalment(Shown, frozen=True):
    """A projected bill."""

    number: int
    date: dt.date
    due_date: dt.date
    principal_paise: Paise
    interest_paise: Paise
    amount_due_paise: Paise


class Loan(Shown, frozen=True):
    """A loan as it stands. Rates are text as shown: percent a year, percent a day."""

    loan_id: str
    status: LoanStatus
    amount_paise: Paise
    interest_rate: str
    daily_rate: str
    tenure: int
    repayment_plan: str
    disbursed_on: dt.date
    closed_on: dt.date | None
    as_of: dt.date
    outstanding: Outstanding
    payoff_paise: Paise
    past_due_paise: Paise
    interest_received_paise: Paise
    principal_received_paise: Paise
    next_due: Due | None
    open_bills: tuple[OpenBill, ...]
    version: int
    emi_schedule: tuple[Instalment, ...]


class Bill(Shown, frozen=True):
    """A bill: frozen at issue, but for `paid_paise` and `status`."""

    number: int
    billing_date: dt.date
    due_date: dt.date
    interest_paise: Paise
    principal_due_paise: Paise
    min_due_paise: Paise
    past_due_paise: Paise
    total_due_paise: Paise
    paid_paise: Paise
    status: BillStatus


class PastPayment(Shown, frozen=True):
    """A payment on a statement."""

    payment_id: str
    date: dt.date
    recorded_at: dt.datetime
    principal_paise: Paise
    interest_paise: Paise
    amount_paid_paise: Paise
    transaction_id: str
    status: str
    allocations: tuple[Allocation, ...]


class Upcoming(Shown, frozen=True):
    """An unpaid bill with what it still asks for, or a projected one."""

    number: int
    date: dt.date
    due_date: dt.date
    amount_due_paise: Paise


class StatementPage(Shown, frozen=True):
    """A page of a statement, payments newest first; bills and upcoming stand on the first page alone."""

    loan_id: str
    status: LoanStatus
    as_of: dt.date
    outstanding: Outstanding
    payoff_paise: Paise
    past_due_paise: Paise
    bills: tuple[Bill, ...]
    past_transactions: tuple[PastPayment, ...]
    upcoming_emis: tuple[Upcoming, ...]
    next_cursor: str | None


# The wire ----------------------------------------------------------------------------------------


class _Sent(msgspec.Struct, omit_defaults=True):
    """A payment as it is sent."""

    loan_id: str
    amount: str
    transaction_id: str
    for_bill: int | None = None


class Line(Shown, frozen=True):
    """The result of one payment of many, a `receipt` or a `problem`; without a transaction_id, the end of a
    stream that ends early.
    """

    status: int
    transaction_id: str | None
    receipt: Receipt | None = None
    problem: dict[str, Any] | None = None


_encode: Final = msgspec.json.Encoder().encode


def encode_payment(payment: Payment) -> bytes:
    """Return the JSON of a payment."""
    amount = rupees(payment.amount_paise)
    return _encode(_Sent(payment.loan_id, amount, payment.transaction_id, payment.for_bill))


def reader(kind: type[T]) -> Callable[[bytes], T]:
    """Return what reads an answer's JSON; it raises msgspec.DecodeError for anything else."""
    return msgspec.json.Decoder(kind, dec_hook=_read_money).decode


def _read_money(kind: type, value: object) -> Paise:
    assert kind is Paise
    if not isinstance(value, str) or _RUPEES_OUT.fullmatch(value) is None:
        raise ValueError("Expected rupees with two decimals")
    return Paise(value.replace(".", ""))
