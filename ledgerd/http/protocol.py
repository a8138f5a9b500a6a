"""The edge of a connection: bounds that aiohttp lacks, a problem for whatever aiohttp refuses by itself, and
the express lane's way in.

What holds: a connection that sends nothing, a request whose head or body does not come whole in time, and an
answer that nobody reads all end by themselves; one address can't take every connection; no answer is HTML or
shows internals. A request that comes in one piece sets no timer. listener.py serves an application over it;
request_body.py reads bodies.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Mapping
from typing import Any, Final, cast

from aiohttp import HttpVersion10, HttpVersion11, web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from aiohttp.web_protocol import RequestHandler, RequestPayloadError, _ErrInfo

from ledgerd.http.edge import ALWAYS, REQUEST_ID, Edge
from ledgerd.http.problems import CONTENT_TYPE, PROBLEMS, problem_bytes
from ledgerd.observe import log

HEADER_LINE_BYTES_MAX: Final = 8190
HEAD_BYTES_MAX: Final = 32_768  # of all its lines
_VERSIONS: Final = (HttpVersion11, HttpVersion10)

_SLUGS: Final = {  # what aiohttp refuses, by status; the rest is malformed below 500 and a bug from there on
    404: "not-found",
    405: "method-not-allowed",
    408: "request-timeout",
    413: "body-too-large",
    415: "unsupported-media-type",
    417: "expectation-failed",
}


# The id in a request that the parser refused, as far as it stands in what came last.
_SENT_ID: Final = re.compile(rb"\r\nX-Request-ID:[ \t]*([A-Za-z0-9._-]{1,64})[ \t]*\r\n", re.IGNORECASE)


class HeadTooLong(BadHttpMessage):
    """A head has more lines than anybody needs: what it says is not looked at."""


class ClientGone(ConnectionError):
    """The client hung up before its request had come whole: nothing was done, and nobody reads an answer."""


class Connection(RequestHandler):
    """One client's connection."""

    __slots__ = (
        "_body",
        "_edge",
        "_head_began",
        "_head_bytes",
        "_head_timer",
        "_in_express",
        "_is_deaf",
        "_is_resting",
        "_network",
        "_next_is_due",
        "_requests_seen",
        "_unread_bytes",
        "_unread_id",
        "_unread_timer",
    )

    def __init__(self, manager: web.Server, edge: Edge, **options: Any) -> None:
        super().__init__(manager, **options)
        # A request that is taken before its body has come whole stays counted in the parser, which then holds
        # back one request earlier than aiohttp looks for what was held back.
        self._max_msg_queue_size -= 1
        self._edge = edge
        self._network: bytes | None = None  # None as long as it is not admitted
        self._body: StreamReader = EMPTY_PAYLOAD  # of the newest request
        self._requests_seen = 0
        self._unread_id: str | None = None  # of a request that the parser refused: the connection's last
        self._head_began = False
        self._head_bytes = 0  # of a head on its way
        self._is_deaf = False  # the head was too long: nothing that comes is read
        self._head_timer: asyncio.TimerHandle | None = None
        self._in_express = False  # the express lane has a request of this connection
        self._is_resting = False  # what comes meanwhile waits
        self._next_is_due = False
        self._unread_bytes = 0
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or refuse it before a byte of it is read."""
        peer = transport.get_extra_info("peername")
        address = peer[0] if isinstance(peer, tuple) else ""
        self._network = self._edge.admit(address)
        if self._network is None:
            limits = self._edge.limits
            detail = (
                f"At most {limits.connections_per_address} connections of one address may be open,"
                f" and {limits.connections} in all."
            )
            cast("asyncio.Transport", transport).write(self._edge.head_and_body("overloaded", detail))
            transport.close()
            return
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Let go of what belongs to the connection. A handler that runs goes on."""
        super().connection_lost(exc)
        self._stop_head_timer()
        self._stop_unread_timer()
        if self._network is not None:
            self._edge.release(self._network)
            self._network = None

    # What comes in -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Feed the parser, see whether a head is on its way, and have what has come answered."""
        if self._is_deaf:
            return
        body = self._body
        in_body = not body.is_eof()
        waiter, self._waiter = self._waiter, None  # aiohttp sleeps on: the express lane looks first
        try:
            RequestHandler.data_received(self, data)  # super() costs every request
        finally:
            self._waiter = waiter
        if self._request_count != self._requests_seen:
            self._refuse_bad_heads(
                self._request_count - self._requests_seen, self._head_bytes + len(data) > HEAD_BYTES_MAX
            )
            self._requests_seen = self._request_count
            self._head_bytes = 0
            self._body = self._messages[-1][1] if self._messages else EMPTY_PAYLOAD
            if self._head_timer is not None:
                self._stop_head_timer()
            if in_body and not body.is_eof():
                # The parser's complaint stands in the queue: it lost the body, and tells no reader.
                body.set_exception(RequestPayloadError("bad framing"))
        elif not in_body and (self._head_began or data.strip(b"\r\n")):
            if not self._head_began:
                self._head_began = True
                self._start_head_timer()
            if not self._buffer_paused:  # then it is whole requests that wait
                self._head_bytes += len(data)
                if self._head_bytes > HEAD_BYTES_MAX:
                    self._refuse_long_head()
        if self._messages and not isinstance(self._messages[-1][0], RawRequestMessage):
            sent_ids = _SENT_ID.findall(data)
            self._unread_id = sent_ids[-1].decode() if sent_ids else None
        if data and self._messages:  # without data aiohttp parses what was held back, and relies on its count
            self._next()

    def _refuse_bad_heads(self, newest: int, may_be_long: bool) -> None:
        """Have those among the newest requests refused whose head is too long, or that are in another HTTP
        than 1.0 or 1.1: the parser takes 0.9, which has no headers to answer by, and 2.0, which is no text.
        """
        for place in range(-newest, 0):
            message = self._messages[place][0]
            if not isinstance(message, RawRequestMessage):
                continue
            if message.version not in _VERSIONS:
                self._messages[place] = (_refusal(BadHttpMessage("another version of HTTP")), EMPTY_PAYLOAD)
            elif message.version != HttpVersion11 and message.chunked:  # RFC 9112, 6.1: faulty framing
                self._messages[place] = (_refusal(BadHttpMessage("chunks in HTTP/1.0")), EMPTY_PAYLOAD)
            elif may_be_long and _head_bytes(message) > HEAD_BYTES_MAX:
                self._messages[place] = (_refusal(HeadTooLong("long head")), EMPTY_PAYLOAD)

    def _refuse_long_head(self) -> None:
        """Refuse, in its turn, the head that is on its way, and read no more."""
        self._is_deaf = True
        self._messages.append((_refusal(HeadTooLong("long head")), EMPTY_PAYLOAD))
        self._request_count += 1
        self._requests_seen += 1
        self._stop_head_timer()

    # The express lane ----------------------------------------------------------------------------

    def _next(self) -> None:
        """Have the oldest request that waits answered: by the express lane, or else by aiohttp, which sleeps
        on its `_waiter` meanwhile.
        """
        self._next_is_due = False
        waiter = self._waiter
        if self._in_express or self._is_resting or self._paused:
            return
        if not self._messages or waiter is None or waiter.done():
            return
        express = self._edge.express
        message, payload = self._messages[0]
        if express is not None and isinstance(message, RawRequestMessage):
            self._messages.popleft()
            self._in_express = True
            if express.take(message, payload, self):
                self._make_room()
                self._next_soon()
                return
            self._in_express = False
            self._messages.appendleft((message, payload))
        waiter.set_result(None)

    def _next_soon(self) -> None:
        """Go on in the next turn of the loop: an actor may be in the middle of its answers."""
        if self._messages and not self._next_is_due:
            self._next_is_due = True
            self._loop.call_soon(self._next)

    def _make_room(self) -> None:
        """Let the parser go on, as aiohttp does when it has taken a request from the queue."""
        if self._parser is not None:
            self._parser.message_consumed()
        if self._buffer_paused and len(self._messages) <= self._msg_queue_resume_size:
            self._resume_reading_if_drained()

    def answer(self, head: str, body: bytes, rest_s: float = 0.0) -> None:
        """Send the answer to the request that the express lane took, and rest for so long. A client that hung
        up gets none.
        """
        self._in_express = False
        transport = self.transport
        if transport is None:
            return
        if self._edge.draining:
            transport.write(f"{head}Connection: close\r\n\r\n".encode() + body)
            self.close()
            transport.close()
            return
        transport.write(f"{head}\r\n".encode() + body)
        self._next_keepalive_close_time = close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(close_time, self._process_keepalive)
        if rest_s:
            self._is_resting = True
            self._loop.call_later(rest_s, self._rested)
        else:
            self._next_soon()

    def _rested(self) -> None:
        self._is_resting = False
        self._next()

    def abort(self) -> None:
        """Cut the connection: the request that the express lane took has no answer."""
        self._in_express = False
        if self.transport is not None:
            self.transport.abort()
            self.force_close()  # nothing that waits behind it is served

    def _process_keepalive(self) -> None:
        if self._in_express or self._messages:  # those wait for the client to read on
            self._keepalive_handle = None  # the answer begins it again
        else:
            super()._process_keepalive()

    # A head that does not come -------------------------------------------------------------------

    def _start_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._head_timer = self._loop.call_later(self._edge.limits.header_timeout_s, self._head_overdue)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._head_began = False

    def _head_overdue(self) -> None:
        if self.transport is None or self._request_count != self._requests_seen:
            self._stop_head_timer()
        elif self._waiter is None or self._in_express:  # an earlier request is still being answered
            self._start_head_timer()
        else:
            if self._head_began:
                detail = f"The head took longer than {self._edge.limits.header_timeout_s:g} s."
                self.transport.write(self._edge.head_and_body("request-timeout", detail))
            self.force_close()

    def close_if_idle(self) -> None:
        """Close the connection unless a whole head has come and is not answered yet."""
        if self._waiter is not None and not self._messages and not self._in_express:
            self.force_close()

    # A body or an answer that does not move ------------------------------------------------------

    def give_up_reading(self, linger_s: float = 0.0) -> None:
        """Close the connection behind the coming answer, `linger_s` after it if more of the body comes."""
        self._lingering_time = linger_s
        self.close()

    def pause_writing(self) -> None:
        """The client reads its answers slower than we write: see that it goes on."""
        super().pause_writing()
        self._watch_unread()

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        self._stop_unread_timer()
        self._next_soon()

    def _watch_unread(self) -> None:
        if self.transport is not None:
            self._unread_bytes = self.transport.get_write_buffer_size()
            self._unread_timer = self._loop.call_later(
                self._edge.limits.unread_timeout_s, self._unread_overdue
            )

    def _stop_unread_timer(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None

    def _unread_overdue(self) -> None:
        if self.transport is None:
            return
        if self.transport.get_write_buffer_size() < self._unread_bytes:
            self._watch_unread()
        else:
            self.transport.abort()

    def log_exception(self, *args: Any, **options: Any) -> None:
        """Log a bug; a body that turns bad behind its answer is none."""
        if not isinstance(options.get("exc_info"), RequestPayloadError):
            super().log_exception(*args, **options)

    # Answers -------------------------------------------------------------------------------------

    def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> Coroutine[Any, Any, tuple[web.StreamResponse, bool]]:
        """Send the answer; one that aiohttp raised goes out as a problem."""
        # The first test is for speed: aiohttp's responses are ABCs, slow to ask for their kind.
        if type(resp) is not web.Response and isinstance(resp, web.HTTPException) and resp.status >= 400:
            resp = self._problem(request, resp.status, resp.headers)
        # What stands behind an Upgrade that nobody wanted would not be looked at.
        if self._edge.draining or request._message.upgrade:  # noqa: SLF001
            resp.force_close()
        return RequestHandler.finish_response(self, request, resp, start_time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it shows internals
    ) -> web.StreamResponse:
        """Answer what the parser refused (400), or what a handler raised (500), and close the connection."""
        if isinstance(exc, ConnectionError) and (self.transport is None or self.transport.is_closing()):
            raise ClientGone("the client hung up") from exc
        if status >= 500:
            log.error("handler failed", method=request.method, exc_info=exc or True)
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer is out: it can only be cut off")
        detail = None
        if isinstance(exc, HeadTooLong):
            detail = f"The head of the request is longer than {HEAD_BYTES_MAX} bytes."
        elif isinstance(exc, LineTooLong):
            detail = f"The request line or a header is longer than {HEADER_LINE_BYTES_MAX} bytes."
        response = self._problem(request, status, {"Connection": "close"}, detail)
        response.force_close()
        return response

    def _problem(
        self, request: web.BaseRequest, status: int, headers: Mapping[str, str], detail: str | None = None
    ) -> web.Response:
        slug = _SLUGS.get(status, "malformed" if status < 500 else "internal")
        kind = PROBLEMS[slug]
        self._edge.on_refusal(kind.status)
        kept = {name: headers[name] for name in ("Allow", "Connection") if name in headers}
        request_id = self._edge.request_id(request.headers.get(REQUEST_ID) or self._unread_id)
        return web.Response(
            status=kind.status,
            body=problem_bytes(slug, kind.advice if detail is None else detail),
            headers={**ALWAYS, **kept, "Content-Type": CONTENT_TYPE, REQUEST_ID: request_id},
        )


def _refusal(exc: BadHttpMessage) -> _ErrInfo:
    return _ErrInfo(400, exc, "")


def _head_bytes(message: RawRequestMessage) -> int:
    """Return how long a head was, without the version and what separates its parts."""
    return len(message.path) + sum(len(name) + len(value) + 4 for name, value in message.raw_headers)
