"""What crosses the wire, as Structs: bodies in (unknown fields refused) and answers out. The OpenAPI schemas
are made of these.

Money comes in as the raw JSON literal, because a parsed float has already lost what the money rule looks at;
it goes out as rupee strings. Dates are YYYY-MM-DD, instants RFC 3339 in UTC, ids opaque strings.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

Rupees = Annotated[
    str,
    Meta(
        description="Rupees with two decimals.",
        extra_json_schema={"pattern": "^[0-9]+\\.[0-9]{2}$", "examples": ["207.00"]},
    ),
]
Day = Annotated[str, Meta(description="A business date, YYYY-MM-DD.", extra_json_schema={"format": "date"})]
Instant = Annotated[
    str, Meta(description="Real time, RFC 3339 in UTC.", extra_json_schema={"format": "date-time"})
]
Id = Annotated[
    str,
    Meta(description="An opaque id of at most 64 URL-safe characters.", extra_json_schema={"maxLength": 64}),
]
TransactionId = Annotated[
    str,
    Meta(
        description="The caller's own name of the payment: 1 to 64 of A-Za-z0-9._:-",
        extra_json_schema={"pattern": "^[A-Za-z0-9._:-]{1,64}$"},
    ),
]
Text = Annotated[str, Meta(max_length=256)]

DECIMAL_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": "^[0-9]{1,13}(\\.[0-9]{1,2})?$"},
        {"type": "number", "minimum": 0, "maximum": 9_999_999_999_999.99},
    ],
    "examples": ["207.00"],
}
MORE_THAN_ZERO_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": "^(?!0+(\\.0+)?$)[0-9]{1,13}(\\.[0-9]{1,2})?$"},
        {"type": "number", "minimum": 0.01, "maximum": 9_999_999_999_999.99},
    ],
    "examples": ["207.00"],
}
RawRupees = Annotated[
    msgspec.Raw,
    Meta(
        description="Rupees: a string or number written as digits with at most two decimals.",
        extra_json_schema=DECIMAL_SCHEMA,
    ),
]
RawAmount = Annotated[
    msgspec.Raw,
    Meta(
        description="Rupees, more than none: a string or number written as digits with at most two decimals.",
        extra_json_schema=MORE_THAN_ZERO_SCHEMA,
    ),
]
RawPercent = Annotated[
    msgspec.Raw,
    Meta(
        description="A percentage a year, written as digits with at most two decimals.",
        extra_json_schema={**DECIMAL_SCHEMA, "examples": ["14.00"]},
    ),
]

PlanName = Literal["min_due", "equal_emi"]
LoanStatus = Literal["active", "closed"]
BillStatus = Literal["unpaid", "part_paid", "paid"]


class In(msgspec.Struct, forbid_unknown_fields=True):
    """A request body."""


# Loans -------------------------------------------------------------------------------------------


class ApplyLoan(In):
    """An application for a loan."""

    amount: RawAmount
    interest_rate: RawPercent
    tenure: Annotated[int, Meta(ge=1, description="Cycles of 30 days.")]
    repayment_plan: PlanName = "min_due"


class InstalmentShown(msgspec.Struct):
    """A projected bill."""

    number: int
    date: Day
    due_date: Day
    principal: Rupees
    interest: Rupees
    amount_due: Rupees


class DueShown(msgspec.Struct):
    """What is to be paid next."""

    date: Day
    due_date: Day
    amount_due: Rupees


class UpcomingShown(msgspec.Struct):
    """An unpaid bill with what it still asks for, or a projected one."""

    number: int
    date: Day
    due_date: Day
    amount_due: Rupees


class UnpaidBillShown(msgspec.Struct):
    """A bill that stands in the way."""

    number: int
    due_date: Day
    amount_due: Rupees


class OutstandingShown(msgspec.Struct):
    """What is owed now; `total` is the payoff."""

    principal: Rupees
    interest: Rupees
    total: Rupees


class OpenBillShown(msgspec.Struct):
    """An unpaid bill, with what it still asks for."""

    number: int
    billing_date: Day
    due_date: Day
    interest: Rupees
    principal: Rupees
    amount_due: Rupees


class BillShown(msgspec.Struct):
    """A bill: frozen at issue, but for `paid` and `status`."""

    number: int
    billing_date: Day
    due_date: Day
    interest: Rupees
    principal_due: Rupees
    min_due: Rupees
    past_due: Rupees
    total_due: Rupees
    paid: Rupees
    status: BillStatus


class NewLoan(msgspec.Struct):
    """A loan as it is lent."""

    loan_id: Id
    status: LoanStatus
    amount: Rupees
    interest_rate: str
    daily_rate: str
    tenure: int
    repayment_plan: PlanName
    disbursed_on: Day
    emi_schedule: list[InstalmentShown]


class LoanSummary(msgspec.Struct):
    """A loan as it stands, without its schedule."""

    loan_id: Id
    status: LoanStatus
    amount: Rupees
    interest_rate: str
    daily_rate: str
    tenure: int
    repayment_plan: PlanName
    disbursed_on: Day
    closed_on: Day | None
    as_of: Day
    outstanding: OutstandingShown
    payoff: Rupees
    past_due: Rupees
    interest_received: Rupees
    principal_received: Rupees
    next_due: DueShown | None
    open_bills: list[OpenBillShown]
    version: int


class LoanShown(LoanSummary):
    """A loan as it stands."""

    emi_schedule: list[InstalmentShown]


class LoanList(msgspec.Struct):
    """A page of loans, oldest first."""

    loans: list[LoanSummary]
    next_cursor: str | None


# Payments ----------------------------------------------------------------------------------------


class MakePayment(In):
    """A repayment, named by the caller's own transaction_id."""

    loan_id: Text
    amount: RawAmount
    transaction_id: TransactionId
    for_bill: (
        Annotated[int, Meta(ge=1, le=1_000_000, description="A guard: refuse while an older bill is unpaid.")]
        | None
    ) = None


class AllocationShown(msgspec.Struct):
    """The part of a payment that went to one bill; null for money beyond the bills."""

    bill: int | None
    due_date: Day | None
    interest: Rupees
    principal: Rupees


class Receipt(msgspec.Struct):
    """A payment that counted."""

    payment_id: Id
    transaction_id: str
    loan_id: Id
    status: Literal["applied"]
    paid_on: Day
    recorded_at: Instant
    amount: Rupees
    interest: Rupees
    principal: Rupees
    allocations: list[AllocationShown]
    outstanding: OutstandingShown
    loan_status: LoanStatus
    next_due: DueShown | None
    replayed: bool


class PastPayment(msgspec.Struct):
    """A payment on a statement."""

    payment_id: Id
    date: Day
    recorded_at: Instant
    principal: Rupees
    interest: Rupees
    amount_paid: Rupees
    transaction_id: str
    status: Literal["applied"]
    allocations: list[AllocationShown]


class Statement(msgspec.Struct):
    """A statement; bills and upcoming stand on the first page alone."""

    loan_id: Id
    status: LoanStatus
    as_of: Day
    outstanding: OutstandingShown
    payoff: Rupees
    past_due: Rupees
    bills: list[BillShown]
    past_transactions: list[PastPayment]
    upcoming_emis: list[UpcomingShown]
    next_cursor: str | None


# Operations --------------------------------------------------------------------------------------


class StartBillingRun(In):
    """A billing run for a date; today's when left out."""

    date: Day | None = None


class AdvanceClock(In):
    """How far to move the sandbox's date: `days`, or up to the date `to`."""

    days: Annotated[int, Meta(ge=1, le=3660)] | UnsetType = UNSET
    to: Day | UnsetType = UNSET


class BillingRunShown(msgspec.Struct):
    """A billing run: loans that were due, billed and failed; of the last the first 100 are named."""

    run_id: Id
    business_date: Day
    due: int
    billed: int
    failed: int
    failed_loans: list[Id]
    status: Literal["running", "completed", "interrupted"]
    started_at: Instant
    seconds: float | None


class BillingRunList(msgspec.Struct):
    """A page of runs, newest first."""

    billing_runs: list[BillingRunShown]
    next_cursor: str | None


class ClockAdvanced(msgspec.Struct):
    """Where the sandbox's date stands, and the runs on the way there."""

    business_date: Day
    billing_runs: list[BillingRunShown]


class Health(msgspec.Struct):
    """How the service is."""

    status: str


class FieldError(msgspec.Struct):
    """One bad field."""

    path: str
    message: str


class ReasonShown(msgspec.Struct):
    """A rule that speaks against a loan."""

    code: Literal["credit-score-too-low", "income-too-low", "amount-too-high"]
    required: Any
    actual: Any


class ProblemShown(msgspec.Struct, omit_defaults=True):
    """RFC 9457 problem details; the members after `detail` come with the problems that name them."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldError] | UnsetType = UNSET
    reasons: list[ReasonShown] | UnsetType = UNSET
    payoff: Rupees | UnsetType = UNSET
    unpaid_bills: list[UnpaidBillShown] | UnsetType = UNSET


class PaymentResult(msgspec.Struct, omit_defaults=True):
    """What became of one payment of a batch: a `receipt`, or the `problem` that alone it would have had.

    `status` is that of the single call: 201, 200 for a replay, or the problem's. `transaction_id` is null
    where none could be read.
    """

    status: int
    transaction_id: str | None
    receipt: Receipt | UnsetType = UNSET
    problem: ProblemShown | UnsetType = UNSET
