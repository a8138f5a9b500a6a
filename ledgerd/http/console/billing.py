"""Billing and what else runs by itself: how today's run goes, runs and what failed, imports of bank history,
and, in a sandbox, its clock.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, Final

import msgspec

from ledgerd.domain.calendar import format_day
from ledgerd.http import operations, payloads
from ledgerd.http.console.forms import NOT_REFUSED, Refused, refused
from ledgerd.http.console.visit import Answer, Form, Inner, Page, Redirect, Visit
from ledgerd.http.present import instant
from ledgerd.http.problems import Problem

RUNS_A_PAGE: Final = 30
IMPORTS_SHOWN: Final = 20
HERE: Final = "/console/billing/"


class BillForm(Form):
    """A run for a date; today's when it is empty."""

    date: str = ""


class ClockForm(Form):
    """How far to move the sandbox's date: so many days, or up to a date."""

    days: str = ""
    to: str = ""


async def show_billing(visit: Visit) -> Answer:
    """GET /console/billing/"""
    return await _page(visit)


async def show_progress(visit: Visit) -> Answer:
    """GET /console/billing/progress/, the part of the page that is fetched again while a run goes on."""
    return Page("billing_progress.html", {"run": _latest(visit), "has_ended": True})


async def start(visit: Visit) -> Answer:
    """POST /console/billing/"""
    form: BillForm = visit.form
    try:
        body = payloads.StartBillingRun(date=form.date.strip() or None)
        run = (await operations.start_billing_run(visit.services, Inner(visit.caller, body))).body
    except Problem as problem:
        return await _page(visit, bill=refused(problem), date=form.date)
    assert isinstance(run, payloads.BillingRunShown)
    return Redirect(f"{HERE}{run.run_id}/")


async def show_run(visit: Visit) -> Answer:
    """GET /console/billing/{run_id}/"""
    run = (await operations.get_billing_run(visit.services, Inner(visit.caller, path=visit.path))).body
    return Page("billing_run.html", {"run": run})


async def advance(visit: Visit) -> Answer:
    """POST /console/clock/"""
    form: ClockForm = visit.form
    fields: dict[str, Any] = {}
    days, to = form.days.strip(), form.to.strip()
    if days:
        fields["days"] = int(days) if days.isascii() and days.isdigit() and len(days) <= 6 else days
    if to:
        fields["to"] = to
    try:
        body = msgspec.convert(fields, payloads.AdvanceClock)
        await operations.advance_clock(visit.services, Inner(visit.caller, body))
    except msgspec.ValidationError:
        most = f"must be a whole number from 1 to {operations.DAYS_MAX}"
        return await _page(visit, clock=Refused("Some fields are not valid.", {"days": most}), moved=form)
    except Problem as problem:
        return await _page(visit, clock=refused(problem), moved=form)
    return Redirect(HERE)


async def _page(
    visit: Visit,
    bill: Refused = NOT_REFUSED,
    clock: Refused = NOT_REFUSED,
    date: str = "",
    moved: ClockForm | None = None,
) -> Page:
    services = visit.services
    query = {"limit": str(RUNS_A_PAGE), **visit.query}
    listed = (await operations.list_billing_runs(services, Inner(visit.caller, query=query))).body
    assert isinstance(listed, payloads.BillingRunList)
    imports = await services.store.read("latest_imports", IMPORTS_SHOWN)
    values = {
        "runs": listed.billing_runs,
        "next_cursor": listed.next_cursor,
        "run": _latest(visit),
        "has_ended": False,
        "cron": services.config.scheduler.billing_cron,
        "timezone": services.config.clock.timezone,
        "today": format_day(services.clock.today()),
        "imports": [_import(*row) for row in imports],
        "bill": bill,
        "clock": clock,
        "date": date,
        "moved": moved or ClockForm(),
    }
    return Page(
        "billing.html", values, max(bill.status if bill.text else 200, clock.status if clock.text else 200)
    )


def _latest(visit: Visit) -> payloads.BillingRunShown | None:
    row = visit.services.billing.latest()
    return None if row is None else operations.run_shown(row)


def _import(
    file_name: str, rows_imported: int, rows_rejected: int, started_at_ms: int, ended_at_ms: int | None
) -> dict[str, Any]:
    return {
        "file_name": PurePath(file_name).name,
        "rows_imported": rows_imported,
        "rows_rejected": rows_rejected,
        "started_at": instant(started_at_ms),
        "ended_at": None if ended_at_ms is None else instant(ended_at_ms),
    }
