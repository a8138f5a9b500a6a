"""Named reads and writes of the nightly billing runs, and of the clock that a database belongs to."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ledgerd.storage.ports import StoreError

_COLUMNS = "id, business_date, status, due, billed, failed, failed_loans, started_at_ms, ended_at_ms"
_FAILED_LOANS = 6  # its place


def interrupt_runs(connection: sqlite3.Connection, ended_at_ms: int) -> None:
    """Close the runs that a stop cut off."""
    connection.execute(
        "UPDATE billing_runs SET status = 'interrupted', ended_at_ms = ? WHERE status = 'running'",
        (ended_at_ms,),
    )


def begin_run(connection: sqlite3.Connection, run_id: int, business_date: int, started_at_ms: int) -> None:
    """Record that a run starts."""
    connection.execute(
        "INSERT INTO billing_runs (id, business_date, status, due, billed, failed, started_at_ms)"
        " VALUES (?, ?, 'running', 0, 0, 0, ?)",
        (run_id, business_date, started_at_ms),
    )


def save_run(
    connection: sqlite3.Connection,
    run_id: int,
    due: int,
    billed: int,
    failed: int,
    failed_loans: Sequence[int],
    status: str,
    ended_at_ms: int | None,
) -> None:
    """Record how far a run has come, or that it ended."""
    named = msgspec.json.encode(failed_loans).decode()
    connection.execute(
        "UPDATE billing_runs SET due = ?, billed = ?, failed = ?, failed_loans = ?, status = ?,"
        " ended_at_ms = ? WHERE id = ?",
        (due, billed, failed, named, status, ended_at_ms, run_id),
    )


def runs_before(connection: sqlite3.Connection, before_id: int, limit: int) -> list[list[Any]]:
    """Return up to `limit` runs older than `before_id`, newest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM billing_runs WHERE id < ? ORDER BY id DESC LIMIT ?", (before_id, limit)
    )
    return [_run(row) for row in rows]


def run_by_id(connection: sqlite3.Connection, run_id: int) -> list[Any] | None:
    """Return one run, or None."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM billing_runs WHERE id = ?", (run_id,)).fetchone()
    return _run(row) if row else None


def _run(row: Sequence[Any]) -> list[Any]:
    run = list(row)
    run[_FAILED_LOANS] = msgspec.json.decode(run[_FAILED_LOANS])
    return run


def last_completed_date(connection: sqlite3.Connection) -> int | None:
    """Return the latest business date of a run that completed and left no loan unbilled."""
    date: int | None = connection.execute(
        "SELECT max(business_date) FROM billing_runs WHERE status = 'completed' AND failed = 0"
    ).fetchone()[0]
    return date


def read_clock(connection: sqlite3.Connection) -> list[Any] | None:
    """Return [kind, day] of the clock that the database was last used with: "system" or "sandbox"; None for a
    new one. Raises StoreError when it is neither.
    """
    rows = dict(
        connection.execute("SELECT key, value FROM meta WHERE key IN ('clock_kind', 'business_date')")
    )
    if not rows:
        return None
    kind, day = rows.get("clock_kind"), rows.get("business_date")
    if kind not in {"system", "sandbox"} or not isinstance(day, int):
        raise StoreError(f"the clock of this database is damaged ({kind}, {day}): restore it from a backup")
    return [kind, day]


def check_clock(stored: list[Any] | None, *, sandbox: bool) -> None:
    """Raise StoreError when a database (what `read_clock` gave of it) belongs to the other clock."""
    if stored is not None and (stored[0] == "sandbox") != sandbox:
        advice = "leave [clock] sandbox_start empty" if sandbox else "set [clock] sandbox_start"
        raise StoreError(
            f"this database lives on the {stored[0]} clock: {advice}, or name another in [storage] url"
        )


def save_clock(connection: sqlite3.Connection, kind: str, day: int) -> None:
    """Record the business date. It never goes back, not even over a restart."""
    connection.executemany(
        "INSERT INTO meta (key, value) VALUES (?, ?)"
        " ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)",
        [("clock_kind", kind), ("business_date", day)],
    )


READS: dict[str, Callable[..., Any]] = {
    "runs_before": runs_before,
    "run_by_id": run_by_id,
    "last_completed_date": last_completed_date,
    "read_clock": read_clock,
}
WRITES: dict[str, Callable[..., Any]] = {
    "begin_run": begin_run,
    "interrupt_runs": interrupt_runs,
    "save_run": save_run,
    "save_clock": save_clock,
}
