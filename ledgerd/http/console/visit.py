"""What a page of the console is: a row of its table, the visit that a handler gets, and its answers."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ledgerd.http.route import Call
from ledgerd.http.tokens import Caller
from ledgerd.metrics import UNTRACED

if TYPE_CHECKING:
    from ledgerd.http.console.book import Bookkeeper
    from ledgerd.http.console.live import Live
    from ledgerd.http.console.sessions import Session
    from ledgerd.http.services import Services

Who = Literal["anyone", "member", "ops", "borrower"]  # a member is either of the two


class Form(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The fields of a form, as text. `csrf` is the session's."""

    csrf: str = ""


class Inner(Call):
    """A call of one of the API's own handlers, from within the console."""

    __slots__ = ("_headers", "_path", "_query")

    def __init__(
        self,
        caller: Caller,
        body: Any = None,
        *,
        path: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.caller, self.body, self.loan_id, self.trace = caller, body, None, UNTRACED
        self._path, self._query, self._headers = path or {}, query or {}, headers or {}

    @property
    def path(self) -> Mapping[str, str]:
        """See `Call`."""
        return self._path

    @property
    def query(self) -> Mapping[str, str]:
        """See `Call`."""
        return self._query

    def header(self, name: str) -> list[str]:
        """See `Call`."""
        return [self._headers[name]] if name in self._headers else []


@dataclass(frozen=True, slots=True)
class Parts:
    """What the console keeps beside the service: one for all visits. (Sessions are among the services: they
    are made of chance, which comes in through the door.)
    """

    live: Live
    bookkeeper: Bookkeeper


@dataclass(slots=True)
class Visit:
    """One request for a page. `form` is what was posted; `session` None where nobody need be logged in."""

    services: Services
    parts: Parts
    session: Session | None
    path: Mapping[str, str]
    query: Mapping[str, str]
    form: Any
    address: str  # the visitor's, for the throttle
    over_https: bool  # as the browser says
    session_id: str

    @property
    def member(self) -> Session:
        """Who is logged in, on pages where somebody is."""
        assert self.session is not None
        return self.session

    @property
    def caller(self) -> Caller:
        """The same, as the API's handlers know them."""
        return self.member.caller


@dataclass(slots=True)
class Page:
    """A template and its values. Some are parts, which htmx puts into a page that stands already."""

    template: str
    values: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Redirect:
    """See another page (303), as after each form that went well: reloading that one sends nothing again."""

    location: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Download:
    """A file to keep."""

    body: bytes
    content_type: str
    file_name: str


Answer = Page | Redirect | Download
PageHandler = Callable[[Visit], Coroutine[Any, Any, Answer]]


@dataclass(frozen=True, slots=True)
class PageRoute:
    """One page, or what a form of one does."""

    method: Literal["GET", "POST"]
    path: str
    handler: PageHandler
    who: Who = "member"
    form: type[Form] | None = None
    sandbox_only: bool = False
    may_take_long: bool = False  # no `request_timeout_s` for it
