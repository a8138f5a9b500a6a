"""Conversations in raw bytes with a World, and requests as a hostile or broken client would write them."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ledgerd.http.edge import EdgeLimits
from ledgerd.http.listener import Listener
from tests.http.edge import next_turns
from tests.http.outside import ALWAYS, OWN_HEADERS, REQUEST_ID, Caller, World

GUARD_S = 60  # only ever runs out when a test fails
TIMEOUT_S = 5  # for what never comes whole: nothing else may take so long, on a busy machine either
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class RawAnswer:
    """One answer of a connection, without what differs between any two."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def slug(self) -> str:
        return json.loads(self.body)["type"].removeprefix("/problems/") if self.status >= 400 else ""


def answers_of(received: bytes) -> list[RawAnswer]:
    """Take a connection's bytes apart; AssertionError unless they are whole answers of ours, and no more."""
    answers = []
    while received:
        if received.startswith(CONTINUE):
            received = received.removeprefix(CONTINUE)
            continue
        head, end, rest = received.partition(b"\r\n\r\n")
        assert end, received
        status_line, *lines = head.decode("ascii").split("\r\n")
        version, status, _ = status_line.split(" ", 2)
        assert version in {"HTTP/1.1", "HTTP/1.0"}, status_line
        pairs = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines)]
        headers = dict(pairs)
        assert len(headers) == len(pairs), head
        assert REQUEST_ID.fullmatch(headers["x-request-id"]), head
        assert {name: headers.get(name.lower()) for name in ALWAYS} == ALWAYS, head
        size = int(headers.get("content-length", "0"))
        body, received = rest[:size], rest[size:]
        assert len(body) == size, received
        if int(status) >= 400:
            assert headers["content-type"] == "application/problem+json", head
            assert json.loads(body)["status"] == int(status)
        kept = tuple(sorted((name, value) for name, value in pairs if name not in OWN_HEADERS))
        answers.append(RawAnswer(int(status), kept, body))
    return answers


class Heard(asyncio.Protocol):
    """All that comes, also before a reset."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, _error: Exception | None) -> None:
        self.ended.set()


@dataclass
class Wire:
    """A world, a port, and a loan whose one payment can be replayed."""

    world: World
    port: int
    borrower: Caller
    loan_id: str

    def payment(self, transaction_id: str = "paid", **changed: Any) -> bytes:
        body = {"loan_id": self.loan_id, "amount": "1.00", "transaction_id": transaction_id, **changed}
        return json.dumps(body).encode()

    def request(self, body: bytes, *lines: bytes, target: bytes = b"/api/make-payment/") -> bytes:
        """A payment as it should be sent, but for its framing, which stands in `lines`."""
        head = [
            b"POST %s HTTP/1.1" % target,
            b"Host: x",
            b"Authorization: Bearer %s" % self.borrower.token.encode(),
            b"Content-Type: application/json",
            *lines,
        ]
        return b"\r\n".join([*head, b"", b""]) + body

    async def received(self, pieces: Sequence[bytes]) -> bytes:
        """Send the pieces, apart, and return all that comes until the server closes."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(GUARD_S):
            transport, heard = await loop.create_connection(Heard, "127.0.0.1", self.port)
            for piece in pieces:
                if not transport.is_closing():
                    transport.write(piece)
                await next_turns()
            await heard.ended.wait()
            return bytes(heard.received)

    async def send(self, *pieces: bytes) -> list[RawAnswer]:
        """The same, as answers."""
        return answers_of(await self.received(pieces))


@asynccontextmanager
async def wired(world: World) -> AsyncIterator[Wire]:
    """Serve a world on one more port, whose timeouts are short."""
    limits = EdgeLimits(
        header_timeout_s=TIMEOUT_S,
        body_timeout_s=TIMEOUT_S,
        keepalive_timeout_s=TIMEOUT_S,
        connections_per_address=4_000,
    )
    listener = Listener(limits, world.service.choose_request_id)
    port = await listener.start(world.service.application(world.access), "127.0.0.1", 0)
    try:
        borrower = await world.borrower()
        loan_id = (await world.lend(borrower))["loan_id"]
        assert (await world.pay(borrower, loan_id, "1.00", "paid")).status == 201
        yield Wire(world, port, borrower, loan_id)
    finally:
        await listener.close(1)


# Odd requests -------------------------------------------------------------------------------


def odd_requests(wire: Wire) -> list[bytes]:
    """A payment that was made before, with one thing odd about each."""
    payment = wire.payment()
    length = b"Content-Length: %d" % len(payment)
    good = wire.request(payment, length)
    kind = b"Content-Type: application/json"
    return [
        good,
        *(wire.request(payment, extra, length) for extra in EXTRAS),
        *(wire.request(payment, length, extra) for extra in EXTRAS),
        *(wire.request(payment, length, target=target) for target in TARGETS),
        *(good.replace(kind, odd_kind) for odd_kind in KINDS),
        *(
            wire.request(b"%x\r\n%s\r\n%s" % (len(payment), payment, last), coding)
            for coding in (b"Transfer-Encoding: chunked", *CODINGS)
            for last in LAST_CHUNKS
        ),
        *(good.replace(b"HTTP/1.1", version, 1) for version in (b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"")),
    ]


class Scribe:
    """Writes requests, most of them nearly good, from a seed. None of them does anything: every payment in
    them was made before, or is refused.
    """

    def __init__(self, wire: Wire, seed: int) -> None:
        self.wire = wire
        self.random = random.Random(seed)

    def _mostly(self, usual: bytes, odd: Sequence[bytes], odds: float = 0.1) -> bytes:
        return self.random.choice(odd) if self.random.random() < odds else usual

    def request(self) -> bytes:
        body = self._body()
        method = self._mostly(b"POST", [b"GET", b"PUT", b"OPTIONS", b"post", b"P@ST", b"PRI", b"CONNECT"])
        target = self._mostly(b"/api/make-payment/", TARGETS, 0.3)
        version = self._mostly(b"HTTP/1.1", [b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b""], 0.1)
        framing, framed = self._framed(body)
        lines = [
            self._mostly(b"Host: x", [b"", b"Host: x\r\nHost: y", b"Host:", b"Host: evil\x00", b"Host : x"]),
            self._mostly(
                b"Authorization: Bearer " + self.wire.borrower.token.encode(),
                [b"", b"Authorization: Bearer x", b"Authorization: Basic eA==", b"authorization:Bearer"],
            ),
            self._mostly(b"Content-Type: application/json", KINDS),
            framing,
        ]
        if self.random.random() < 0.4:
            lines.insert(self.random.randrange(len(lines)), self.random.choice(EXTRAS))
        line_end = self._mostly(b"\r\n", [b"\n", b"\r", b"\r\r\n"], 0.05)
        head = [b" ".join([method, target, version]).strip(), *(line for line in lines if line)]
        return line_end.join([*head, b"", b""]) + framed

    def _body(self) -> bytes:
        payment = self.wire.payment()
        return self.random.choice(
            [payment] * 4
            + [
                self.wire.payment("never", loan_id="0" * 16),
                self.wire.payment("paid", amount="2.00"),
                self.wire.payment("never", amount="1e2"),
                payment[:-1],
                payment + b" ",
                payment.ljust(16_385),
                b"",
            ]
        )

    def _framed(self, body: bytes) -> tuple[bytes, bytes]:
        """How long the body is said to be, and the body as it comes."""
        size = len(body)
        odd = self.random.random()
        if odd < 0.5:
            return b"Content-Length: %d" % size, body
        if odd < 0.7:
            return self._mostly(b"Transfer-Encoding: chunked", CODINGS, 0.3), self._chunked(body)
        lines = [
            b"",
            b"Content-Length: %d\r\nContent-Length: %d" % (size, size),
            b"Content-Length: %d\r\nContent-Length: %d" % (size, size + 1),
            b"Content-Length: %d, %d" % (size, size),
            b"Content-Length: %d\r\nTransfer-Encoding: chunked" % size,
            b"Transfer-Encoding: chunked\r\nContent-Length: %d" % size,
            *(b"Content-Length: " + spelled % size for spelled in (b"+%d", b"-%d", b"0%d", b"%d.0", b"0x%x")),
            b"Content-Length : %d" % size,
            b"Content-Length:\n %d" % size,
            b"Content-Length: %d" % max(size - self.random.randrange(1, 20), 0),
            b"Content-Length: %d" % (size + self.random.randrange(1, 20)),
            b"Content-Length: %d" % 10**30,
        ]
        return self.random.choice(lines), body

    def _chunked(self, body: bytes) -> bytes:
        cut = self.random.randrange(len(body) + 1)
        text = b""
        for chunk in filter(None, (body[:cut], body[cut:])):
            size = self._mostly(b"%x" % len(chunk), [b"%X" % len(chunk), b"000%x" % len(chunk)], 0.2)
            more = self._mostly(b"", [b";a=b", b';a="\r\n"', b" ", b";" + b"x" * 5_000], 0.1)
            text += size + more + self._mostly(b"\r\n", [b"\n"], 0.05)
            text += chunk + self._mostly(b"\r\n", [b"\n", b"", b"x\r\n"], 0.05)
        return text + self._mostly(b"0\r\n\r\n", LAST_CHUNKS, 0.2)

    def cuts(self, request: bytes) -> list[bytes]:
        """The same bytes in a few pieces."""
        places = sorted(self.random.randrange(len(request) + 1) for _ in range(self.random.randint(1, 4)))
        edges = [0, *places, len(request)]
        return [request[start:end] for start, end in pairwise(edges) if end > start]


TARGETS = [
    b"/api/make-payment",
    b"/api/make-payment/?a=1",
    b"/api/make-payment/?a=1&a=2",
    b"/api/make-payment/#x",
    b"/api/make%2Dpayment/",
    b"//api/make-payment/",
    b"/api/./make-payment/",
    b"http://evil/api/make-payment/",
    b"http://evil",
    b"evil:80",
    b"*",
    b"/api/make-payment/\x7f",
    b"/api/make-payment/ x",
    b"/api/me/",
    b"/api/login/",
    b"/api/payments/paid/",
    b"/" + b"x" * 9_000,
]
KINDS = [
    b"",
    b"Content-Type: text/plain",
    b"Content-Type: application/json\r\nContent-Type: text/plain",
    b"Content-Type: application/json; charset=utf-16",
    b"Content-Type:\tapplication/json\t",
]
CODINGS = [
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: Chunked",
    b"Transfer-Encoding:\x0bchunked",
    b"Transfer-Encoding : chunked",
    b" Transfer-Encoding: chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: identity, chunked",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding:\r\n chunked",
    b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding: chunked\x00",
    b"Transfer_Encoding: chunked",
]
LAST_CHUNKS = [
    b"0\r\nA: b\r\n\r\n",
    b"0\r\n",
    b"",
    b"0;x\r\n\r\n",
    b"-1\r\n\r\n",
    b"0\n\n",
    b"f" * 20 + b"\r\n",
]
EXTRAS = [
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: Upgrade\r\nUpgrade: h2c",
    b"Upgrade: websocket",
    b"Expect: 100-continue",
    b"Expect: evil",
    b"Content-Encoding: identity",
    b"Content-Encoding: gzip",
    b"X-Request-ID: mine",
    b"X-Request-ID: evil\x01",
    b"X-Request-ID: mine\r\nX-Request-ID: yours",
    b"X-HTTP-Method-Override: GET",
    b"Trailer: Authorization",
    b"A: b\r\n c",
    b"A: \x00",
    b"A\x00: b",
    b"A b: c",
    b": b",
    b"no colon",
    b"A: " + b"x" * 9_000,
    b"\r\n".join([b"A: b"] * 130),
    "Ä: ü".encode("latin-1"),
]
