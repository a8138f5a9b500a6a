"""A payment in one transaction over the locked loan: two statements that write, one that reads."""

from datetime import date

from django.db import transaction
from django.utils import timezone

from bench.peers.django.lending.models import Loan, Payment

UNITS_PER_PAISA = 100_000


class Refused(Exception):
    """The loan does not take this payment."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


def pay(client_id: int, loan_id: int, amount_paise: int, transaction_id: str) -> Payment:
    """Raises Loan.DoesNotExist, Refused, and IntegrityError when the client's transaction id was used."""
    now = timezone.now()
    today = timezone.localdate(now)
    with transaction.atomic():
        loan = Loan.objects.select_for_update().get(pk=loan_id)
        if loan.closed_on is not None:
            raise Refused(409, "loan-closed")
        accrue(loan, today)
        interest_paise, principal_paise = split(loan, amount_paise)
        if principal_paise > loan.principal_paise:
            raise Refused(422, "amount-exceeds-payoff")
        loan.principal_paise -= principal_paise
        loan.interest_received_paise += interest_paise
        loan.principal_received_paise += principal_paise
        if loan.principal_paise == 0 and loan.bills_unpaid == 0 and loan.accrued_units < UNITS_PER_PAISA:
            loan.accrued_units, loan.closed_on, loan.next_billing = 0, today, None
        payment = Payment.objects.create(
            client_id=client_id,
            transaction_id=transaction_id,
            loan_id=loan_id,
            amount_paise=amount_paise,
            interest_paise=interest_paise,
            principal_paise=principal_paise,
            paid_on=today,
            recorded_at=now,
            outstanding_paise=loan.principal_paise,
        )
        loan.save(update_fields=CHANGED)
    return payment


CHANGED = (
    "principal_paise",
    "accrued_units",
    "accrued_through",
    "interest_received_paise",
    "principal_received_paise",
    "bills_unpaid",
    "next_billing",
    "closed_on",
)


def accrue(loan: Loan, today: date) -> None:
    days = (today - loan.accrued_through).days
    if days > 0:
        loan.accrued_units += loan.principal_paise * loan.daily_rate_thousandths * days
        loan.accrued_through = today


def split(loan: Loan, amount_paise: int) -> tuple[int, int]:
    """Clear the unpaid bills, oldest first, each one's interest before its principal; then the interest
    accrued since, then principal ahead of time. Return the interest and the principal paid.
    """
    left, interest_paise = amount_paise, 0
    if loan.bills_unpaid:
        for bill in loan.bills.filter(is_paid=False).order_by("number"):
            interest = min(left, bill.interest_paise - bill.interest_paid_paise)
            principal = min(left - interest, bill.principal_due_paise - bill.principal_paid_paise)
            bill.interest_paid_paise += interest
            bill.principal_paid_paise += principal
            bill.is_paid = (bill.interest_paid_paise, bill.principal_paid_paise) == (
                bill.interest_paise,
                bill.principal_due_paise,
            )
            bill.save(update_fields=("interest_paid_paise", "principal_paid_paise", "is_paid"))
            loan.bills_unpaid -= bill.is_paid
            interest_paise += interest
            left -= interest + principal
            if left == 0:
                break
    interest = min(left, loan.accrued_units // UNITS_PER_PAISA)
    loan.accrued_units -= interest * UNITS_PER_PAISA
    interest_paise += interest
    return interest_paise, amount_paise - interest_paise
