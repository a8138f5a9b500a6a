"""Reads the body of a request: whole, within a size and a time, or piece by piece. Works under any aiohttp
server; under our own (protocol.py) a connection whose body is given up is closed behind the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestPayloadError

from ledgerd.http.problems import Problem
from ledgerd.http.protocol import ClientGone, Connection


async def expect_continue(request: web.Request) -> None:
    """Look at `Expect` and send nothing yet: `read_body` says 100 when it wants the body. For `add_route`."""
    if request.headers["Expect"].lower() != "100-continue":
        raise web.HTTPExpectationFailed


async def send_continue(request: web.Request) -> None:
    """Ask for the body if the client waits to be asked."""
    if "Expect" in request.headers and request.version >= (1, 1):
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun


async def read_body(request: web.Request, limit_bytes: int, timeout_s: float) -> bytes:
    """Return the whole body, at once when it is here already.

    Raises Problem `body-too-large`, `request-timeout` and `malformed` (bad chunks), or ClientGone.
    """
    content = request.content
    if content.is_eof():
        if content.total_bytes > limit_bytes:
            raise _too_large(limit_bytes)
        return whole_body(content)
    with _reading(request, f"The body took longer than {timeout_s:g} s."):
        return await _read_slowly(request, limit_bytes, timeout_s)


async def read_piece(request: web.Request, timeout_s: float) -> bytes:
    """Return what has come of the body, or comes next; b"" at its end.

    Raises Problem `request-timeout` when nothing comes for so long, else as `read_body`.
    """
    with _reading(request, f"Nothing more of the body came for {timeout_s:g} s."):
        async with asyncio.timeout(timeout_s):
            return await _next_piece(request)


@contextmanager
def _reading(request: web.Request, too_slow: str) -> Iterator[None]:
    """Turn what goes wrong with a body into a Problem, or ClientGone."""
    try:
        yield
    except TimeoutError:
        give_up_reading(request)
        raise Problem("request-timeout", too_slow, headers={"Connection": "close"}) from None
    except RequestPayloadError:
        give_up_reading(request)
        detail = "The body's transfer encoding can't be read."
        raise Problem("malformed", detail, headers={"Connection": "close"}) from None
    except ConnectionError as error:
        raise ClientGone("the client hung up within its request") from error


def whole_body(content: StreamReader) -> bytes:
    """Return a body that is here, whole: `content.is_eof()`."""
    # read_nowait() has the parser look for more first, which costs 2 us.
    return b"".join(content._buffer) if content.total_bytes else b""  # noqa: SLF001


async def _read_slowly(request: web.Request, limit_bytes: int, timeout_s: float) -> bytes:
    content = request.content
    if (request.content_length or 0) > limit_bytes:
        raise _too_large(limit_bytes)
    body = bytearray()
    async with asyncio.timeout(timeout_s):
        await send_continue(request)
        while not content.at_eof():
            body += await _next_piece(request)
            if len(body) > limit_bytes:
                raise _too_large(limit_bytes)
    return bytes(body)


async def _next_piece(request: web.Request) -> bytes:
    if request.transport is None:  # lost before the handler began: the body was not told
        raise ConnectionResetError
    return await request.content.readany()


def _too_large(limit_bytes: int) -> Problem:
    return Problem("body-too-large", f"The body may have {limit_bytes} bytes.")


def give_up_reading(request: web.Request, linger_s: float = 0.0) -> None:
    """Read no more of the body, and close the connection behind the answer; see `Connection`."""
    connection = request.protocol
    if isinstance(connection, Connection):
        connection.give_up_reading(linger_s)
    else:
        connection.close()
