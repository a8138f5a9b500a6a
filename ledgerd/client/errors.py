"""What a caller must be ready for: a Problem is a final no, OutcomeUnknown means send the same again."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import msgspec

PROBLEM_TYPE: Final = "application/problem+json"
SHOWN_CHARACTERS = 200  # of what is no answer of the service


class LedgerdError(Exception):
    """Anything that this client raises of its own."""


class Problem(LedgerdError):
    """A final refusal: nothing was done, and the same will be refused again until something changes.

    `slug` is the last part of the problem's `type`, such as `loan-closed`; it is "" when the answer is not
    the service's own (a proxy's 404, a redirect). `extra` holds what the problem names besides, as on the
    wire: `errors`, `payoff`, `unpaid_bills`.
    """

    def __init__(
        self,
        slug: str,
        title: str,
        status: int,
        detail: str,
        request_id: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} {slug or title}: {detail}")
        self.slug = slug
        self.title = title
        self.status = status
        self.detail = detail
        self.request_id = request_id
        self.extra: Mapping[str, Any] = extra or {}


class Unavailable(LedgerdError):
    """No final answer came for as long as `retry_for_s` allows; `__cause__` is what the last attempt met."""


class OutcomeUnknown(Unavailable):
    """The same of a payment: it may have counted. Send it again, with the same transaction_id, until it has a
    receipt or a Problem.
    """


class Failed(LedgerdError):
    """One attempt that had no final answer: try again. `unsure`: what was sent may have been done.

    It reaches callers only as the `__cause__` of Unavailable.
    """

    def __init__(self, reason: str, *, unsure: bool, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.unsure = unsure
        self.retry_after_s = retry_after_s


def read_problem(status: int, content_type: str, body: bytes, request_id: str | None = None) -> Problem:
    """Return the problem that an answer tells of, with the slug "" when it is not one of ledgerd's."""
    members: Any = None
    if content_type == PROBLEM_TYPE:
        with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            members = msgspec.json.decode(body)
    if not isinstance(members, dict):
        text = body[: 4 * SHOWN_CHARACTERS].decode("utf-8", "replace")[:SHOWN_CHARACTERS]
        return Problem("", "an answer that is not ledgerd's", status, " ".join(text.split()), request_id)
    return problem_of(members, status, request_id)


def problem_of(members: dict[str, Any], status: int, request_id: str | None = None) -> Problem:
    """Return the problem with these members."""
    extra = {name: value for name, value in members.items() if name not in _USUAL}
    slug, title, detail = (str(members.get(name, "")) for name in ("type", "title", "detail"))
    return Problem(slug.rpartition("/")[2], title, status, detail, request_id, extra)


_USUAL = {"type", "title", "status", "detail"}


def failed(problem: Problem, retry_after: str | None = None) -> Failed | None:
    """Return how an attempt failed that was answered so, if it is worth another."""
    if problem.status < 500 and problem.status not in {408, 429}:
        return None
    # What a proxy says of its upstream, or a 500, leaves open whether that had done it.
    unsure = problem.status == 500 or not problem.slug
    return Failed(str(problem), unsure=unsure, retry_after_s=read_retry_after_s(retry_after))


def read_retry_after_s(text: str | None) -> float:
    """Read Retry-After in seconds; 0 when there is none, or a date, which the service never sends."""
    return float(text) if text and text.isascii() and text.isdigit() and len(text) < 10 else 0.0
