"""Reads about loans: pages of payments, issued bills, lists of loans, and loans that fall due.

Each merges two sources: the loan's events that are not projected yet (taken first), and the rows (read
second). `through` is the version that the asking actor's answer speaks of: what is newer is left out, what
both sources show is shown once.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from ledgerd.domain.events import BillIssued, PaymentRecorded, decode_event
from ledgerd.storage.ports import StoredEvent
from ledgerd.storage.projections import payment_values

# Follows the pointers from one payment to the loan's payment before it.
_SELECT_PAGE = """
WITH RECURSIVE page (seq, place) AS (
    SELECT ?, 1
    UNION ALL
    SELECT payments.previous_seq, place + 1 FROM page JOIN payments ON payments.seq = page.seq
    WHERE payments.previous_seq IS NOT NULL AND place < ?
)
SELECT payments.* FROM page JOIN payments ON payments.seq = page.seq ORDER BY place
"""

_VERSION = 2  # the place of `version` in a row of payments


def payments_page(
    connection: sqlite3.Connection,
    tail: Sequence[StoredEvent],
    loan_id: int,
    through: int,
    before_seq: int | None,
    limit: int,
) -> list[Any] | None:
    """Return up to `limit` rows of payments, newest first, older than the payment `before_seq`; None when
    that is not this loan's.
    """
    owner = None
    if before_seq is not None:
        owner = connection.execute(
            "SELECT loan_id, previous_seq FROM payments WHERE seq = ?", (before_seq,)
        ).fetchone()
        known = owner[0] == loan_id if owner else any(event.seq == before_seq for event in tail)
        if not known:
            return None
    page = _tail_payments(tail, through, before_seq)
    if owner is not None:
        start = owner[1]
    else:
        row = connection.execute("SELECT last_payment_seq FROM loans WHERE id = ?", (loan_id,)).fetchone()
        start = row[0] if row else None
    first_in_tail = page[-1][0] if page else None
    while start is not None and len(page) < limit:
        rows = connection.execute(_SELECT_PAGE, (start, limit)).fetchall()
        page += [
            list(r)
            for r in rows
            if r[_VERSION] <= through and (first_in_tail is None or r[0] < first_in_tail)
        ]
        start = rows[-1][3] if rows else None
    return page[:limit]


def _tail_payments(tail: Sequence[StoredEvent], through: int, before_seq: int | None) -> list[Any]:
    found: list[Any] = []
    for stored in reversed(tail):
        if stored.version > through or (before_seq is not None and stored.seq >= before_seq):
            continue
        event = decode_event(stored.body)
        if isinstance(event, PaymentRecorded):
            found.append(list(payment_values(stored, event, None)))
    return found


def issued_bills(
    connection: sqlite3.Connection, tail: Sequence[StoredEvent], loan_id: int, through: int
) -> list[BillIssued]:
    """Return every bill of the loan that was issued, oldest first, as it was issued."""
    bills = {
        row[0]: BillIssued(*row)
        for row in connection.execute(
            "SELECT number, billing_date, interest_paise, principal_due_paise, past_due_paise FROM bills"
            " WHERE loan_id = ? ORDER BY number",
            (loan_id,),
        )
    }
    for stored in tail:
        event = decode_event(stored.body)
        if isinstance(event, BillIssued) and stored.version <= through:
            bills[event.number] = event
    return list(bills.values())


def loans_after(
    connection: sqlite3.Connection, borrower_id: int | None, after_id: int, limit: int
) -> list[int]:
    """Return up to `limit` loan ids above `after_id`, of one borrower or of all."""
    if borrower_id is None:
        rows = connection.execute("SELECT id FROM loans WHERE id > ? ORDER BY id LIMIT ?", (after_id, limit))
    else:
        rows = connection.execute(
            "SELECT id FROM loans WHERE borrower_id = ? AND id > ? ORDER BY id LIMIT ?",
            (borrower_id, after_id, limit),
        )
    return [row[0] for row in rows]


def loans_due(
    connection: sqlite3.Connection, through: int, after_day: int, after_id: int, limit: int
) -> list[list[int]]:
    """Return up to `limit` [next_billing, loan id] that fall due up to the day `through`, after the given
    pair, in order.
    """
    rows = connection.execute(
        "SELECT next_billing, id FROM loans WHERE next_billing IS NOT NULL AND next_billing <= ?"
        " AND (next_billing, id) > (?, ?) ORDER BY next_billing, id LIMIT ?",
        (through, after_day, after_id, limit),
    )
    return [list(row) for row in rows]


def count_due(connection: sqlite3.Connection, through: int) -> int:
    """Return how many loans fall due up to the day `through`, from the index alone."""
    count: int = connection.execute(
        "SELECT count(*) FROM loans WHERE next_billing IS NOT NULL AND next_billing <= ?", (through,)
    ).fetchone()[0]
    return count


READS: dict[str, Callable[..., Any]] = {
    "loans_after": loans_after,
    "loans_due": loans_due,
    "count_due": count_due,
}


# These see the tail of the loan that is their first parameter.
MERGED_READS: dict[str, Callable[..., Any]] = {"payments_page": payments_page, "issued_bills": issued_bills}
