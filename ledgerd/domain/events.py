"""What happened to a loan, in the past tense: the bodies of the journal.

Each event holds every figure that an answer once showed, so that a receipt can be rebuilt from its event
alone and history never changes when a rule does. Shapes are positional on disk (`array_like`): fields are
only ever added at the end, with a default.
"""

from typing import Literal

import msgspec

Plan = Literal["min_due", "equal_emi"]


class Terms(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a loan was lent under; later changes of configuration don't touch it."""

    amount_paise: int
    apr_hundredths: int  # of a percent a year
    daily_rate_thousandths: int  # of a percent a day
    tenure: int  # cycles
    plan: Plan
    disbursed_on: int  # day number
    cycle_days: int
    due_days: int
    min_due_hundredths: int  # of a percent of the principal balance

    def billing_date(self, number: int) -> int:
        """Return the day number on which bill `number` is issued."""
        return self.disbursed_on + self.cycle_days * number

    def due_date(self, number: int) -> int:
        """Return the last day number on which bill `number` can be paid in time."""
        return self.billing_date(number) + self.due_days


class Due(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What an unpaid bill or a coming instalment asks for."""

    number: int
    billing_date: int
    due_date: int
    amount_paise: int


class Allocation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The part of a payment that went to one bill; `bill` and `due_date` are 0 for money beyond the bills."""

    bill: int
    due_date: int
    interest_paise: int
    principal_paise: int


class LoanDisbursed(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="disbursed"):
    """The first event of each loan."""

    borrower_id: int
    terms: Terms
    recorded_at_ms: int
    idempotency_key: str | None


class BillIssued(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="billed"):
    """One cycle's bill, dated by its cycle whenever it was written."""

    number: int
    billing_date: int
    interest_paise: int
    principal_due_paise: int
    past_due_paise: int

    @property
    def min_due_paise(self) -> int:
        """What this bill itself asks for."""
        return self.interest_paise + self.principal_due_paise


class PaymentRecorded(msgspec.Struct, frozen=True, array_like=True, gc=False, tag="paid"):
    """A repayment that counted, how it was split, and what its receipt said of the loan."""

    payment_id: int
    caller: str  # the namespace of transaction_id
    transaction_id: str
    paid_on: int
    recorded_at_ms: int
    amount_paise: int
    interest_paise: int
    principal_paise: int
    allocations: tuple[Allocation, ...]
    outstanding_principal_paise: int
    outstanding_interest_paise: int
    next_due: Due | None  # None: this payment closed the loan


Event = LoanDisbursed | BillIssued | PaymentRecorded

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Event)
encode_event = _encoder.encode
decode_event = _decoder.decode


_KINDS = {kind: str(kind.__struct_config__.tag) for kind in (LoanDisbursed, BillIssued, PaymentRecorded)}


def kind_of(event: Event) -> str:
    """Return the event's name in the journal."""
    return _KINDS[type(event)]
