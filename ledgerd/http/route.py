"""What a route is: one entry makes the router, its line in the OpenAPI document, and its row in the
authorisation test.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

if TYPE_CHECKING:
    from ledgerd.http.services import Services
    from ledgerd.http.tokens import Caller

Scope = Literal["borrower", "payments:write", "ops"]


class Call:
    """One request on its way through a handler. `body` is the decoded Struct, `query` and `path` are raw
    text.
    """

    __slots__ = ("address", "body", "caller", "headers", "loan_id", "path", "query")

    def __init__(
        self, caller: Caller | None, body: Any, path: Any, query: Any, headers: Any, address: str
    ) -> None:
        self.caller = caller
        self.body = body
        self.path = path
        self.query = query
        self.headers = headers
        self.address = address
        self.loan_id: str | None = None  # for the log line, once known


@dataclass(slots=True)
class Reply:
    """What a handler answers: a Struct (as JSON), bytes of `content_type`, or nothing."""

    status: int
    body: msgspec.Struct | bytes | None = None
    headers: dict[str, str] | None = None
    content_type: str = "application/json"


Handler = Callable[["Services", Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query, path or header parameter, for the document; handlers check it themselves."""

    name: str
    place: Literal["query", "path", "header"]
    description: str
    required: bool = False
    schema: dict[str, Any] = field(default_factory=lambda: {"type": "string"})


@dataclass(frozen=True, slots=True)
class Route:
    """One call. `scopes`: whose token is accepted, any one of them; empty for anyone without a token."""

    method: Literal["GET", "POST"]
    path: str
    name: str  # the operation's id
    handler: Handler
    summary: str
    description: str = ""
    scopes: frozenset[Scope] = frozenset()
    body: type[msgspec.Struct] | None = None
    body_required: bool = True
    form: bool = False  # the body may also come as application/x-www-form-urlencoded
    parameters: tuple[Parameter, ...] = ()
    answers: dict[int, type[msgspec.Struct] | str | None] = field(default_factory=dict)  # str: a content type
    headers: dict[int, tuple[str, ...]] = field(default_factory=dict)  # status -> headers worth naming
    problems: tuple[str, ...] = ()
    tag: str = "Operations"
    sandbox_only: bool = False
