"""Every problem that an answer can name: its slug, its one status, and what a caller should make of it.

Errors are RFC 9457 `application/problem+json`; `type` is `/problems/<slug>`, a page that a browser can open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

CONTENT_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """One row of the table. `advice` is for its page: what it means, and whether to try again."""

    status: int
    title: str
    advice: str


PROBLEMS: Final[dict[str, ProblemKind]] = {
    # Requests that can't be read
    "malformed": ProblemKind(
        400, "Malformed request", "The body, a header or the request line can't be read. Mend it first."
    ),
    "invalid-fields": ProblemKind(
        422, "Invalid fields", "`errors` lists each bad, unknown, missing or repeated field. Mend them first."
    ),
    "request-timeout": ProblemKind(
        408, "Request timeout", "The request did not arrive whole in time. Nothing was done: send it again."
    ),
    "body-too-large": ProblemKind(
        413, "Body too large", "The body is over the limit that `detail` names. Send less at once."
    ),
    "unsupported-media-type": ProblemKind(
        415, "Unsupported media type", "Send `application/json` in UTF-8, without a Content-Encoding."
    ),
    "expectation-failed": ProblemKind(417, "Expectation failed", "Only `Expect: 100-continue` is known."),
    # Who asks
    "unauthorized": ProblemKind(
        401, "Unauthorized", "Send a valid access token: `Authorization: Bearer ...`. Log in or refresh."
    ),
    "bad-credentials": ProblemKind(
        401, "Bad credentials", "The login is not right, or the refresh token is used, ended or unknown."
    ),
    "insufficient-scope": ProblemKind(403, "Insufficient scope", "The token's scopes don't cover this call."),
    "too-many-attempts": ProblemKind(
        429, "Too many attempts", "Too many failed logins. Wait as Retry-After says."
    ),
    # What is asked for
    "not-found": ProblemKind(
        404, "Not found", "There is nothing at this address, or nothing that the caller may see."
    ),
    "method-not-allowed": ProblemKind(
        405, "Method not allowed", "`Allow` lists the methods of this address."
    ),
    "loan-not-found": ProblemKind(
        404, "Loan not found", "There is no such loan, or it belongs to another borrower."
    ),
    "payment-not-found": ProblemKind(
        404, "Payment not found", "The caller made no payment with this transaction_id that counted."
    ),
    # Rules
    "already-registered": ProblemKind(
        409, "Already registered", "This Aadhaar ID or email is registered: log in."
    ),
    "score-pending": ProblemKind(
        409, "Score pending", "The credit score is not known yet. Try again as Retry-After says."
    ),
    "not-eligible": ProblemKind(
        422, "Not eligible", "`reasons` lists every rule that speaks against the loan."
    ),
    "idempotency-key-conflict": ProblemKind(
        409,
        "Idempotency-Key conflict",
        "This key was used with another body. Use a new key for a new application.",
    ),
    "transaction-id-conflict": ProblemKind(
        409,
        "Transaction ID conflict",
        "This transaction_id was used for another loan or amount. Use a new one for a new payment.",
    ),
    "loan-closed": ProblemKind(409, "Loan closed", "The loan is paid off: it takes no more payments."),
    "no-such-bill": ProblemKind(422, "No such bill", "`for_bill` names a bill that has not been issued."),
    "past-due-unpaid": ProblemKind(
        409,
        "Past due unpaid",
        "`for_bill` names a bill while the older ones in `unpaid_bills` are unpaid. Pay those first.",
    ),
    "amount-exceeds-payoff": ProblemKind(
        422, "Amount exceeds payoff", "`payoff` is what closes the loan today. Pay at most that."
    ),
    "date-in-future": ProblemKind(422, "Date in the future", "The date is later than today's business date."),
    # The service itself
    "overloaded": ProblemKind(
        503, "Overloaded", "A limit is reached. Nothing was done: try again as Retry-After says."
    ),
    "storage-full": ProblemKind(
        503,
        "Storage full",
        "The disk is nearly full. Nothing was done; reads go on. Try again as Retry-After says.",
    ),
    "draining": ProblemKind(
        503, "Draining", "The service is stopping. Nothing was done: try again as Retry-After says."
    ),
    "internal": ProblemKind(
        500,
        "Internal error",
        "A bug. The outcome is unknown: send a payment again with the same transaction_id.",
    ),
    "outcome-unknown": ProblemKind(
        500,
        "Outcome unknown",
        "The journal stopped or stalled under this request. Send it again with the same transaction_id.",
    ),
}


@dataclass(eq=False)
class Problem(Exception):
    """A problem to answer with; raised by handlers, or returned."""

    slug: str
    detail: str
    extras: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """The problem's one status."""
        return PROBLEMS[self.slug].status


_encode = msgspec.json.Encoder().encode


def problem_document(slug: str, detail: str, extras: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the members of a problem, `extras` last."""
    kind = PROBLEMS[slug]
    members = {"type": f"/problems/{slug}", "title": kind.title, "status": kind.status, "detail": detail}
    return {**members, **(extras or {})}


def problem_bytes(slug: str, detail: str, extras: Mapping[str, Any] | None = None) -> bytes:
    """Return a problem as JSON."""
    return _encode(problem_document(slug, detail, extras))
