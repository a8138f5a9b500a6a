"""The start page: the book for those who run it, their own loans for borrowers."""

from __future__ import annotations

from ledgerd.http import loans, payloads, people, people_payloads
from ledgerd.http.console.book import show_book
from ledgerd.http.console.visit import Answer, Inner, Page, Visit

LOANS_A_PAGE = 50


async def show_home(visit: Visit) -> Answer:
    """GET /console/"""
    return await (show_book if visit.member.runs_the_book else _show_my_loans)(visit)


async def _show_my_loans(visit: Visit) -> Answer:
    query = {"limit": str(LOANS_A_PAGE), **visit.query}
    user = (await people.me(visit.services, Inner(visit.caller))).body
    listed = (await loans.list_loans(visit.services, Inner(visit.caller, query=query))).body
    assert isinstance(user, people_payloads.UserShown)
    assert isinstance(listed, payloads.LoanList)
    return Page("my_loans.html", {"user": user, "loans": listed.loans, "next_cursor": listed.next_cursor})
