"""Finding a loan, a borrower or a payment by what somebody on the telephone can name.

What is looked for is posted, so that it stands in no address, log or history: it may be part of an identity.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from ledgerd.actors.messages import View
from ledgerd.domain.commands import payment_key
from ledgerd.http.bodies import is_transaction_id
from ledgerd.http.console.visit import Answer, Form, Page, Redirect, Visit
from ledgerd.http.person import email_key
from ledgerd.http.services import Services
from ledgerd.ids import format_id, parse_id

FOUND_MAX: Final = 50
CLIENTS_MAX: Final = 1000
EVENTS_A_READ: Final = 50_000
_LAST_FOUR: Final = re.compile(r"[0-9]{4}", re.ASCII)


class SearchForm(Form):
    """What is looked for."""

    q: str = ""


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that was found, and its page."""

    what: str
    name: str
    address: str


async def show_search(_visit: Visit) -> Answer:
    """GET /console/search/"""
    return Page("search.html", {"asked": "", "found": None, "note": ""})


async def search(visit: Visit) -> Answer:
    """POST /console/search/"""
    form: SearchForm = visit.form
    asked = form.q.strip()
    if not asked:
        return await show_search(visit)
    services = visit.services
    note = ""
    found = await _by_id(services, asked)
    if not found and "@" in asked:
        found = await _by_email(services, asked)
    if not found and _LAST_FOUR.fullmatch(asked):
        found = await _by_last_four(services, asked)
        if len(found) > FOUND_MAX:
            found, note = found[:FOUND_MAX], f"More than {FOUND_MAX} borrowers end so: these are the first."
    if not found and is_transaction_id(asked):
        found, note = await _by_transaction_id(services, asked)
    if len(found) == 1 and not note:
        return Redirect(found[0].address)
    return Page("search.html", {"asked": asked, "found": found, "note": note})


async def _by_id(services: Services, text: str) -> list[Found]:
    number = parse_id(text)
    if number is None:
        return []
    if isinstance(await services.registry.ask(number, None, None), View):
        return [_loan(number)]
    user = await services.accounts.user(number)
    return [] if user is None else [_borrower(number, user.name)]


async def _by_email(services: Services, text: str) -> list[Found]:
    known = await services.store.read("user_for_login", None, email_key(text))
    return [] if known is None else [_borrower(known["user_id"], text)]


async def _by_last_four(services: Services, text: str) -> list[Found]:
    users = await services.store.read("users_by_last_four", text, FOUND_MAX + 1)
    return [_borrower(user_id, name) for user_id, name in users]


async def _by_transaction_id(services: Services, text: str) -> tuple[list[Found], str]:
    """Look for a payment: at every client by its key, whatever its age, and at borrowers by looking through
    payments, newest first, up to `search_rows`.
    """
    store = services.store
    loan_ids: dict[int, int] = {}  # by the payment's event
    notes = []
    client_ids = await store.read("client_ids", CLIENTS_MAX + 1)
    if len(client_ids) > CLIENTS_MAX:
        notes.append(f"Of clients, the newest {CLIENTS_MAX} were asked by key.")
    for client_id in client_ids[:CLIENTS_MAX]:
        owner = await store.read("owner_of", payment_key(f"c:{format_id(client_id)}", text))
        if owner is not None:
            loan_ids[owner.seq] = owner.loan_id
    head_seq = services.registry.committer.head_seq
    await store.project_through(head_seq)
    rows_max = services.config.console.search_rows
    before_seq, last_seq = head_seq + 1, max(1, head_seq + 1 - rows_max)
    while before_seq > last_seq and len(loan_ids) <= FOUND_MAX:
        span = min(EVENTS_A_READ, before_seq - last_seq)
        rows, before_seq = await store.read("payments_named", text, before_seq, span)
        loan_ids.update(rows)
    if len(loan_ids) > FOUND_MAX:
        notes.append(f"There are more: these are the newest {FOUND_MAX}.")
    elif before_seq > 1:
        notes.append(f"Payments of borrowers were looked for among the newest {rows_max} events alone.")
    found = [_payment(text, seq, loan_id) for seq, loan_id in sorted(loan_ids.items(), reverse=True)]
    return found[:FOUND_MAX], " ".join(notes)


def _loan(loan_id: int) -> Found:
    return Found("Loan", format_id(loan_id), f"/console/loans/{format_id(loan_id)}/")


def _borrower(user_id: int, name: str) -> Found:
    return Found("Borrower", name, f"/console/borrowers/{format_id(user_id)}/")


def _payment(transaction_id: str, seq: int, loan_id: int) -> Found:
    name = f"{transaction_id}, event {seq}, to loan {format_id(loan_id)}"
    return Found("Payment", name, f"/console/loans/{format_id(loan_id)}/")
