"""The book at a glance: sums over all loans and payments, counted part by part while somebody looks.

Payments are only ever added, so each is counted once. Loans are counted anew when the sums are older than
`book_refresh_s`, and no more often than makes it a twentieth of the time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from datetime import date
from typing import Any, Final

from ledgerd.domain.book import AGES, IN_TIME, Aged, Book, Collected
from ledgerd.domain.calendar import format_day
from ledgerd.domain.money import rupees
from ledgerd.http.console.visit import Answer, Page, Visit
from ledgerd.http.problems import Problem
from ledgerd.http.services import Services
from ledgerd.observe import log

LOANS_A_READ: Final = 200
PAYMENTS_A_READ: Final = 5000
LOOK_S: Final = 0.5  # how long a page waits for the sums
REST: Final = 20  # a count is followed by so many times its time without one
SPANS_DAYS: Final = (30, 90, 365)
_DAY_S: Final = 86_400
_EPOCH: Final = date(1970, 1, 1).toordinal()


class Bookkeeper:
    """Keeps the sums of one service. `book` is None until they were counted once; `today` is their date."""

    def __init__(self) -> None:
        self.book: Book | None = None
        self.today = 0
        self.through_seq = 0  # the last event whose payment is counted
        self.collected: dict[int, Collected] = {}
        self._next_at_s = 0.0  # by the monotonic clock
        self._counting: asyncio.Task[None] | None = None

    async def look(self, services: Services) -> None:
        """Have the sums counted when they are old, and wait for a moment: a small book is counted by then."""
        today = services.clock.today()
        is_old = time.monotonic() >= self._next_at_s or self.today != today
        if self._counting is None and is_old:
            self._counting = asyncio.get_running_loop().create_task(self._count(services, today))
        if self._counting is not None:
            await asyncio.wait([self._counting], timeout=LOOK_S)

    async def _count(self, services: Services, today: int) -> None:
        started_s = time.monotonic()
        try:
            # What was answered before somebody looks is in the sums.
            await services.store.project_through(services.registry.committer.head_seq)
            await self._count_payments(services)
            self.book, self.today = await self._count_loans(services, today), today
        except Exception as error:  # noqa: BLE001 - the page shows older sums, or none
            log.error("the book could not be counted", exc_info=error)
        finally:
            took_s = time.monotonic() - started_s
            self._next_at_s = time.monotonic() + max(services.config.console.book_refresh_s, REST * took_s)
            self._counting = None

    async def _count_payments(self, services: Services) -> None:
        while True:
            part, last_seq = await services.store.read("collected_part", self.through_seq, PAYMENTS_A_READ)
            for day, more in part.items():
                collected = self.collected.setdefault(day, Collected())
                collected.payments += more.payments
                collected.interest_paise += more.interest_paise
                collected.principal_paise += more.principal_paise
            if last_seq == self.through_seq:
                return
            self.through_seq = last_seq

    @staticmethod
    async def _count_loans(services: Services, today: int) -> Book:
        book, after_id = Book(), 0
        while after_id is not None:
            part, after_id = await services.store.read("book_part", after_id, LOANS_A_READ, today)
            book.join(part)
        return book

    async def keeping(self, _app: object) -> AsyncIterator[None]:
        """Stop counting with the application: for `cleanup_ctx`."""
        yield
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)


# Pages -------------------------------------------------------------------------------------------


async def show_book(visit: Visit) -> Answer:
    """GET /console/, for those who run the book."""
    return Page("book.html", await _values(visit))


async def show_sums(visit: Visit) -> Answer:
    """GET /console/book/, the part of the page that is fetched again until it is counted."""
    return Page("book_sums.html", await _values(visit))


async def _values(visit: Visit) -> dict[str, Any]:
    days = _span(visit.query)
    keeper = visit.parts.bookkeeper
    await keeper.look(visit.services)
    values: dict[str, Any] = {"days": days, "spans": SPANS_DAYS, "book": None}
    if keeper.book is not None:
        book = keeper.book
        received_paise = book.principal_received_paise + book.interest_received_paise
        values |= {
            "book": book,
            "as_of": format_day(keeper.today),
            "sums": {
                "disbursed": rupees(book.disbursed_paise),
                "principal": rupees(book.principal_paise),
                "interest": rupees(book.interest_paise),
                "collected": rupees(received_paise),
                "earned": rupees(book.interest_received_paise),
            },
            "ages": _ages(book),
            "pictures": pictures(book, keeper.collected, keeper.today, days),
        }
    return values


def _span(query: Mapping[str, str]) -> int:
    text = query.get("days", str(SPANS_DAYS[0]))
    if text not in map(str, SPANS_DAYS):
        raise Problem("not-found", f"There are pictures of {', '.join(map(str, SPANS_DAYS))} days.")
    return int(text)


def _ages(book: Book) -> list[dict[str, Any]]:
    """Each age, the youngest first: what it is called, its days past due, and what its loans owe."""
    firsts = [0, *(first for first, _ in AGES)]
    lasts = [*(first - 1 for first, _ in AGES), None]
    shown = []
    for name, first, last in zip([IN_TIME, *(name for _, name in AGES)], firsts, lasts, strict=True):
        aged = book.ages.get(name, Aged())
        days = "none" if last == 0 else f"{first} to {last}" if last else f"{first} and more"
        shown.append(
            {
                "name": name,
                "days": days,
                "loans": aged.loans,
                "outstanding": rupees(aged.outstanding_paise),
                "past_due": rupees(aged.past_due_paise),
            }
        )
    return shown


def pictures(book: Book, collected: dict[int, Collected], today: int, days: int) -> list[dict[str, Any]]:
    """Return what is drawn of the last `days`: what was lent and collected each day, and the principal
    outstanding at each day's end.
    """
    span = range(today - days + 1, today + 1)
    none = Collected()
    outstanding, principal_paise = [], book.principal_paise
    for day in reversed(span):
        outstanding.append(principal_paise / 100)
        principal_paise += collected.get(day, none).principal_paise - book.disbursed_on.get(day, 0)
    x = [(day - _EPOCH) * _DAY_S for day in span]
    lent = [book.disbursed_on.get(day, 0) / 100 for day in span]
    paid = [collected.get(day, none).amount_paise / 100 for day in span]
    return [
        {
            "x": x,
            "unit": "rupees",
            "series": [
                {"label": "Disbursed", "kind": "bars", "values": lent},
                {"label": "Collected", "kind": "line", "values": paid},
            ],
        },
        {
            "x": x,
            "unit": "rupees",
            "series": [{"label": "Principal outstanding", "kind": "line", "values": outstanding[::-1]}],
        },
    ]
