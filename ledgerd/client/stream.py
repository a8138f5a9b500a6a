"""Any number of payments over one stream of NDJSON, sent and answered at once, in order, in bounded memory.

At most WINDOW payments have been taken from the source and have no result. When a connection breaks, those
are sent again on the next one, under the same ids: what had counted is replayed. A payment whose own result
is a 5xx breaks the connection likewise.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import AsyncExitStack
from itertools import islice
from typing import Final

import aiohttp

from ledgerd.client.calls import NDJSON, REQUEST_ID, Attempts, Calls, failures
from ledgerd.client.errors import Failed, OutcomeUnknown, Problem, failed, problem_of
from ledgerd.client.models import Line, Payment, encode_payment, reader
from ledgerd.client.results import Result, each, read_result

WINDOW: Final = 4_000  # twice what the service holds of a stream
CHUNK: Final = 250  # payments sent in one piece
KEEP_ALIVE_S: Final = 3.0  # the service ends a stream that is silent for body_timeout_s
LINE_BYTES_MAX: Final = 1 << 20

_read_line = reader(Line)


class Stream:
    """One run through a source of payments, over as many connections as it takes."""

    def __init__(self, calls: Calls, payments: Iterable[Payment] | AsyncIterable[Payment]) -> None:
        self._calls = calls
        self._payments = payments
        self._attempts = Attempts(calls.patience, "a stream of payments", moves_money=True)
        self.pending: deque[Payment] = deque()  # taken and without a result, oldest first
        self.ended = False  # the source has
        self.news = asyncio.Event()  # something is pending, or the source has ended
        self._room = asyncio.Event()

    async def results(self) -> AsyncGenerator[Result, None]:
        """Yield the result of each payment, in order."""
        taking = asyncio.get_running_loop().create_task(self._take())
        connection: _Connection | None = None
        try:
            while await self._is_something_pending():
                connection = connection or _Connection(self._calls, self)
                trouble = await connection.read()
                if connection.results:
                    self._attempts.progressed()
                    self._room.set()
                    while connection.results:
                        yield connection.results.popleft()
                if trouble is not None:
                    gave_up_on_one = connection.stumbled
                    await connection.close()
                    connection = None
                    try:
                        await self._attempts.again(trouble)
                    except OutcomeUnknown as unknown:
                        if not gave_up_on_one:
                            raise
                        self._attempts.progressed()
                        self._room.set()
                        yield Result(self.pending.popleft(), unknown)
            await taking  # raises what the source raised
        finally:
            if connection is not None:
                await connection.close()
            taking.cancel()
            await asyncio.wait([taking])

    async def _take(self) -> None:
        """Take payments from the source, as there is room for them."""
        try:
            async for payment in each(self._payments):
                while len(self.pending) >= WINDOW:
                    self._room.clear()
                    await self._room.wait()
                self.pending.append(payment)
                self.news.set()
        finally:
            self.ended = True
            self.news.set()

    async def _is_something_pending(self) -> bool:
        while not self.pending and not self.ended:
            self.news.clear()
            await self.news.wait()
        return bool(self.pending)


class _Connection:
    """One stream to the service. `results` have come and wait to be taken."""

    def __init__(self, calls: Calls, stream: Stream) -> None:
        self.results: deque[Result] = deque()
        self.stumbled = False  # over the result of one payment
        self._calls = calls
        self._stream = stream
        self._open = AsyncExitStack()
        self._response: aiohttp.ClientResponse | None = None
        self._sent = 0  # of what is pending
        self._begun = b""  # of the line whose end has not come
        self._watch: asyncio.Timeout | None = None

    async def read(self) -> Problem | Failed | None:
        """Wait for results; return why no more will come, if so."""
        try:
            with failures():
                async with asyncio.timeout(self._calls.timeout_s if self._sent else None) as self._watch:
                    if self._response is None:
                        self._response = await self._open.enter_async_context(
                            self._calls.open("POST", "/api/make-payments/", self._lines(), NDJSON)
                        )
                    piece = await self._response.content.readany()
                self._split(piece)
        except (Problem, Failed) as trouble:
            return trouble
        finally:
            self._watch = None
        return None

    async def close(self) -> None:
        """Hang up."""
        await self._open.aclose()

    async def _lines(self) -> AsyncIterator[bytes]:
        """What is sent: all that is pending, and what becomes so, until the source has ended."""
        stream = self._stream
        while True:
            if self._sent < len(stream.pending):
                some = list(islice(stream.pending, self._sent, self._sent + CHUNK))
                if self._sent == 0 and self._watch is not None:
                    self._watch.reschedule(asyncio.get_running_loop().time() + self._calls.timeout_s)
                self._sent += len(some)
                yield b"".join([encode_payment(payment) + b"\n" for payment in some])
            elif stream.ended:
                return
            else:
                stream.news.clear()
                try:
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        await stream.news.wait()
                except TimeoutError:
                    yield b"\n"

    def _split(self, piece: bytes) -> None:
        if not piece:
            raise Failed("the stream ended early", unsure=True)
        *lines, self._begun = (self._begun + piece).split(b"\n")
        if len(self._begun) > LINE_BYTES_MAX:
            raise Failed("a result without end", unsure=True)
        for line in lines:
            self._take_result(_read_line(line))

    def _take_result(self, line: Line) -> None:
        assert self._response is not None
        request_id = self._response.headers.get(REQUEST_ID)
        if line.transaction_id is None:  # every payment that was sent could be read
            problem = problem_of(line.problem or {}, line.status, request_id)
            raise failed(problem) or problem
        if self._sent == 0:
            raise Failed(f"a result of nothing: {line}", unsure=True)
        payment = self._stream.pending[0]
        self.stumbled = line.transaction_id == payment.transaction_id
        self.results.append(read_result(payment, line, request_id))
        self.stumbled = False
        self._stream.pending.popleft()
        self._sent -= 1
