"""Handlers for those who run the service: billing runs, the sandbox's clock, health, metrics, documents."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET

from ledgerd.clock import SandboxClock
from ledgerd.domain.calendar import format_day
from ledgerd.http import payloads
from ledgerd.http.bodies import FieldErrors, bad_cursor, business_date, page_limit
from ledgerd.http.present import instant
from ledgerd.http.problems import Problem
from ledgerd.http.route import Call, Reply
from ledgerd.http.services import Services
from ledgerd.ids import format_id, parse_id
from ledgerd.metrics import METRICS_CONTENT_TYPE
from ledgerd.storage.ports import StoreError

DAYS_MAX = 3660
HEAR_S = 0.5  # how long a scrape waits for the store
LAST_DAY = 3_600_000  # in the year 9857: room for every due date that a loan could have


async def start_billing_run(services: Services, call: Call) -> Reply:
    """POST /api/billing-runs/"""
    body: payloads.StartBillingRun = call.body
    today = await services.clock.turn()
    through = today if body.date is None else business_date("date", body.date)
    if through > today:
        raise Problem("date-in-future", f"Today's business date is {format_day(today)}.")
    services.registry.room.check()
    row, ended = await services.billing.start(through)
    shown = run_shown(row)
    if ended:
        return Reply(200, shown)
    return Reply(202, shown, {"Location": f"/api/billing-runs/{shown.run_id}/"})


async def list_billing_runs(services: Services, call: Call) -> Reply:
    """GET /api/billing-runs/"""
    limit = page_limit(call.query)
    cursor = call.query.get("cursor")
    before_id = 2**63 - 1 if cursor is None else parse_id(cursor)
    if before_id is None:
        raise bad_cursor()
    rows = await services.store.read("runs_before", before_id, limit + 1)
    page = rows[:limit]
    cursor = format_id(page[-1][0]) if len(rows) > limit else None
    return Reply(200, payloads.BillingRunList([run_shown(row) for row in page], cursor))


async def get_billing_run(services: Services, call: Call) -> Reply:
    """GET /api/billing-runs/{run_id}/"""
    run_id = parse_id(call.path["run_id"])
    row = None if run_id is None else await services.store.read("run_by_id", run_id)
    if row is None:
        raise Problem("not-found", "There is no such billing run.")
    return Reply(200, run_shown(row))


async def advance_clock(services: Services, call: Call) -> Reply:
    """POST /api/sandbox/advance-clock/"""
    body: payloads.AdvanceClock = call.body
    assert isinstance(services.clock, SandboxClock)
    errors = FieldErrors()
    if (body.days is UNSET) == (body.to is UNSET):
        errors.add("days", "send either days or to")
        errors.check()
    today = services.clock.today()
    days = body.days if isinstance(body.days, int) else 0
    to = 0 if days else business_date("to", str(body.to))
    if to and not 1 <= to - today <= DAYS_MAX:
        errors.add("to", f"must be 1 to {DAYS_MAX} days after {format_day(today)}")
    elif max(to, today + days) > LAST_DAY:
        errors.add("days" if days else "to", "is past the end of the calendar")
    errors.check()
    services.registry.room.check()
    rows = await services.billing.advance(days=days, to=to)
    shown = [run_shown(row) for row in rows]
    return Reply(200, payloads.ClockAdvanced(format_day(services.clock.today()), shown))


def run_shown(row: list[Any]) -> payloads.BillingRunShown:
    """Show a row of billing_runs."""
    run_id, business_day, status, due, billed, failed, failed_loans, started_at_ms, ended_at_ms = row
    return payloads.BillingRunShown(
        run_id=format_id(run_id),
        business_date=format_day(business_day),
        due=due,
        billed=billed,
        failed=failed,
        failed_loans=[format_id(loan_id) for loan_id in failed_loans],
        status=status,
        started_at=instant(started_at_ms),
        seconds=None if ended_at_ms is None else (ended_at_ms - started_at_ms) / 1000,
    )


# Health and documents ------------------------------------------------------------------------------


async def livez(_services: Services, _call: Call) -> Reply:
    """GET /livez"""
    return Reply(200, payloads.Health("alive"))


async def readyz(services: Services, _call: Call) -> Reply:
    """GET /readyz"""
    if services.draining or not services.ready:
        raise Problem("draining", "Starting or stopping.", {}, {"Retry-After": "1"})
    return Reply(200, payloads.Health("ready"))


async def metrics(services: Services, _call: Call) -> Reply:
    """GET /metrics"""
    await hear_how_far_tables_are(services)
    _set_gauges(services)
    return Reply(200, services.metrics.render(), content_type=METRICS_CONTENT_TYPE)


async def hear_how_far_tables_are(services: Services) -> None:
    """While nobody pays, no reply to an append says it. A store that stalls holds up no scrape."""
    with suppress(TimeoutError, StoreError):
        async with asyncio.timeout(HEAR_S):
            services.registry.committer.hear_projected(await services.store.project_through(0))


def _set_gauges(services: Services) -> None:
    gauges, registry, storage = services.metrics, services.registry, services.config.storage
    committer = registry.committer
    gauges.in_flight.set(registry.in_flight)
    gauges.mailbox_deepest.set(registry.deepest)
    gauges.resident_loans.set(registry.resident)
    gauges.writer_queue_entries.set(committer.queued)
    gauges.writer_in_flight_entries.set(committer.on_their_way)
    gauges.journal_head_seq.set(committer.head_seq)
    gauges.projected_seq.set(committer.projected_seq)
    gauges.projection_lag_events.set(committer.lag_events)
    for file, path in (("journal", storage.journal_path), ("tables", storage.tables_path)):
        if path is not None:
            gauges.database_bytes[file].set(_size_bytes(path))
            gauges.wal_bytes[file].set(_size_bytes(path.with_name(f"{path.name}-wal")))
    room = registry.room
    if room.free_bytes is not None:
        gauges.disk_free_bytes.set(room.free_bytes)
    gauges.disk_reserve_bytes.set(room.reserve_bytes)
    gauges.storage_full.set(room.is_short)
    run = services.billing.latest()
    if run is not None:
        _, _, status, due, billed, failed, *_ = run
        gauges.billing_running.set(status == "running")
        gauges.billing_run_loans["due"].set(due)
        gauges.billing_run_loans["billed"].set(billed)
        gauges.billing_run_loans["failed"].set(failed)


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


async def jwks(services: Services, _call: Call) -> Reply:
    """GET /.well-known/jwks.json"""
    return Reply(200, msgspec.json.encode(services.tokens.jwks()))
