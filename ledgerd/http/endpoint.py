"""From an aiohttp request to a handler and back: the one path that every call takes.

In order: request id, draining, token, scope, body, handler, answer, metrics and one log line. There are no
middlewares: each costs every request, and hides from a reader what happens to it. (A payment that comes whole
takes the same steps in express.py, without a task.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import msgspec
from aiohttp import web

from ledgerd.actors.messages import ActorFailed, Overloaded
from ledgerd.http.bodies import (
    FORM_TYPE,
    check_encoding,
    check_media_type,
    check_query,
    decode_form,
    decode_json,
    quoted_names,
)
from ledgerd.http.edge import ALWAYS
from ledgerd.http.overdue import Late, UnderWay
from ledgerd.http.passwords import Busy
from ledgerd.http.problems import CONTENT_TYPE, Problem, problem_bytes
from ledgerd.http.protocol import ClientGone
from ledgerd.http.request_body import read_body
from ledgerd.http.route import Call, Reply, Route
from ledgerd.http.services import Services
from ledgerd.http.tokens import BadToken, Caller
from ledgerd.metrics import PAYMENT_ROUTE, Metrics, Trace
from ledgerd.observe import AccessLog, log
from ledgerd.storage.ports import StorageFull, StoreError

_encode = msgspec.json.Encoder().encode
_RETRY: Final = {"Retry-After": "1"}
_RETRY_LATER: Final = {"Retry-After": "10"}  # somebody has to make room
_CHALLENGE: Final = 'Bearer realm="ledgerd"'
_ALWAYS_OPEN: Final = frozenset({"livez", "readyz", "metrics", "jwks"})


def respond(
    status: int, body: bytes, content_type: str, request_id: str, headers: dict[str, str] | None = None
) -> web.Response:
    """Make the response that every answer is."""
    own = {**ALWAYS, "Content-Type": content_type, "X-Request-ID": request_id}
    if headers:
        own.update(headers)
    return web.Response(status=status, body=body, headers=own)


Answered = TypeVar("Answered", bound=web.StreamResponse)


@dataclass(frozen=True, slots=True)
class Desk:
    """What every answer passes: its request's id, the metrics, and one line of the access log; and what is
    under way.
    """

    metrics: Metrics
    access: AccessLog
    choose_id: Callable[[str | None], str]
    under_way: UnderWay

    def record(
        self,
        request: web.Request,
        route: str,
        response: Answered,
        started_s: float,
        request_id: str,
        loan_id: str | None = None,
        trace: Trace | None = None,
    ) -> Answered:
        """Note an answer and return it. `route` is the pattern of the path, never the path itself."""
        ours = "X-Request-ID" not in request.headers
        self.note(
            request.method, route, response.status, started_s, request_id, loan_id, trace, id_is_ours=ours
        )
        return response

    def note(
        self,
        method: str,
        route: str,
        status: int,
        started_s: float,
        request_id: str,
        loan_id: str | None,
        trace: Trace | None = None,
        *,
        id_is_ours: bool,
    ) -> None:
        """Count an answer, and write its line; see `record`. `trace` is that of a single payment."""
        ended_s = time.perf_counter()
        seconds = ended_s - started_s
        if trace is None:
            self.metrics.observe_request(route, status, seconds)
        else:
            self.metrics.observe_payment(status, trace, ended_s)
        self.access.write(method, route, status, seconds, request_id, loan_id, id_is_ours=id_is_ours)


class Endpoint:
    """Serves one route."""

    def __init__(self, services: Services, route: Route, desk: Desk) -> None:
        self._services = services
        self._route = route
        self._desk = desk
        self._is_payment = route.path == PAYMENT_ROUTE
        self._decoder = None if route.body is None else msgspec.json.Decoder(route.body)
        self._names = () if route.body is None else quoted_names(route.body)
        limits, server = services.config.limits, services.config.server
        self._body_bytes = limits.body_bytes
        self._body_timeout_s = server.body_timeout_s

    async def handle(self, request: web.Request) -> web.StreamResponse:
        trace = Trace(time.perf_counter())
        headers = request.headers
        request_id = self._desk.choose_id(headers.get("X-Request-ID"))
        call = None
        services, route = self._services, self._route
        try:
            check_draining(services, route)
            if self._is_payment and (refusal := services.registry.refusal()):
                raise refusal  # noqa: TRY301 - before anything of it is read: a refusal must be cheap
            caller = None if not route.scopes else await self._authenticate(headers.get("Authorization"))
            trace.authenticated_s = time.perf_counter()
            call = Call(request, caller, None, trace)
            response = await self._respond(request, call, request_id)
        except ClientGone:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is answered
            response = problem_response(problem_of(error, route, request_id), request_id)
        loan_id = call.loan_id if call else None
        return self._desk.record(
            request,
            route.path,
            response,
            trace.started_s,
            request_id,
            loan_id,
            trace if self._is_payment else None,
        )

    async def _respond(self, request: web.Request, call: Call, request_id: str) -> web.StreamResponse:
        route = self._route
        assert route.handler is not None
        call.body = None if route.body is None else await self._read(request)
        if request.query_string:
            check_query(request.query)
        work = route.handler(self._services, call)
        reply = await (work if route.may_take_long else self._desk.under_way.outcome_of(work))
        return self._response(reply, request_id)

    async def _authenticate(self, authorization: str | None) -> Caller:
        accounts, token = self._services.accounts, bearer(authorization)
        caller = accounts.recognise(token)
        if caller is None:
            caller = await self._desk.under_way.outcome_of(accounts.authenticate(token))
        return accept(caller, self._route)

    async def _read(self, request: web.Request) -> Any:
        route, headers = self._route, request.headers
        assert route.body is not None
        assert self._decoder is not None
        check_encoding(headers.get("Content-Encoding"))
        if not request.body_exists and not route.body_required:
            return route.body()
        form = check_media_type(headers.get("Content-Type"), FORM_TYPE if route.form else None)
        body = await read_body(request, self._body_bytes, self._body_timeout_s)
        if not body and not route.body_required:
            return route.body()
        return decode_form(route.body, body) if form else decode_json(self._decoder, body, self._names)

    def _response(self, reply: Reply, request_id: str) -> web.Response:
        body = reply.body
        if body is None:
            return web.Response(status=reply.status, headers={**ALWAYS, "X-Request-ID": request_id})
        content = body if isinstance(body, bytes) else _encode(body)
        return respond(reply.status, content, reply.content_type, request_id, reply.headers)


def check_draining(services: Services, route: Route) -> None:
    """Raise Problem `draining` once the service stops."""
    if services.draining and route.name not in _ALWAYS_OPEN:
        raise draining()


def draining() -> Problem:
    """The problem of what comes while the service stops."""
    return Problem("draining", "The service is stopping.", {}, _RETRY)


def storage_full() -> Problem:
    """The problem of what can't be written for want of room."""
    return Problem("storage-full", "The disk is nearly full: nothing was done.", {}, _RETRY_LATER)


def bearer(authorization: str | None) -> str:
    """Return the token in the Authorization header; raises Problem `unauthorized` without one."""
    if authorization is None:
        raise Problem("unauthorized", "Send an access token.", {}, {"WWW-Authenticate": _CHALLENGE})
    if authorization.startswith("Bearer "):  # as nearly all do
        return authorization[7:].strip()
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise Problem("unauthorized", "Send a Bearer token.", {}, {"WWW-Authenticate": _CHALLENGE})
    return token.strip()


def accept(caller: Caller | BadToken, route: Route) -> Caller:
    """Return the caller of a route; raises Problem `unauthorized` or `insufficient-scope`."""
    if isinstance(caller, BadToken):
        challenge = f'{_CHALLENGE}, error="invalid_token"'
        raise Problem("unauthorized", caller.value, {}, {"WWW-Authenticate": challenge})
    if caller.scopes.isdisjoint(route.scopes):
        scopes = " ".join(sorted(route.scopes))
        challenge = f'{_CHALLENGE}, error="insufficient_scope", scope="{scopes}"'
        detail = f"One of these scopes is needed: {scopes}."
        raise Problem("insufficient-scope", detail, {}, {"WWW-Authenticate": challenge})
    return caller


class Place(Protocol):
    """What the log names: a row of a table of routes."""

    @property
    def path(self) -> str:
        """The pattern of its path."""
        ...


def problem_of(error: Exception, route: Place, request_id: str) -> Problem:
    """Return the problem that an exception is answered with. A bug is logged, and never shown."""
    match error:
        case Problem():
            return error
        case Overloaded():
            return Problem("overloaded", f"Try again: {error}.", {}, _RETRY)
        case Busy():
            return Problem("overloaded", "Too many passwords wait to be looked at.", {}, _RETRY)
        case StorageFull():
            return storage_full()
        case StoreError() | ActorFailed() | Late():
            log.error("outcome unknown", route=route.path, request_id=request_id, error=str(error))
            return Problem("outcome-unknown", "Send it again, the same.")
        case _:
            log.error("internal error", route=route.path, request_id=request_id, exc_info=error)
            return Problem("internal", "A bug; it is in our log.")


def problem_response(problem: Problem, request_id: str) -> web.Response:
    """Make the response of a problem."""
    content = problem_bytes(problem.slug, problem.detail, problem.extras)
    return respond(problem.status, content, CONTENT_TYPE, request_id, dict(problem.headers))
