"""Reads about the whole book, part by part, so that none of them holds up others for long."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

from ledgerd.domain.book import Book, Collected
from ledgerd.storage.projections import load_rows


def book_part(
    connection: sqlite3.Connection, after_id: int, limit: int, today: int
) -> tuple[Book, int | None]:
    """Return the sums over up to `limit` loans above `after_id`, as they stand on `today`, and the last one's
    id; None after the last of all.
    """
    ids = [
        row[0]
        for row in connection.execute(
            "SELECT id FROM loans WHERE id > ? ORDER BY id LIMIT ?", (after_id, limit)
        )
    ]
    book = Book()
    for row in load_rows(connection, ids).values():
        book.add(row.loan, today)
    return book, ids[-1] if len(ids) == limit else None


def collected_part(
    connection: sqlite3.Connection, after_seq: int, limit: int
) -> tuple[dict[int, Collected], int]:
    """Return what up to `limit` payments after the event `after_seq` come to, by day, and the last one's
    event. SQLite sums up to 9,223 of the largest amounts.
    """
    rows = connection.execute(
        "SELECT paid_on, count(*), sum(interest_paise), sum(principal_paise), max(seq) FROM"
        " (SELECT * FROM payments WHERE seq > ? ORDER BY seq LIMIT ?) GROUP BY paid_on",
        (after_seq, limit),
    ).fetchall()
    collected = {day: Collected(count, interest, principal) for day, count, interest, principal, _ in rows}
    return collected, max((row[-1] for row in rows), default=after_seq)


def payments_named(
    connection: sqlite3.Connection, transaction_id: str, before_seq: int, span: int
) -> tuple[list[list[Any]], int]:
    """Look through the payments among `span` events before `before_seq`: [seq, loan id] of those that have
    this transaction_id, newest first, and the first event that was looked at.
    """
    first_seq = max(1, before_seq - span)
    rows = connection.execute(
        "SELECT seq, loan_id FROM payments WHERE seq >= ? AND seq < ? AND transaction_id = ?"
        " ORDER BY seq DESC",
        (first_seq, before_seq, transaction_id),
    )
    return [list(row) for row in rows], first_seq


READS: dict[str, Callable[..., Any]] = {
    "book_part": book_part,
    "collected_part": collected_part,
    "payments_named": payments_named,
}
