"""Handlers about payments: making one, and looking one up."""

from __future__ import annotations

from typing import Any

from ledgerd.actors.messages import Accepted, Answer, View
from ledgerd.domain.commands import Rejection, Repay, payment_key
from ledgerd.domain.events import PaymentRecorded, decode_event
from ledgerd.domain.money import rupees
from ledgerd.http import payloads, present
from ledgerd.http.bodies import FieldErrors, decimal_literal, is_transaction_id
from ledgerd.http.endpoint import problem_of, storage_full
from ledgerd.http.loans import loan_not_found
from ledgerd.http.problems import Problem
from ledgerd.http.route import Call, Reply, Route
from ledgerd.http.services import Services
from ledgerd.http.tokens import Caller
from ledgerd.ids import parse_id

REPLAYED = {"Idempotent-Replayed": "true"}

_DETAILS = {
    "loan-not-found": "There is no such loan.",
    "transaction-id-conflict": "This transaction_id was used for another loan or amount.",
    "loan-closed": "The loan is paid off.",
    "no-such-bill": "The bill that for_bill names has not been issued.",
    "past-due-unpaid": "Older bills than the one that for_bill names are unpaid.",
}


async def make_payment(services: Services, call: Call) -> Reply:
    """POST /api/make-payment/"""
    assert call.caller is not None
    loan_id, command = order(services, call.caller, call.body)
    call.loan_id = call.body.loan_id
    call.trace.parsed_s = services.metrics.now_s()
    return outcome(loan_id, await services.registry.ask(loan_id, command, trace=call.trace))


def order(services: Services, caller: Caller, body: payloads.MakePayment) -> tuple[int, Repay]:
    """Return the loan that a payment is for, and its command. A borrower pays own loans only, a client any.

    Raises Problem `invalid-fields` and `loan-not-found`.
    """
    amount_paise = decimal_literal(body.amount)
    if not amount_paise or not is_transaction_id(body.transaction_id):
        raise _bad_fields(body)
    loan_id = parse_id(body.loan_id)
    if loan_id is None:
        raise loan_not_found()
    return loan_id, Repay(
        caller=caller.namespace,
        transaction_id=body.transaction_id,
        amount_paise=amount_paise,
        payment_id=services.ids.new(),
        recorded_at_ms=services.clock.now_ms(),
        borrower_id=caller.id if caller.kind == "borrower" else None,
        for_bill=body.for_bill,
    )


def _bad_fields(body: payloads.MakePayment) -> Problem:
    errors = FieldErrors()
    errors.rupees("amount", body.amount)
    if not is_transaction_id(body.transaction_id):
        errors.add("transaction_id", "must be 1 to 64 of A-Za-z0-9._:-")
    return errors.problem()


def outcome(loan_id: int, answer: Answer) -> Reply:
    """Show what became of a payment; raises Problem when it was refused."""
    if isinstance(answer, Rejection):
        raise rejection_problem(answer)
    assert not isinstance(answer, View)
    event = answer.event
    assert isinstance(event, PaymentRecorded)
    if isinstance(answer, Accepted):
        return Reply(201, present.receipt(loan_id, event, replayed=False))
    return Reply(200, present.receipt(loan_id, event, replayed=True), REPLAYED)


def reply_or_problem(
    loan_id: int, result: Answer | Exception, route: Route, request_id: str
) -> Reply | Problem:
    """Show what became of a payment, for who heard it without a future."""
    try:
        if not isinstance(result, Exception):
            return outcome(loan_id, result)
    except Exception as error:  # noqa: BLE001 - a refusal, or a bug: it is answered
        result = error
    return problem_of(result, route, request_id)


def rejection_problem(rejection: Rejection) -> Problem:
    """Turn a refused payment into its problem."""
    if rejection.code == "storage-full":
        return storage_full()
    extras: dict[str, Any] = {}
    detail = _DETAILS.get(rejection.code, "")
    if rejection.payoff_paise is not None:
        extras["payoff"] = rupees(rejection.payoff_paise)
        detail = f"The payoff is {extras['payoff']} today: pay at most that."
    if rejection.unpaid_bills:
        extras["unpaid_bills"] = present.unpaid_bills(rejection.unpaid_bills)
    return Problem(rejection.code, detail, extras)


async def get_payment(services: Services, call: Call) -> Reply:
    """GET /api/payments/{transaction_id}/"""
    assert call.caller is not None
    transaction_id: str = call.path["transaction_id"]
    owner = None
    if is_transaction_id(transaction_id):
        owner = await services.store.read("owner_of", payment_key(call.caller.namespace, transaction_id))
    if owner is None:
        raise Problem("payment-not-found", "No payment of yours with this transaction_id counted.")
    event = decode_event(owner.body)
    assert isinstance(event, PaymentRecorded)
    return Reply(200, present.receipt(owner.loan_id, event, replayed=False))
