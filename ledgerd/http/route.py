"""What a route is: one entry makes the router, its line in the OpenAPI document, and its row in the
authorisation test.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ledgerd.metrics import UNTRACED, Trace

if TYPE_CHECKING:
    from aiohttp import web

    from ledgerd.http.services import Services
    from ledgerd.http.tokens import Caller

Scope = Literal["borrower", "payments:write", "ops"]


class Call:
    """One request on its way through a handler. `body` is the decoded Struct; the rest is raw text."""

    __slots__ = ("_request", "body", "caller", "loan_id", "trace")

    def __init__(
        self, request: web.Request, caller: Caller | None, body: Any, trace: Trace = UNTRACED
    ) -> None:
        self._request = request
        self.caller = caller
        self.body = body
        self.loan_id: str | None = None  # for the log line, once known
        self.trace = trace

    @property
    def path(self) -> Mapping[str, str]:
        """The parameters in the path, by name."""
        return self._request.match_info

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters; the first where one is repeated."""
        return self._request.query

    @property
    def peer(self) -> str:
        """The peer's address; behind a proxy that's the proxy's, see `Services.trusted_proxies`."""
        return self._request.remote or ""

    def header(self, name: str) -> list[str]:
        """Every value of a header."""
        return self._request.headers.getall(name, [])


@dataclass(slots=True)
class Reply:
    """What a handler answers: a Struct (as JSON), bytes of `content_type`, or nothing."""

    status: int
    body: msgspec.Struct | bytes | None = None
    headers: dict[str, str] | None = None
    content_type: str = "application/json"


Handler = Callable[["Services", Call], Coroutine[Any, Any, Reply]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query, path or header parameter, for the document; handlers check it themselves."""

    name: str
    place: Literal["query", "path", "header"]
    description: str
    required: bool = False
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True)
class Link:
    """Where an answer leads, for the document: another call, and which of its parameters (or of its body's
    fields) take which members of the answer.
    """

    to: str  # the operation's id
    parameters: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Route:
    """One call. `scopes`: whose token is accepted, any one of them; empty for anyone without a token."""

    method: Literal["GET", "POST"]
    path: str
    name: str  # the operation's id
    handler: Handler | None  # None: a `batch` has an endpoint of its own
    summary: str
    description: str = ""
    scopes: frozenset[Scope] = frozenset()
    body: type[msgspec.Struct] | None = None
    body_required: bool = True
    form: bool = False  # the body may also come as application/x-www-form-urlencoded
    batch: bool = False  # body and answer are of one item of an array, or of NDJSON; see batches.py
    parameters: tuple[Parameter, ...] = ()
    answers: dict[int, type[msgspec.Struct] | str | None] = field(default_factory=dict)  # str: a content type
    headers: dict[int, tuple[str, ...]] = field(default_factory=dict)  # status -> headers worth naming
    links: tuple[Link, ...] = ()  # of every answer that is no problem
    problems: tuple[str, ...] = ()
    tag: str = "Operations"
    sandbox_only: bool = False
    may_take_long: bool = False  # no `request_timeout_s` for it
