"""What a statement says of the bills: frozen at issue, `paid` and `status` from the loan as it stands."""

from typing import Literal

import msgspec

from ledgerd.domain.events import BillIssued
from ledgerd.domain.loan import Loan


class StatementBill(msgspec.Struct, frozen=True, gc=False):
    """One issued bill, in paise and day numbers."""

    bill: BillIssued
    due_date: int
    paid_paise: int
    status: Literal["unpaid", "part_paid", "paid"]


def bills_of(loan: Loan, issued: list[BillIssued]) -> list[StatementBill]:
    """Show the bills that `loan` knows of: one that it doesn't hold as unpaid is paid, in whatever state its
    row is.
    """
    unpaid = {bill.number: bill.amount_paise for bill in loan.unpaid_bills}
    shown: list[StatementBill] = []
    for bill in issued:
        if bill.number > loan.bills_issued:
            continue
        asked_paise = unpaid.get(bill.number, 0)
        paid_paise = bill.min_due_paise - asked_paise
        status: Literal["unpaid", "part_paid", "paid"]
        status = "paid" if asked_paise == 0 else "unpaid" if paid_paise == 0 else "part_paid"
        shown.append(StatementBill(bill, loan.terms.due_date(bill.number), paid_paise, status))
    return shown
