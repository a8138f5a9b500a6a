"""Handlers about loans: applying, looking at them, statements."""

from __future__ import annotations

import asyncio

from ledgerd.actors.messages import Accepted, Replayed, View
from ledgerd.domain.calendar import format_day
from ledgerd.domain.commands import Disburse, Rejection, repeats
from ledgerd.domain.eligibility import Reason, reasons_against
from ledgerd.domain.events import BillIssued, Event, LoanDisbursed, Terms, decode_event
from ledgerd.domain.loan import evolve
from ledgerd.domain.money import daily_rate, rupees
from ledgerd.http import payloads, present
from ledgerd.http.bodies import FieldErrors, bad_cursor, decimal_literal, is_transaction_id, page_limit
from ledgerd.http.endpoint import storage_full
from ledgerd.http.problems import Problem
from ledgerd.http.route import Call, Reply
from ledgerd.http.services import Services
from ledgerd.http.tokens import Caller
from ledgerd.ids import format_id, parse_id
from ledgerd.storage.ports import StoredEvent

KEY_CONFLICT = "This Idempotency-Key was used with another body."


def loan_not_found() -> Problem:
    """The problem of a loan that is not there, or not the caller's: the same to the letter."""
    return Problem("loan-not-found", "There is no such loan.")


async def apply_loan(services: Services, call: Call) -> Reply:
    """POST /api/apply-loan/"""
    assert call.caller is not None
    terms, beyond = requested_terms(services, call.body)
    command = Disburse(call.caller.id, terms, services.clock.now_ms(), idempotency_key(call))
    if command.once_key is not None:
        owner = await services.store.read("owner_of", command.once_key)
        if owner is not None:  # first: a replay does not depend on today's score, nor on today's limits
            return await _replayed(services, command, owner)
    beyond.check()
    await check_eligible(services, call.caller, terms.amount_paise)
    loan_id = services.ids.new()
    answer = await services.registry.ask(loan_id, command, new=True)
    if isinstance(answer, Rejection):
        raise storage_full() if answer.code == "storage-full" else Problem(answer.code, KEY_CONFLICT)
    assert isinstance(answer, Accepted | Replayed)
    # Once it is in the tables, lists show the loan, and a cold load finds it, without a special case.
    await services.store.project_through(services.registry.committer.head_seq)
    call.loan_id = format_id(answer.loan_id)
    return _applied(answer.loan_id, answer.event, replayed=isinstance(answer, Replayed))


async def _replayed(services: Services, command: Disburse, owner: StoredEvent) -> Reply:
    """Answer an application from the event that has its key."""
    event = decode_event(owner.body)
    if not repeats(command, owner.loan_id, owner.loan_id, event):
        raise Problem("idempotency-key-conflict", KEY_CONFLICT)
    await services.store.project_through(owner.seq)  # as above: what is answered can be read
    return _applied(owner.loan_id, event, replayed=True)


def _applied(loan_id: int, event: Event | None, *, replayed: bool) -> Reply:
    assert isinstance(event, LoanDisbursed)
    shown = present.new_loan(loan_id, event, evolve(None, event))
    if replayed:
        return Reply(200, shown, {"Idempotent-Replayed": "true"})
    return Reply(201, shown, {"Location": f"/api/loans/{shown.loan_id}/"})


def idempotency_key(call: Call) -> str | None:
    """Read the Idempotency-Key header: the alphabet of a transaction_id, bare or in quotes."""
    sent = call.header("Idempotency-Key")
    if not sent:
        return None
    text = sent[0]
    if len(text) >= 2 and text[0] == text[-1] == '"':
        text = text[1:-1]
    if len(sent) > 1 or not is_transaction_id(text):
        errors = FieldErrors()
        errors.add("Idempotency-Key", "must be one header of 1 to 64 of A-Za-z0-9._:-")
        errors.check()
    return text


def requested_terms(services: Services, body: payloads.ApplyLoan) -> tuple[Terms, FieldErrors]:
    """Check an application's shape; return the terms that it asks for, from today, and what of them is beyond
    this lender's limits.
    """
    lending = services.config.lending
    errors = FieldErrors()
    amount_paise = errors.rupees("amount", body.amount)
    apr = decimal_literal(body.interest_rate)
    if apr is None or apr > lending.max_apr_hundredths:
        errors.add("interest_rate", f"must be 0.00 to {lending.max_apr}, with at most two decimals")
    if not 1 <= body.tenure <= lending.max_tenure:
        errors.add("tenure", f"must be a whole number from 1 to {lending.max_tenure}")
    if amount_paise == 0 or apr is None or body.tenure < 1:
        raise errors.problem()
    terms = Terms(
        amount_paise=amount_paise,
        apr_hundredths=apr,
        daily_rate_thousandths=daily_rate(apr),
        tenure=body.tenure,
        plan=body.repayment_plan,
        disbursed_on=services.clock.today(),
        cycle_days=lending.cycle_days,
        due_days=lending.due_days,
        min_due_hundredths=lending.min_due_percent_hundredths,
    )
    return terms, errors


async def check_eligible(services: Services, caller: Caller, amount_paise: int) -> None:
    """Raise unless the borrower is scored and meets every rule."""
    user = await services.accounts.me(caller)
    if user is None:
        raise Problem("unauthorized", "The access token is not valid.")
    if user.credit_score is None:
        raise Problem("score-pending", "The credit score is not known yet.", {}, {"Retry-After": "1"})
    reasons = reasons_against(services.lending, user.credit_score, user.annual_income_paise, amount_paise)
    if reasons:
        shown = [reason_shown(reason) for reason in reasons]
        raise Problem("not-eligible", "The application does not meet the lender's rules.", {"reasons": shown})


def reason_shown(reason: Reason) -> payloads.ReasonShown:
    """Show a rule in its own unit: points, or rupees."""
    if reason.code == "credit-score-too-low":
        return payloads.ReasonShown(reason.code, reason.required, reason.actual)
    return payloads.ReasonShown(reason.code, rupees(reason.required), rupees(reason.actual))


# Looking -----------------------------------------------------------------------------------------


def owner_id(caller: Caller | None) -> int | None:
    """Return whose loans the caller may see: a borrower's own, or (None) anyone's."""
    assert caller is not None
    return caller.id if caller.kind == "borrower" else None


async def view(services: Services, call: Call, text: str) -> View:
    """Return the loan that the text names, as the caller may see it."""
    loan_id = parse_id(text)
    if loan_id is None:
        raise loan_not_found()
    call.loan_id = text
    answer = await services.registry.ask(loan_id, None, owner_id(call.caller))
    if isinstance(answer, Rejection):
        raise loan_not_found()
    assert isinstance(answer, View)
    return answer


async def get_loan(services: Services, call: Call) -> Reply:
    """GET /api/loans/{loan_id}/"""
    return Reply(200, present.loan_shown(await view(services, call, call.path["loan_id"])))


async def list_loans(services: Services, call: Call) -> Reply:
    """GET /api/loans/"""
    limit = page_limit(call.query)
    cursor = call.query.get("cursor")
    after_id = 0 if cursor is None else parse_id(cursor)
    if after_id is None:
        raise bad_cursor()
    owner = owner_id(call.caller)
    ids = await services.store.read("loans_after", owner, after_id, limit + 1)
    page = ids[:limit]
    views = await asyncio.gather(*(services.registry.ask(loan_id, None, owner) for loan_id in page))
    loans = [present.loan_summary(each) for each in views if isinstance(each, View)]
    return Reply(200, payloads.LoanList(loans, format_id(page[-1]) if len(ids) > limit else None))


async def get_statement(services: Services, call: Call) -> Reply:
    """GET /api/get-statement/"""
    text = call.query.get("loan_id")
    if text is None:
        errors = FieldErrors()
        errors.add("loan_id", "is missing")
        errors.check()
        raise AssertionError
    limit = page_limit(call.query)
    cursor = call.query.get("cursor")
    before_seq = None if cursor is None else parse_id(cursor)
    if cursor is not None and before_seq is None:
        raise bad_cursor()
    seen = await view(services, call, text)
    read = services.store.read
    rows = await read("payments_page", seen.loan_id, seen.version, before_seq, limit + 1)
    if rows is None:
        raise bad_cursor()
    page = rows[:limit]
    issued: list[BillIssued] = []
    if cursor is None:
        issued = await read("issued_bills", seen.loan_id, seen.version)
        # A bill that the view issues may have been written since: both are the same, to the paisa.
        issued = list({bill.number: bill for bill in (*issued, *seen.issued)}.values())
    loan, today = seen.loan, seen.today
    return Reply(
        200,
        payloads.Statement(
            loan_id=format_id(seen.loan_id),
            status=present.status(loan),
            as_of=format_day(today),
            outstanding=present.outstanding(loan.principal_paise, loan.interest_paise(today)),
            payoff=rupees(loan.payoff_paise(today)),
            past_due=rupees(loan.past_due_paise(today)),
            bills=present.bills(loan, issued),
            past_transactions=[present.past_payment(row) for row in page],
            upcoming_emis=present.upcoming(loan, today) if cursor is None else [],
            next_cursor=format_id(page[-1][0]) if len(rows) > limit else None,
        ),
    )
