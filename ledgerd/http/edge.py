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

from ledgerd.http.problems import CONTENT_TYPE, PROBLEMS, problem_bytes

REQUEST_ID: Final = "X-Request-ID"
# What every answer bears, whoever makes it. Nothing here is for a cache to keep: an answer is about one
# caller's money, and true at that moment.
ALWAYS: Final = {"Server": "ledgerd", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
ALWAYS_LINES: Final = "".join(f"{name}: {value}\r\n" for name, value in ALWAYS.items())


class AnswerTo(Protocol):
    """A connection, as whoever answers on it sees it."""

    def answer(self, head: str, body: bytes) -> None:
        """Send an answer: its lines up to the empty one, and its body."""
        ...


class Express(Protocol):
    """Who may answer a request before aiohttp has made anything of it; see express.py."""

    def take(self, message: RawRequestMessage, payload: StreamReader, answer_to: AnswerTo) -> bool:
        """Take a request, and call `answer` once, now or later; or return False, with nothing done."""
        ...


EXPRESS: Final = web.AppKey("EXPRESS", Express)  # in an application that has a lane


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeLimits:
    """Seconds for a head, for a body, between requests, and for a client to read on; connections."""

    header_timeout_s: float = 10
    body_timeout_s: float = 10
    keepalive_timeout_s: float = 75
    unread_timeout_s: float = 60
    connections_per_address: int = 1024


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
    connections: dict[str, int] = field(default_factory=dict)  # open ones, by address
    draining: bool = False
    empty: asyncio.Event = field(default_factory=asyncio.Event)

    def admit(self, address: str) -> bool:
        """Count a new connection in, unless its address has enough."""
        open_here = self.connections.get(address, 0)
        if open_here >= self.limits.connections_per_address:
            return False
        self.connections[address] = open_here + 1
        self.empty.clear()
        return True

    def release(self, address: str) -> None:
        """Count a connection out."""
        self.connections[address] -= 1
        if not self.connections[address]:
            del self.connections[address]
        if not self.connections:
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
