"""A loan's statement to print, and as CSV to keep: for its borrower, and for those who run the book."""

from __future__ import annotations

import csv
import io
from typing import Any, Final

from ledgerd.http import loans, payloads
from ledgerd.http.console.visit import Answer, Download, Inner, Page, Visit

PAYMENTS_A_READ: Final = 500
PAYMENTS_MAX: Final = 10_000
_COLUMNS: Final = (
    "date",
    "recorded_at",
    "payment_id",
    "transaction_id",
    "amount_paid",
    "interest",
    "principal",
)


async def show_statement(visit: Visit) -> Answer:
    """GET /console/loans/{loan_id}/statement/"""
    statement, is_whole = await _whole(visit)
    loan = (await loans.get_loan(visit.services, Inner(visit.caller, path=visit.path))).body
    values = {"statement": statement, "loan": loan, "is_whole": is_whole}
    return Page("statement.html", values)


async def download_statement(visit: Visit) -> Answer:
    """GET /console/loans/{loan_id}/statement.csv: payments, newest first."""
    statement, _ = await _whole(visit)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(_COLUMNS)
    for payment in statement.past_transactions:
        row: dict[str, Any] = {name: getattr(payment, name) for name in _COLUMNS}
        # It may begin with - : a spreadsheet would compute it.
        row["transaction_id"] = _no_formula(payment.transaction_id)
        writer.writerow(row.values())
    name = f"statement-{statement.loan_id}-{statement.as_of}.csv"
    return Download(text.getvalue().encode(), "text/csv; charset=utf-8", name)


def _no_formula(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


async def _whole(visit: Visit) -> tuple[payloads.Statement, bool]:
    """Return the statement with its payments of all pages, as far as they are bounded, and whether that is
    all of them. Payments that come meanwhile would be newer than its first page: they are not in it.
    """
    whole: payloads.Statement | None = None
    cursor: str | None = ""
    while cursor is not None and (whole is None or len(whole.past_transactions) < PAYMENTS_MAX):
        query = {"loan_id": visit.path["loan_id"], "limit": str(PAYMENTS_A_READ)}
        if cursor:
            query["cursor"] = cursor
        page = (await loans.get_statement(visit.services, Inner(visit.caller, query=query))).body
        assert isinstance(page, payloads.Statement)
        if whole is None:
            whole = page
        else:
            whole.past_transactions += page.past_transactions
        cursor = page.next_cursor
    assert whole is not None
    return whole, cursor is None
