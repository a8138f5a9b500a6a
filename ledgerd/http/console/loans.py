"""Lists of loans for those who run the book: all of them, and a borrower's."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from ledgerd.actors.messages import View
from ledgerd.http import loans, payloads, people, present
from ledgerd.http.bodies import bad_cursor
from ledgerd.http.console.visit import Answer, Inner, Page, Visit
from ledgerd.http.problems import Problem
from ledgerd.ids import format_id, parse_id

LOANS_A_PAGE: Final = 50


async def show_loans(visit: Visit) -> Answer:
    """GET /console/loans/"""
    query = {"limit": str(LOANS_A_PAGE), **visit.query}
    listed = (await loans.list_loans(visit.services, Inner(visit.caller, query=query))).body
    assert isinstance(listed, payloads.LoanList)
    return Page("loans.html", {"loans": listed.loans, "next_cursor": listed.next_cursor})


async def show_borrower(visit: Visit) -> Answer:
    """GET /console/borrowers/{user_id}/"""
    user_id = parse_id(visit.path["user_id"])
    user = None if user_id is None else await visit.services.accounts.user(user_id)
    if user is None:
        raise Problem("not-found", "There is no such borrower.")
    after_id = parse_id(visit.query.get("cursor", format_id(0)))
    if after_id is None:
        raise bad_cursor()
    read, ask = visit.services.store.read, visit.services.registry.ask
    ids = await read("loans_after", user_id, after_id, LOANS_A_PAGE + 1)
    page = ids[:LOANS_A_PAGE]
    views = await asyncio.gather(*(ask(loan_id, None, None) for loan_id in page))
    values: dict[str, Any] = {
        "user": people.user_shown(user),
        "loans": [present.loan_summary(view) for view in views if isinstance(view, View)],
        "next_cursor": format_id(page[-1]) if len(ids) > LOANS_A_PAGE else None,
    }
    return Page("borrower.html", values)
