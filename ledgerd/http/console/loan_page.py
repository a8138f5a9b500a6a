"""The page of one loan: how it stands, its life as a picture, and why each figure is what it is.

Made of what the API answers about it, so that both always say the same.
"""

from __future__ import annotations

from typing import Final

from ledgerd.http import loans, payloads
from ledgerd.http.console.visit import Answer, Inner, Page, Visit

PAYMENTS_A_PAGE: Final = 500


async def show_loan(visit: Visit) -> Answer:
    """GET /console/loans/{loan_id}/"""
    loan_id = visit.path["loan_id"]
    query = {"loan_id": loan_id, "limit": str(PAYMENTS_A_PAGE)}
    loan = (await loans.get_loan(visit.services, Inner(visit.caller, path={"loan_id": loan_id}))).body
    statement = (await loans.get_statement(visit.services, Inner(visit.caller, query=query))).body
    assert isinstance(loan, payloads.LoanShown)
    assert isinstance(statement, payloads.Statement)
    return Page("loan.html", {"loan": loan, "statement": statement})
