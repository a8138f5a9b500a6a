"""The start page: the book for those who run it, their own loans for borrowers."""

from __future__ import annotations

from ledgerd.http.console.visit import Answer, Page, Visit


async def show_home(visit: Visit) -> Answer:
    """GET /console/"""
    return Page("book.html" if visit.member.runs_the_book else "my_loans.html")
