"""Many payments in one call: an array, which is answered whole, and a stream of NDJSON, which is answered
while it is read.

What holds: every payment has a result of its own, in the order sent, and it is what the single call would
have answered. An array that can't be taken is refused whole, before anything is done with it. A stream may be
of any length: what is held of it is bounded, and whoever doesn't read its results is not read on. Where it
must end early, a last result without a transaction_id says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Final

import msgspec
from aiohttp import web

from ledgerd.actors.messages import Overloaded
from ledgerd.http.bodies import NDJSON_TYPE, check_encoding, check_media_type, check_query, split_array
from ledgerd.http.edge import ALWAYS, REQUEST_ID
from ledgerd.http.endpoint import Endpoint, draining, problem_of, respond
from ledgerd.http.in_order import CHUNK, WINDOW, InOrder, refused
from ledgerd.http.lines import Lines
from ledgerd.http.protocol import ClientGone
from ledgerd.http.request_body import give_up_reading, read_body, read_piece, send_continue
from ledgerd.http.route import Call
from ledgerd.storage.ports import StoreError

LINGER_S: Final = 3.0  # for a client that still sends to read how its stream ended

_encode = msgspec.json.Encoder().encode


class BatchEndpoint(Endpoint):
    """Serves the route of many payments."""

    _under_way = 0  # calls

    async def _respond(self, request: web.Request, call: Call, request_id: str) -> web.StreamResponse:
        assert call.caller is not None
        headers, server = request.headers, self._services.config.server
        check_encoding(headers.get("Content-Encoding"))
        is_stream = check_media_type(headers.get("Content-Type"), NDJSON_TYPE)
        if request.query_string:
            check_query(request.query)
        with ExitStack() as place:
            place.enter_context(self._place())
            stall_s = server.request_timeout_s if is_stream else None  # an array has that for the whole
            payments = InOrder(self._services, self._route, call.caller, request_id, stall_s)
            if is_stream:
                return await self._stream(request, payments, request_id)
            limits = self._services.config.limits
            body = await read_body(request, limits.batch_bytes, server.body_timeout_s)
            work = self._array(payments, body, place.pop_all())
        content = await self._desk.under_way.outcome_of(work)
        return respond(200, content, "application/json", request_id)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._under_way >= self._services.config.limits.batches:
            self._services.metrics.overloaded.counts["batches"] += 1
            raise Overloaded("too many batches are under way")
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    # Arrays --------------------------------------------------------------------------------------

    async def _array(self, payments: InOrder, body: bytes, place: ExitStack) -> bytes:
        """Return the results of an array. There must be room for as much of it as is put at once."""
        with place:
            items = split_array(body, self._services.config.limits.batch_items)
            first = []
            for start in range(0, min(len(items), WINDOW), CHUNK):
                first += [payments.read(bytes(item)) for item in items[start : start + CHUNK]]
                await asyncio.sleep(0)
            self._services.registry.check_room([slot.loan_id for slot in first if slot.command is not None])
            rest = (payments.read(bytes(item)) for item in items[len(first) :])
            payments.feed(payments.put(chain(first, rest)))
            try:
                shown = [b",".join(results) async for results in payments.results()]
            finally:
                payments.close()
            if payments.stopped_by is not None:
                raise payments.stopped_by
            return b"".join((b"[", b",".join(shown), b"]"))

    # Streams -------------------------------------------------------------------------------------

    async def _stream(self, request: web.Request, payments: InOrder, request_id: str) -> web.StreamResponse:
        await send_continue(request)
        response = web.StreamResponse(headers={**ALWAYS, "Content-Type": NDJSON_TYPE, REQUEST_ID: request_id})
        gone = False
        payments.feed(self._put_lines(request, payments))
        with self._told_of_draining(payments):
            try:
                async for results in payments.results():  # what was read is put, whoever is there to hear
                    gone = gone or not await _sent(request, response, results)
            finally:
                payments.close()
        reason = payments.stopped_by
        if gone or isinstance(reason, ClientGone):
            if not response.prepared:
                raise ClientGone("the client hung up within its request")
        elif reason is not None:
            give_up_reading(request, LINGER_S)
            problem = problem_of(reason, self._route, request_id)
            if not response.prepared:
                raise problem
            await _sent(request, response, [_encode(refused(None, problem))])
        elif not response.prepared:
            await response.prepare(request)
        return response

    async def _put_lines(self, request: web.Request, payments: InOrder) -> None:
        """Put the payments of a stream, until it ends or the journal does."""
        limits, server = self._services.config.limits, self._services.config.server
        committer = self._services.registry.committer
        lines = Lines(limits.line_bytes)
        while piece := await read_piece(request, server.body_timeout_s):
            await payments.put(map(payments.read, lines.split(piece)))
            if committer.broken:
                raise StoreError("the journal has ended")
        await payments.put(map(payments.read, lines.end()))

    @contextmanager
    def _told_of_draining(self, payments: InOrder) -> Iterator[None]:
        def stop() -> None:
            payments.stop(draining())

        self._services.at_drain.add(stop)
        if self._services.draining:  # since the call began
            stop()
        try:
            yield
        finally:
            self._services.at_drain.discard(stop)


async def _sent(request: web.Request, response: web.StreamResponse, results: list[bytes]) -> bool:
    """Send results, once the client takes them; return whether it is still there."""
    try:
        if not response.prepared:
            await response.prepare(request)
        await response.write(b"\n".join((*results, b"")))
    except ConnectionError:
        return False
    return True
