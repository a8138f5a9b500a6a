"""The page of one loan: how it stands, its life as pictures, and why each figure is what it is.

Made of what the API answers about it, so that both always say the same.
"""

from __future__ import annotations

from datetime import date
from typing import Any, Final

from ledgerd.actors.messages import View
from ledgerd.domain.calendar import format_day
from ledgerd.domain.money import UNITS_PER_PAISA, format_thousandths, rupees
from ledgerd.http import loans, payloads, present
from ledgerd.http.console.visit import Answer, Inner, Page, Visit
from ledgerd.ids import format_id

PAYMENTS_A_PAGE: Final = 500
_DAY_S: Final = 86_400


async def show_loan(visit: Visit) -> Answer:
    """GET /console/loans/{loan_id}/"""
    loan_id = visit.path["loan_id"]
    query = {"loan_id": loan_id, "limit": str(PAYMENTS_A_PAGE)}
    if "cursor" in visit.query:
        query["cursor"] = visit.query["cursor"]
    view = await loans.view(visit.services, Inner(visit.caller), loan_id)
    statement = (await loans.get_statement(visit.services, Inner(visit.caller, query=query))).body
    assert isinstance(statement, payloads.Statement)
    values: dict[str, Any] = {
        "loan": present.loan_shown(view),
        "borrower_id": format_id(view.loan.borrower_id),
        "statement": statement,
        "first_page": "cursor" not in visit.query,
        "why": payoff_explained(view),
        "pictures": pictures(view, statement),
    }
    return Page("loan.html", values)


# Why is this number so? ----------------------------------------------------------------------------


def payoff_explained(view: View) -> list[tuple[str, str]]:
    """Return the payoff, step by step: what each is, and its figure. The last one is the payoff itself."""
    loan, today = view.loan, view.today
    days = max(0, today - loan.accrued_through)
    rate = format_thousandths(loan.terms.daily_rate_thousandths)
    since = format_day(loan.accrued_through)
    grown_units = loan.accrued_on(today) - loan.accrued_units
    steps = []
    if loan.accrued_units:
        steps.append((f"interest accrued up to {since} that no bill asks for", exact(loan.accrued_units)))
    if grown_units:
        principal = rupees(loan.principal_paise)
        steps.append((f"{principal} x {rate} % a day x {days} days since {since}", exact(grown_units)))
    if steps:
        whole = rupees(loan.accrued_on(today) // UNITS_PER_PAISA)
        steps.append(("together in whole paise; what is less goes on accruing", whole))
    if loan.billed_interest_paise:
        steps.append(("interest that unpaid bills ask for", rupees(loan.billed_interest_paise)))
    steps.extend(
        [
            ("principal outstanding, billed or not", rupees(loan.principal_paise)),
            ("what closes the loan today", rupees(loan.payoff_paise(today))),
        ]
    )
    return steps


def exact(units: int) -> str:
    """Show 1/100,000 paise as rupees, to the last digit that is not 0, and to two decimals at least."""
    whole, fraction = divmod(units, 100 * UNITS_PER_PAISA)
    digits = f"{fraction:07d}".rstrip("0").ljust(2, "0")
    return f"{whole}.{digits}"


# Pictures ----------------------------------------------------------------------------------------


def pictures(view: View, statement: payloads.Statement) -> list[dict[str, Any]]:
    """Return what is drawn: the balance over time, and bills and payments; as far back as the page's payments
    go.
    """
    principal = view.loan.principal_paise
    steps = [(view.today, principal)]
    for payment in statement.past_transactions:  # newest first
        steps.append((_day(payment.date), principal))
        principal += _paise(payment.principal)
    steps.append((view.loan.terms.disbursed_on if statement.next_cursor is None else steps[-1][0], principal))
    balance: dict[int, int] = {}
    for day, paise in steps:  # a day shows what it ended with, which comes first
        balance.setdefault(day, paise)
    billed = {_day(bill.billing_date): _paise(bill.min_due) for bill in statement.bills}
    paid: dict[int, int] = {}
    for payment in statement.past_transactions:
        paid[_day(payment.date)] = paid.get(_day(payment.date), 0) + _paise(payment.amount_paid)
    return [
        plot(("Principal outstanding", "steps", balance)),
        plot(("Bills", "bars", billed), ("Payments", "points", paid)),
    ]


def plot(*series: tuple[str, str, dict[int, int]]) -> dict[str, Any]:
    """Return what console.js draws: each series a label, a kind, and paise by day number."""
    days = sorted(set().union(*(values for _, _, values in series)))
    epoch = date(1970, 1, 1).toordinal()
    return {
        "x": [(day - epoch) * _DAY_S for day in days],
        "unit": "rupees",
        "series": [
            {
                "label": label,
                "kind": kind,
                "values": [values[day] / 100 if day in values else None for day in days],
            }
            for label, kind, values in series
        ],
    }


def _day(text: str) -> int:
    return date.fromisoformat(text).toordinal()


def _paise(text: str) -> int:
    return int(text.replace(".", ""))
