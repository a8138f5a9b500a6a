"""The rule book of one loan: `decide(loan, command, today) -> events | Rejection` and `evolve(loan, event) ->
loan`.

Both are pure. `decide` reads top to bottom as the documented precedence of refusals; `evolve` never refuses,
for what it is given has happened. Used by the actors (live), the projections (tables) and `verify` (again,
from the first event).

Holds at every moment, in paise: disbursed = principal received + principal outstanding, and what was paid in
= interest received + principal received.
"""

from typing import assert_never

import msgspec

from ledgerd.domain.commands import Command, Disburse, IssueBills, Rejection, Repay
from ledgerd.domain.events import Allocation, BillIssued, Due, Event, LoanDisbursed, PaymentRecorded, Terms
from ledgerd.domain.money import UNITS_PER_PAISA, divide_up, percent_half_even


class UnpaidBill(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one issued bill still asks for."""

    number: int
    interest_paise: int
    principal_paise: int

    @property
    def amount_paise(self) -> int:
        """Both parts together."""
        return self.interest_paise + self.principal_paise


class Loan(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The state of a loan after some event. A new value for each event; nothing in it changes."""

    borrower_id: int
    terms: Terms
    principal_paise: int  # outstanding, billed or not
    accrued_units: int  # interest that no bill asks for yet, in 1/100,000 paise
    accrued_through: int  # the last day that interest was charged for
    bills_issued: int
    unpaid_bills: tuple[UnpaidBill, ...]  # oldest first
    interest_received_paise: int
    principal_received_paise: int
    closed_on: int | None

    @property
    def next_billing(self) -> int | None:
        """The day number of the next bill; None once closed."""
        return None if self.closed_on is not None else self.terms.billing_date(self.bills_issued + 1)

    @property
    def billed_interest_paise(self) -> int:
        """Interest that unpaid bills ask for."""
        if not self.unpaid_bills:  # as most loans are, most of the time
            return 0
        return sum(bill.interest_paise for bill in self.unpaid_bills)

    @property
    def billed_principal_paise(self) -> int:
        """Principal that unpaid bills ask for."""
        if not self.unpaid_bills:
            return 0
        return sum(bill.principal_paise for bill in self.unpaid_bills)

    def accrued_on(self, day: int) -> int:
        """Return the unbilled interest at the end of `day`, in units: simple, on the principal alone."""
        days = day - self.accrued_through
        if days <= 0:
            return self.accrued_units
        return self.accrued_units + self.principal_paise * self.terms.daily_rate_thousandths * days

    def interest_paise(self, day: int) -> int:
        """Return the interest outstanding on `day`: billed and unpaid, and the whole paise accrued since."""
        return self.billed_interest_paise + self.accrued_on(day) // UNITS_PER_PAISA

    def payoff_paise(self, day: int) -> int:
        """Return what closes the loan on `day`."""
        return self.principal_paise + self.interest_paise(day)

    def past_due_paise(self, day: int) -> int:
        """Return what the bills whose due date has passed on `day` still ask for."""
        return sum(bill.amount_paise for bill in self.unpaid_bills if self.terms.due_date(bill.number) < day)

    def unpaid_dues(self) -> tuple[Due, ...]:
        """Return what each unpaid bill still asks for, oldest first."""
        dates = self.terms
        return tuple(
            Due(bill.number, dates.billing_date(bill.number), dates.due_date(bill.number), bill.amount_paise)
            for bill in self.unpaid_bills
        )


# Commands ----------------------------------------------------------------------------------------


def decide(loan: Loan | None, command: Command, today: int) -> list[Event] | Rejection:
    """Return the events that the command leads to on `today`, perhaps none, or why it is refused."""
    match command:
        case Repay():
            return repay(loan, command, today)
        case IssueBills(through):
            return [] if loan is None else list(bring_up_to_date(loan, through)[0])
        case Disburse(borrower_id, terms, recorded_at_ms, idempotency_key):
            assert loan is None, "a loan is disbursed once"
            terms = msgspec.structs.replace(terms, disbursed_on=today)  # decided today, whenever it was asked
            return [LoanDisbursed(borrower_id, terms, recorded_at_ms, idempotency_key)]
        case _:
            assert_never(command)


def repay(loan: Loan | None, command: Repay, today: int) -> list[Event] | Rejection:
    """Decide a payment. Duplicates come before every rule but the first: the journal's append knows them."""
    if loan is None or command.borrower_id not in (None, loan.borrower_id):
        return Rejection("loan-not-found")
    if loan.closed_on is not None:
        return Rejection("loan-closed")
    today = max(today, loan.accrued_through)
    events: list[Event]
    events, loan = bring_up_to_date(loan, today)
    if command.for_bill is not None:
        if not 1 <= command.for_bill <= loan.bills_issued:
            return Rejection("no-such-bill")
        older = tuple(due for due in loan.unpaid_dues() if due.number < command.for_bill)
        if older:
            return Rejection("past-due-unpaid", unpaid_bills=older)
    payoff_paise = loan.payoff_paise(today)
    if command.amount_paise > payoff_paise:
        return Rejection("amount-exceeds-payoff", payoff_paise=payoff_paise)

    allocations = allocate(loan, command.amount_paise, today)
    after = settle(loan, allocations, today)
    interest_paise = after.interest_received_paise - loan.interest_received_paise
    principal_paise = after.principal_received_paise - loan.principal_received_paise
    assert interest_paise + principal_paise == command.amount_paise, "a payment is split without remainder"
    assert (after.closed_on is not None) == (command.amount_paise == payoff_paise), (
        "the payoff closes the loan"
    )
    events.append(
        PaymentRecorded(
            payment_id=command.payment_id,
            caller=command.caller,
            transaction_id=command.transaction_id,
            paid_on=today,
            recorded_at_ms=command.recorded_at_ms,
            amount_paise=command.amount_paise,
            interest_paise=interest_paise,
            principal_paise=principal_paise,
            allocations=allocations,
            outstanding_principal_paise=after.principal_paise,
            outstanding_interest_paise=after.interest_paise(today),
            next_due=next_due(after),
        )
    )
    return events


def evolve(loan: Loan | None, event: Event) -> Loan:
    """Return the loan after the event, from the event's own figures."""
    match event:
        case PaymentRecorded():
            assert loan is not None
            return settle(loan, event.allocations, event.paid_on)
        case BillIssued():
            assert loan is not None
            return add_bill(loan, event)
        case LoanDisbursed(borrower_id, terms):
            return Loan(
                borrower_id=borrower_id,
                terms=terms,
                principal_paise=terms.amount_paise,
                accrued_units=0,
                accrued_through=terms.disbursed_on,
                bills_issued=0,
                unpaid_bills=(),
                interest_received_paise=0,
                principal_received_paise=0,
                closed_on=None,
            )
        case _:
            assert_never(event)


# Billing -----------------------------------------------------------------------------------------


def bring_up_to_date(loan: Loan, through: int) -> tuple[list[Event], Loan]:
    """Issue every bill dated up to `through`, in order. Whatever touches a loan does this first; a read keeps
    only the view.
    """
    events: list[Event] = []
    while (billing_date := loan.next_billing) is not None and billing_date <= through:
        bill = next_bill(loan)
        events.append(bill)
        loan = add_bill(loan, bill)
    return events, loan


def next_bill(loan: Loan) -> BillIssued:
    """Return the bill of the next cycle, on its own date."""
    number = loan.bills_issued + 1
    billing_date = loan.terms.billing_date(number)
    interest_paise = loan.accrued_on(billing_date) // UNITS_PER_PAISA  # the fraction stays accrued
    unasked_paise = loan.principal_paise - loan.billed_principal_paise
    return BillIssued(
        number=number,
        billing_date=billing_date,
        interest_paise=interest_paise,
        principal_due_paise=principal_due(
            loan.terms, number, loan.principal_paise, unasked_paise, interest_paise
        ),
        past_due_paise=loan.billed_interest_paise + loan.billed_principal_paise,
    )


def add_bill(loan: Loan, bill: BillIssued) -> Loan:
    """Return the loan with the bill issued: its interest is no longer unbilled."""
    unpaid = loan.unpaid_bills
    if bill.min_due_paise > 0:
        unpaid = (*unpaid, UnpaidBill(bill.number, bill.interest_paise, bill.principal_due_paise))
    return msgspec.structs.replace(
        loan,
        accrued_units=loan.accrued_on(bill.billing_date) - bill.interest_paise * UNITS_PER_PAISA,
        accrued_through=bill.billing_date,
        bills_issued=bill.number,
        unpaid_bills=unpaid,
    )


def principal_due(
    terms: Terms, number: int, principal_paise: int, unasked_paise: int, interest_paise: int
) -> int:
    """Return the principal that bill `number` asks for, of the `unasked_paise` that no unpaid bill asks for
    already.
    """
    if number >= terms.tenure:
        return unasked_paise
    if terms.plan == "min_due":
        return min(percent_half_even(principal_paise, terms.min_due_hundredths), unasked_paise)
    level = level_instalment(
        unasked_paise, terms.cycle_days * terms.daily_rate_thousandths, terms.tenure - number + 1
    )
    return min(max(level - interest_paise, 0), unasked_paise)


def level_instalment(principal_paise: int, rate_units: int, cycles: int) -> int:
    """Return the level instalment F r / (1 - (1 + r)^-n), rounded up to the paisa, where r is rate_units /
    100,000.
    """
    if rate_units == 0:
        return divide_up(principal_paise, cycles)
    grown = (UNITS_PER_PAISA + rate_units) ** cycles
    return divide_up(
        principal_paise * rate_units * grown, UNITS_PER_PAISA * (grown - UNITS_PER_PAISA**cycles)
    )


# Payments ----------------------------------------------------------------------------------------


def allocate(loan: Loan, amount_paise: int, today: int) -> tuple[Allocation, ...]:
    """Split a payment: the oldest unpaid bill's interest, its principal, the next bill .., then beyond the
    bills.
    """
    left = amount_paise
    parts: list[Allocation] = []
    for bill in loan.unpaid_bills:
        interest = min(left, bill.interest_paise)
        principal = min(left - interest, bill.principal_paise)
        parts.append(Allocation(bill.number, loan.terms.due_date(bill.number), interest, principal))
        left -= interest + principal
        if left == 0:
            break
    else:
        if left > 0:
            interest = min(left, loan.accrued_on(today) // UNITS_PER_PAISA)
            parts.append(Allocation(0, 0, interest, left - interest))
    return tuple(parts)


def settle(loan: Loan, allocations: tuple[Allocation, ...], today: int) -> Loan:
    """Return the loan after a payment split so. When nothing is left it closes, and a fraction of a paisa
    that is still accrued is waived.
    """
    interest_paise = principal_paise = 0
    accrued_units = loan.accrued_on(today)
    for part in allocations:
        interest_paise += part.interest_paise
        principal_paise += part.principal_paise
        if part.bill == 0:
            accrued_units -= part.interest_paise * UNITS_PER_PAISA
    left_paise = loan.principal_paise - principal_paise
    unpaid_bills = still_unpaid(loan.unpaid_bills, allocations)
    closes = left_paise == 0 and not unpaid_bills and accrued_units < UNITS_PER_PAISA
    return Loan(
        borrower_id=loan.borrower_id,
        terms=loan.terms,
        principal_paise=left_paise,
        accrued_units=0 if closes else accrued_units,
        accrued_through=today,
        bills_issued=loan.bills_issued,
        unpaid_bills=unpaid_bills,
        interest_received_paise=loan.interest_received_paise + interest_paise,
        principal_received_paise=loan.principal_received_paise + principal_paise,
        closed_on=today if closes else None,
    )


def still_unpaid(
    bills: tuple[UnpaidBill, ...], allocations: tuple[Allocation, ...]
) -> tuple[UnpaidBill, ...]:
    """Return the bills that a payment leaves unpaid. It clears them oldest first, so only the last one it
    reached can remain.
    """
    if not bills or allocations[0].bill == 0:
        return bills
    reached = [part for part in allocations if part.bill != 0]
    last, bill = reached[-1], bills[len(reached) - 1]
    assert last.bill == bill.number, "a payment clears bills oldest first"
    rest = UnpaidBill(
        bill.number, bill.interest_paise - last.interest_paise, bill.principal_paise - last.principal_paise
    )
    return bills[len(reached) :] if rest.amount_paise == 0 else (rest, *bills[len(reached) :])


# The projection ----------------------------------------------------------------------------------


class Instalment(msgspec.Struct, frozen=True, gc=False):
    """The projected bill of a coming cycle."""

    number: int
    billing_date: int
    due_date: int
    interest_paise: int
    principal_paise: int

    @property
    def amount_paise(self) -> int:
        """Both parts together."""
        return self.interest_paise + self.principal_paise


def schedule(loan: Loan, today: int) -> list[Instalment]:
    """Return the coming bills, unpaid ones taken as paid today, each coming one as paid on
    its billing date.

    The loan must be up to date. Computed from the present state whenever it is asked for, so it is never
    stale.
    """
    instalments: list[Instalment] = []
    if loan.closed_on is not None:
        return instalments
    terms, number = loan.terms, loan.bills_issued
    principal = loan.principal_paise - loan.billed_principal_paise
    units, through = loan.accrued_on(today), max(today, loan.accrued_through)
    while principal > 0 or units >= UNITS_PER_PAISA:
        number += 1
        billing_date = terms.billing_date(number)
        units += principal * terms.daily_rate_thousandths * (billing_date - through)
        interest, units = divmod(units, UNITS_PER_PAISA)
        asked = principal_due(terms, number, principal, principal, interest)
        instalments.append(Instalment(number, billing_date, terms.due_date(number), interest, asked))
        principal, through = principal - asked, billing_date
    return instalments


def next_due(loan: Loan) -> Due | None:
    """Return the oldest unpaid bill with what it still asks for, else the next instalment, or None once
    closed.
    """
    if loan.unpaid_bills:
        return loan.unpaid_dues()[0]
    if loan.closed_on is not None:
        return None
    coming = next_bill(loan)  # with nothing unpaid, the next instalment is just that
    return Due(coming.number, coming.billing_date, loan.terms.due_date(coming.number), coming.min_due_paise)
