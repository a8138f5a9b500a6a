"""From the domain's paise and day numbers to the payloads' rupee strings and dates."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec

from ledgerd.actors.messages import View
from ledgerd.domain.calendar import format_day
from ledgerd.domain.events import Allocation, BillIssued, Due, LoanDisbursed, PaymentRecorded, Terms
from ledgerd.domain.loan import Instalment, Loan, next_due, schedule
from ledgerd.domain.money import format_hundredths, format_thousandths, rupees
from ledgerd.domain.statement import bills_of
from ledgerd.http import payloads
from ledgerd.ids import format_id


@lru_cache(maxsize=8)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def instant(time_ms: int) -> str:
    """Show Unix milliseconds as RFC 3339 in UTC."""
    second, ms = divmod(time_ms, 1000)
    return f"{_second(second)}.{ms:03d}Z"


def receipt(loan_id: int, event: PaymentRecorded, replayed: bool) -> payloads.Receipt:
    """Show a payment's receipt, from its event alone, so that a replay is the first answer again."""
    principal, interest = event.outstanding_principal_paise, event.outstanding_interest_paise
    return payloads.Receipt(
        payment_id=format_id(event.payment_id),
        transaction_id=event.transaction_id,
        loan_id=format_id(loan_id),
        status="applied",
        paid_on=format_day(event.paid_on),
        recorded_at=instant(event.recorded_at_ms),
        amount=rupees(event.amount_paise),
        interest=rupees(event.interest_paise),
        principal=rupees(event.principal_paise),
        allocations=allocations(event.allocations),
        outstanding=outstanding(principal, interest),
        loan_status="closed" if event.next_due is None else "active",
        next_due=due(event.next_due),
        replayed=replayed,
    )


def allocations(parts: Iterable[Allocation]) -> list[payloads.AllocationShown]:
    """Show how a payment was split."""
    return [
        payloads.AllocationShown(
            part.bill or None,
            format_day(part.due_date) if part.bill else None,
            rupees(part.interest_paise),
            rupees(part.principal_paise),
        )
        for part in parts
    ]


def outstanding(principal_paise: int, interest_paise: int) -> payloads.OutstandingShown:
    """Show what is owed."""
    return payloads.OutstandingShown(
        rupees(principal_paise), rupees(interest_paise), rupees(principal_paise + interest_paise)
    )


def due(owed: Due | None) -> payloads.DueShown | None:
    """Show what is to be paid next."""
    if owed is None:
        return None
    return payloads.DueShown(
        format_day(owed.billing_date), format_day(owed.due_date), rupees(owed.amount_paise)
    )


def instalments(coming: Iterable[Instalment]) -> list[payloads.InstalmentShown]:
    """Show projected bills."""
    return [
        payloads.InstalmentShown(
            number=each.number,
            date=format_day(each.billing_date),
            due_date=format_day(each.due_date),
            principal=rupees(each.principal_paise),
            interest=rupees(each.interest_paise),
            amount_due=rupees(each.amount_paise),
        )
        for each in coming
    ]


def upcoming(loan: Loan, today: int) -> list[payloads.UpcomingShown]:
    """Show what is still to be paid: unpaid bills first, then the projection."""
    coming = [
        Due(each.number, each.billing_date, each.due_date, each.amount_paise)
        for each in schedule(loan, today)
    ]
    return [
        payloads.UpcomingShown(
            each.number, format_day(each.billing_date), format_day(each.due_date), rupees(each.amount_paise)
        )
        for each in (*loan.unpaid_dues(), *coming)
    ]


def unpaid_bills(bills: Iterable[Due]) -> list[payloads.UnpaidBillShown]:
    """Show the bills that a rejection names."""
    return [
        payloads.UnpaidBillShown(bill.number, format_day(bill.due_date), rupees(bill.amount_paise))
        for bill in bills
    ]


def bills(loan: Loan, issued: list[BillIssued]) -> list[payloads.BillShown]:
    """Show issued bills, with `paid` and `status` as the loan stands."""
    return [
        payloads.BillShown(
            number=shown.bill.number,
            billing_date=format_day(shown.bill.billing_date),
            due_date=format_day(shown.due_date),
            interest=rupees(shown.bill.interest_paise),
            principal_due=rupees(shown.bill.principal_due_paise),
            min_due=rupees(shown.bill.min_due_paise),
            past_due=rupees(shown.bill.past_due_paise),
            total_due=rupees(shown.bill.min_due_paise + shown.bill.past_due_paise),
            paid=rupees(shown.paid_paise),
            status=shown.status,
        )
        for shown in bills_of(loan, issued)
    ]


def new_loan(loan_id: int, event: LoanDisbursed, fresh: Loan) -> payloads.NewLoan:
    """Show a loan as it was lent: from its first event alone, so that a replay is the first answer again."""
    terms = event.terms
    return payloads.NewLoan(
        loan_id=format_id(loan_id),
        status="active",
        emi_schedule=instalments(schedule(fresh, terms.disbursed_on)),
        **_terms(terms),
    )


def loan_summary(view: View) -> payloads.LoanSummary:
    """Show a loan as it stands."""
    return payloads.LoanSummary(**_standing(view))


def loan_shown(view: View) -> payloads.LoanShown:
    """Show a loan as it stands, with its schedule."""
    return payloads.LoanShown(**_standing(view), emi_schedule=instalments(schedule(view.loan, view.today)))


def open_bills(loan: Loan) -> list[payloads.OpenBillShown]:
    """Show what each unpaid bill still asks for."""
    return [
        payloads.OpenBillShown(
            number=bill.number,
            billing_date=format_day(loan.terms.billing_date(bill.number)),
            due_date=format_day(loan.terms.due_date(bill.number)),
            interest=rupees(bill.interest_paise),
            principal=rupees(bill.principal_paise),
            amount_due=rupees(bill.amount_paise),
        )
        for bill in loan.unpaid_bills
    ]


def _terms(terms: Terms) -> dict[str, Any]:
    return {
        "amount": rupees(terms.amount_paise),
        "interest_rate": format_hundredths(terms.apr_hundredths),
        "daily_rate": format_thousandths(terms.daily_rate_thousandths),
        "tenure": terms.tenure,
        "repayment_plan": terms.plan,
        "disbursed_on": format_day(terms.disbursed_on),
    }


def _standing(view: View) -> dict[str, Any]:
    loan, today = view.loan, view.today
    return {
        "loan_id": format_id(view.loan_id),
        "status": status(loan),
        **_terms(loan.terms),
        "closed_on": None if loan.closed_on is None else format_day(loan.closed_on),
        "as_of": format_day(today),
        "outstanding": outstanding(loan.principal_paise, loan.interest_paise(today)),
        "payoff": rupees(loan.payoff_paise(today)),
        "past_due": rupees(loan.past_due_paise(today)),
        "interest_received": rupees(loan.interest_received_paise),
        "principal_received": rupees(loan.principal_received_paise),
        "next_due": due(next_due(loan)),
        "open_bills": open_bills(loan),
        "version": view.version,
    }


def status(loan: Loan) -> payloads.LoanStatus:
    """Show whether a loan still runs."""
    return "active" if loan.closed_on is None else "closed"


_allocations = msgspec.json.Decoder(tuple[Allocation, ...])


def past_payment(row: list[Any]) -> payloads.PastPayment:
    """Show a row of `payments_page`, in the table's order."""
    (_, _, _, _, payment_id, transaction_id, paid_on, recorded_at_ms, amount, interest, principal, parts) = (
        row
    )
    return payloads.PastPayment(
        payment_id=format_id(payment_id),
        date=format_day(paid_on),
        recorded_at=instant(recorded_at_ms),
        principal=rupees(principal),
        interest=rupees(interest),
        amount_paid=rupees(amount),
        transaction_id=transaction_id,
        status="applied",
        allocations=allocations(_allocations.decode(parts)),
    )
