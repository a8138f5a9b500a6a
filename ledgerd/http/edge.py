"""What the connections of one listener share: their limits, how many there are, and the express lane.

protocol.py has the connections themselves, listener.py the listener.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import StreamReader
from multidict import istr

from ledgerd.http.addresses import TrustedProxies, network
from ledgerd.http.problems import CONTENT_TYPE, PROBLEMS, problem_bytes

REQUEST_ID: Final = istr("X-Request-ID")  # found in half the time of a str
# What every answer bears, whoever makes it. Nothing here is for a cache to keep: an answer is about one
# caller's money, and true at that moment.
ALWAYS: Final = {"Server": "ledgerd", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
ALWAYS_LINES: Final = "".join(f"{name}: {value}\r\n" for name, value in ALWAYS.items())


class AnswerTo(Protocol):
    """A connection, as whoever answers on it sees it."""

    def answer(self, head: str, body: bytes, rest_s: float = 0.0) -> None:
        """Send an answer: its lines up to the empty one, and its body. The connection's next request is
        looked at after `rest_s`.
        """
        ...

    def abort(self) -> None:
        """Cut the connection: there is no answer."""
        ...


class Express(Protocol):
    """Who may answer a request before aiohttp has made anything of it; see express.py."""

    def take(self, message: RawRequestMessage, payload: StreamReader, answer_to: AnswerTo) -> bool:
        """Take a request, and call `answer` once, now or later; or return False, with nothing done."""
        ...


EXPRESS: Final = web.AppKey("EXPRESS", Express)  # in an application that has a lane


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLimits:
    """Seconds for a head, for a body, between requests, and for a client to read on; connections, in all and
    from one address, which a trusted proxy may have more of.
    """

    header_timeout_s: float = 10
    body_timeout_s: float = 10
    keepalive_timeout_s: float = 75
    unread_timeout_s: float = 60
    connections: int = 10_000
    connections_per_address: int = 1024
    trusted_proxies: TrustedProxies = field(default_factory=TrustedProxies)


@dataclass(slots=True)
class Edge:
    """What the connections of one listener share.

    `request_id` takes the caller's X-Request-ID, None without one, and returns the one to answer with;
    `on_refusal` gets the status of each answer that no handler gave, to count it.
    """

    limits: EdgeLimits
    request_id: Callable[[str | None], str]
    on_refusal: Callable[[int], None]
    express: Express | None = None
    open: int = 0  # connections
    open_by_network: dict[bytes, int] = field(default_factory=dict)
    draining: bool = False
    empty: asyncio.Event = field(default_factory=asyncio.Event)

    def admit(self, address: str) -> bytes | None:
        """Count a new connection in and return its network, to be released; None when there are enough."""
        limits, place = self.limits, network(address)
        open_here = self.open_by_network.get(place, 0)
        if self.open >= limits.connections:
            return None
        if open_here >= limits.connections_per_address and not limits.trusted_proxies.trusts(address):
            return None
        self.open += 1
        self.open_by_network[place] = open_here + 1
        self.empty.clear()
        return place

    def release(self, place: bytes) -> None:
        """Count a connection out."""
        self.open -= 1
        self.open_by_network[place] -= 1
        if not self.open_by_network[place]:
            del self.open_by_network[place]
        if not self.open:
            self.empty.set()

    def head_and_body(self, slug: str, detail: str) -> bytes:
        """A whole answer, for a connection without a request."""
        body = problem_bytes(slug, detail)
        kind = PROBLEMS[slug]
        self.on_refusal(kind.status)
        lines = [
            f"HTTP/1.1 {kind.status} {kind.title}\r\n{ALWAYS_LINES}Content-Type: {CONTENT_TYPE}",
            f"Content-Length: {len(body)}",
            f"{REQUEST_ID}: {self.request_id(None)}",
            "Connection: close",
        ]
        if kind.status == 503:
            lines.append("Retry-After: 1")
        return "\r\n".join([*lines, "", ""]).encode() + body
