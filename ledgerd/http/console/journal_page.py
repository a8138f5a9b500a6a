"""The journal of one loan for those who run the book: every event as it was written, with its version and its
place in the chain of hashes, which is computed again here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, assert_never

from ledgerd.domain.calendar import format_day
from ledgerd.domain.events import BillIssued, LoanDisbursed, PaymentRecorded, decode_event
from ledgerd.domain.money import format_hundredths, rupees
from ledgerd.http import loans
from ledgerd.http.console.visit import Answer, Inner, Page, Visit
from ledgerd.http.present import instant
from ledgerd.storage.chain import GENESIS, event_hash
from ledgerd.storage.ports import Store, StoredEvent

ROWS_A_READ: Final = 20_000
EVENTS_SHOWN_MAX: Final = 2000


@dataclass(frozen=True, slots=True)
class Line:
    """One event for a reader. `holds`: its hash follows from its content and the hash before it."""

    version: int
    seq: int
    day: str
    what: str
    amount: str
    recorded_at: str  # "" for bills, which follow from dates alone
    hash: str
    holds: bool


async def show_journal(visit: Visit) -> Answer:
    """GET /console/loans/{loan_id}/journal/"""
    services = visit.services
    view = await loans.view(services, Inner(visit.caller), visit.path["loan_id"])
    head_seq = services.registry.committer.head_seq
    events, looked_at = await loan_events(
        services.store, view.loan_id, head_seq, services.config.console.journal_rows
    )
    values = {
        "loan_id": visit.path["loan_id"],
        "version": view.version,
        "lines": [*reversed(lines(events))][:EVENTS_SHOWN_MAX],
        "found": len(events),
        "whole": bool(events) and events[0].version == 1,
        "looked_at": looked_at,
    }
    return Page("journal.html", values)


async def loan_events(
    store: Store, loan_id: int, head_seq: int, rows_max: int
) -> tuple[list[StoredEvent], int]:
    """Return the loan's events, oldest first, and how many of the journal's were looked through: newest
    first, until its first one is found or `rows_max` are.
    """
    found: list[StoredEvent] = []
    before_seq, last_seq = head_seq + 1, max(1, head_seq + 1 - rows_max)
    while before_seq > last_seq and not (found and found[0].version == 1):
        rows = min(ROWS_A_READ, before_seq - last_seq)
        events, before_seq = await store.read("events_of", loan_id, before_seq, rows)
        found[:0] = events
    return found, head_seq + 1 - before_seq


def lines(events: list[StoredEvent]) -> list[Line]:
    """Show events, oldest first. Where the first of them is not the loan's first, its own hash is taken on
    trust.
    """
    shown = []
    previous = GENESIS if events and events[0].version == 1 else None
    for stored in events:
        holds = previous is None or stored.hash == event_hash(
            previous, stored.loan_id, stored.version, stored.once_key, stored.body
        )
        shown.append(_line(stored, holds=holds))
        previous = stored.hash
    return shown


def _line(stored: StoredEvent, *, holds: bool) -> Line:
    event = decode_event(stored.body)
    recorded_at = ""
    match event:
        case LoanDisbursed(_, terms, recorded_at_ms):
            day, amount_paise, recorded_at = terms.disbursed_on, terms.amount_paise, instant(recorded_at_ms)
            apr = format_hundredths(terms.apr_hundredths)
            what = f"disbursed at {apr} % a year over {terms.tenure} cycles, plan {terms.plan}"
        case BillIssued():
            day, amount_paise = event.billing_date, event.min_due_paise
            what = (
                f"bill {event.number}: interest {rupees(event.interest_paise)}, principal"
                f" {rupees(event.principal_due_paise)}; past due {rupees(event.past_due_paise)}"
            )
        case PaymentRecorded():
            day, amount_paise, recorded_at = event.paid_on, event.amount_paise, instant(event.recorded_at_ms)
            what = (
                f"paid as {event.transaction_id} by {event.caller}: interest"
                f" {rupees(event.interest_paise)}, principal {rupees(event.principal_paise)}"
            )
        case _:
            assert_never(event)
    return Line(
        version=stored.version,
        seq=stored.seq,
        day=format_day(day),
        what=what,
        amount=rupees(amount_paise),
        recorded_at=recorded_at,
        hash=stored.hash.hex(),
        holds=holds,
    )
