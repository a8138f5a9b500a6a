"""The express lane: payments that came whole, answered without a task, a Request or a Response.

At thousands of payments a second, what aiohttp makes around a request costs more than the payment. So a
connection (protocol.py) offers each message here first. The lane takes a payment when all that it needs is
here: the whole body, and a caller who is known without asking the vault. Everything else goes the way of
every other call, through endpoint.py. Both ways take the same steps in the same order, with the same
functions, and no caller can tell which one a payment went.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import HttpVersion11, hdrs
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader

from ledgerd.actors.messages import Answer, Message, Overloaded
from ledgerd.actors.registry import TOO_MUCH
from ledgerd.http.bodies import check_media_type, decode_json, quoted_names
from ledgerd.http.edge import ALWAYS_LINES, REQUEST_ID, AnswerTo
from ledgerd.http.endpoint import Desk, accept, bearer, check_draining, problem_of
from ledgerd.http.payloads import MakePayment
from ledgerd.http.payments import order, reply_or_problem
from ledgerd.http.problems import CONTENT_TYPE, Problem, problem_bytes
from ledgerd.http.request_body import whole_body
from ledgerd.http.route import Route
from ledgerd.http.services import Services
from ledgerd.metrics import Trace
from ledgerd.observe import log

_encode = msgspec.json.Encoder().encode
# Status, headers of its own, content type and body of an answer.
Shown = tuple[int, Mapping[str, str] | None, str, bytes]
# Whoever is refused is told to come again in a second. Who comes sooner on the same connection waits so long,
# unread: to read, parse and refuse it costs nearly half of a payment.
REST_S: Final = 0.25
_PHRASES: Final = {status.value: status.phrase for status in HTTPStatus}


class ExpressLane:
    """Serves the route of single payments; see `edge.Express`."""

    def __init__(self, services: Services, route: Route, desk: Desk) -> None:
        self._services = services
        self._route = route
        self._desk = desk
        self._paths = {route.path, route.path.rstrip("/")}
        self._decoder = msgspec.json.Decoder(MakePayment)
        self._names = quoted_names(MakePayment)
        self._body_bytes = services.config.limits.body_bytes
        self._waiting = desk.under_way.waiting
        too_much = problem_of(Overloaded(TOO_MUCH), route, "")
        self._too_much: Shown = (
            too_much.status,
            too_much.headers,
            CONTENT_TYPE,
            problem_bytes(too_much.slug, too_much.detail),
        )

    def take(self, message: RawRequestMessage, payload: StreamReader, answer_to: AnswerTo) -> bool:
        """Take a request and have it answered, perhaps at once; or return False, with nothing done."""
        headers = message.headers
        if (
            message.path not in self._paths
            or message.method != self._route.method
            or message.version != HttpVersion11
            or message.should_close
            or message.upgrade
            or not payload.is_eof()
            or payload.total_bytes > self._body_bytes
            or hdrs.EXPECT in headers
            or hdrs.CONTENT_ENCODING in headers
        ):
            return False
        sent_id = headers.get(REQUEST_ID)
        ticket = _Ticket(self, self._desk.choose_id(sent_id), sent_id is None, answer_to)
        try:
            if not self._services.draining and self._services.registry.refusal():
                ticket.answered = True
                self._answer(ticket, *self._too_much, rest_s=REST_S)
                return True
            return self._put(ticket, headers, payload)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            ticket.set_exception(error)
            return True

    def _put(self, ticket: _Ticket, headers: Mapping[str, str], payload: StreamReader) -> bool:
        services = self._services
        check_draining(services, self._route)
        known = services.accounts.recognise(bearer(headers.get(hdrs.AUTHORIZATION)))
        if known is None:
            return False
        caller = accept(known, self._route)
        ticket.authenticated_s = time.perf_counter()
        check_media_type(headers.get(hdrs.CONTENT_TYPE))
        body = decode_json(self._decoder, whole_body(payload), self._names)
        loan_number, command = order(services, caller, body)
        ticket.loan_number, ticket.loan_id = loan_number, body.loan_id
        self._waiting[ticket] = None
        ticket.parsed_s = time.perf_counter()
        services.registry.put(loan_number, Message(command, None, ticket, ticket))
        return True

    def finish(self, ticket: _Ticket, outcome: Answer | Exception) -> None:
        """Answer a request with its outcome, once. Actors call this, so nothing that goes wrong here may
        reach them.
        """
        if ticket.answered:
            return
        ticket.answered = True
        self._waiting.pop(ticket, None)
        try:
            self._answer(ticket, *self._shown(ticket, outcome))
        except Exception as error:  # noqa: BLE001 - it can't be answered: a reset says "unknown", too
            ticket.answer_to.abort()
            log.error("no answer", route=self._route.path, request_id=ticket.request_id, exc_info=error)

    def _shown(self, ticket: _Ticket, outcome: Answer | Exception) -> Shown:
        reply = reply_or_problem(ticket.loan_number, outcome, self._route, ticket.request_id)
        if isinstance(reply, Problem):
            content = problem_bytes(reply.slug, reply.detail, reply.extras)
            return reply.status, reply.headers, CONTENT_TYPE, content
        return reply.status, reply.headers, reply.content_type, _encode(reply.body)

    def _answer(
        self,
        ticket: _Ticket,
        status: int,
        own: Mapping[str, str] | None,
        kind: str,
        content: bytes,
        *,
        rest_s: float = 0.0,
    ) -> None:
        more = "".join(f"{name}: {value}\r\n" for name, value in own.items()) if own else ""
        head = (
            f"HTTP/1.1 {status} {_PHRASES[status]}\r\n{ALWAYS_LINES}Content-Type: {kind}\r\n"
            f"X-Request-ID: {ticket.request_id}\r\n{more}Content-Length: {len(content)}\r\n"
            f"Date: {rfc822_formatted_time()}\r\n"
        )
        ticket.answer_to.answer(head, content, rest_s)
        self._desk.note(
            self._route.method,
            self._route.path,
            status,
            ticket.started_s,
            ticket.request_id,
            ticket.loan_id,
            ticket,
            id_is_ours=ticket.id_is_ours,
        )


class _Ticket(Trace):
    """A request on its way through the lane; an actors' `ReplyTo`, and its own trace."""

    __slots__ = (
        "_lane",
        "answer_to",
        "answered",
        "id_is_ours",
        "loan_id",
        "loan_number",
        "request_id",
    )

    def __init__(self, lane: ExpressLane, request_id: str, id_is_ours: bool, answer_to: AnswerTo) -> None:
        self.started_s = time.perf_counter()
        # As Trace does: to call it costs every request.
        self.authenticated_s = self.parsed_s = self.received_s = self.decided_s = self.durable_s = 0.0
        self._lane = lane
        self.request_id = request_id
        self.id_is_ours = id_is_ours
        self.answer_to = answer_to
        self.answered = False
        self.loan_number = 0
        self.loan_id: str | None = None  # for the log line, once known

    def done(self) -> bool:
        """Return whether it was answered, as late perhaps. A payment is noted whether or not its client is
        there.
        """
        return self.answered

    def set_result(self, answer: Answer) -> None:
        """Hear the Answer."""
        self._lane.finish(self, answer)

    def set_exception(self, error: Exception) -> None:
        """Hear that the outcome is unknown."""
        self._lane.finish(self, error)

    def give_up(self, error: Exception) -> None:
        """Hear that it takes too long; see `overdue.Waiting`."""
        self._lane.finish(self, error)
