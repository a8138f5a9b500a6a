"""A small HTTP/1.1 client for loads that wrk can't make: whole batches, each answer looked at, ids that are
remembered.

A closed loop: each connection sends the next request as soon as the last is answered. No task and no timer
runs for a request, so that one core sends some thirty thousand a second.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import cast

OnAnswer = Callable[[bytes, int, bytes], object]  # the request as it was sent, the status, the body


class Answers:
    """What came back: seconds each request took, in order of the answers, and how often each status."""

    def __init__(self) -> None:
        self.took_s: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.sent = 0
        self.broken = 0  # connections that ended while an answer was due
        self.seconds = 0.0
        self.cpu_s = 0.0

    def percentile_ms(self, share: float) -> float:
        """Return the latency in ms that `share` of the answers did not pass; NaN when there is none."""
        if not self.took_s:
            return float("nan")
        return sorted(self.took_s)[min(int(len(self.took_s) * share), len(self.took_s) - 1)] * 1000


class Load:
    """One run of the client over a number of connections; `stop` ends it when the requests don't."""

    def __init__(self, requests: Iterable[bytes], on_answer: OnAnswer | None = None) -> None:
        self.answers = Answers()
        self.stopping = False
        self._requests = iter(requests)
        self._on_answer = on_answer
        self._open: set[_Connection] = set()
        self._ended = asyncio.Event()

    async def run(self, port: int, connections: int, host: str = "127.0.0.1") -> Answers:
        """Send all requests, or until `stop`; every one that was sent is waited for."""
        loop = asyncio.get_running_loop()
        started_s, cpu_s = time.perf_counter(), time.process_time()
        for _ in range(connections):
            _, connection = await loop.create_connection(lambda: _Connection(self), host, port)
            self._open.add(connection)
        for connection in list(self._open):
            connection.send_next()
        if self._open:
            await self._ended.wait()
        self.answers.seconds = time.perf_counter() - started_s
        self.answers.cpu_s = time.process_time() - cpu_s
        return self.answers

    def stop(self) -> None:
        """Send no more."""
        self.stopping = True

    def take(self) -> bytes | None:
        return None if self.stopping else next(self._requests, None)

    def answered(self, request: bytes, took_s: float, status: int, body: bytes) -> None:
        self.answers.took_s.append(took_s)
        self.answers.statuses[status] += 1
        if self._on_answer is not None:
            self._on_answer(request, status, body)

    def ended(self, connection: _Connection) -> None:
        self._open.discard(connection)
        if not self._open:
            self._ended.set()


class _Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._request: bytes | None = None
        self._sent_s = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send_next(self) -> None:
        self._request = self._load.take()
        if self._request is None:
            self._transport.close()
            return
        self._load.answers.sent += 1
        self._sent_s = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer = self._buffer + data if self._buffer else data
        head_end = buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        start = buffer.lower().find(b"\r\ncontent-length:", 0, head_end + 2)
        body_start = head_end + 4
        length = int(buffer[start + 17 : buffer.find(b"\r\n", start + 2)]) if start >= 0 else 0
        if len(buffer) < body_start + length:
            return
        request, self._request, self._buffer = self._request, None, b""
        assert request is not None
        took_s = time.perf_counter() - self._sent_s
        self._load.answered(request, took_s, int(buffer[9:12]), buffer[body_start : body_start + length])
        self.send_next()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        if self._request is not None:
            self._load.answers.broken += 1
        self._load.ended(self)


# Requests ----------------------------------------------------------------------------------------


def get(path: str, token: str) -> bytes:
    """Return the bytes of a GET."""
    return f"GET {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


def post(path: str, token: str, body: bytes, content_type: str = "application/json") -> bytes:
    """Return the bytes of a POST."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def payment(loan_id: str, transaction_id: str, amount: str = "1.00") -> bytes:
    """Return the JSON of a payment."""
    return f'{{"loan_id":"{loan_id}","amount":"{amount}","transaction_id":"{transaction_id}"}}'.encode()


def payments(loans: Sequence[str], tokens: Sequence[str], name: str) -> Iterator[bytes]:
    """Yield single payments of 1.00 without end, on random loans, each under an id that begins at random and
    holds `name`, which must be new in the ledger.
    """
    random = Random(name)
    for number in itertools.count():
        transaction_id = f"{random.getrandbits(32):08x}-{name}-{number}"
        loan_id = loans[int(random.random() * len(loans))]
        token = tokens[int(random.random() * len(tokens))]
        yield post("/api/make-payment/", token, payment(loan_id, transaction_id))


def batch(loans: Sequence[str], name: str, count: int) -> list[bytes]:
    """Return the JSON of `count` payments likewise."""
    random = Random(name)
    return [
        payment(loans[int(random.random() * len(loans))], f"{random.getrandbits(32):08x}-{name}-{number}")
        for number in range(count)
    ]
