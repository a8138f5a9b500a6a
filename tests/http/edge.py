"""Raw HTTP for the tests of the edge: a served application, bytes sent in pieces, and what comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop
from aiohttp import web

from ledgerd.http.edge import EXPRESS, EdgeLimits
from ledgerd.http.listener import Listener
from ledgerd.http.problems import Problem, problem_bytes
from ledgerd.http.request_body import expect_continue, read_body

GUARD_S = 20  # only ever runs out when a test fails
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
GET_AND_CLOSE = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
BODY_BYTES = 1000


def on_both_loops(scenario: Callable[[], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async scenario on asyncio's own loop and on uvloop, which serves in production."""

    @pytest.mark.parametrize(
        "new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
    )
    def test(new_loop):
        async def guarded():
            async with asyncio.timeout(GUARD_S):
                await scenario()

        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(guarded())

    test.__name__ = scenario.__name__
    return test


@dataclass
class Served:
    """A listener with an application: GET answers 200, POST echoes its body."""

    listener: Listener
    port: int
    refusals: list[int]
    gone: asyncio.Queue[Exception] = field(default_factory=asyncio.Queue)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def send(self, *pieces: bytes) -> bytes:
        """Send the pieces, apart, and return all that comes until the server closes."""
        reader, writer = await self.connect()
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await next_turns()
        received = await until_closed(reader)
        writer.close()
        return received


async def next_turns() -> None:
    """Let the loop deliver what was written."""
    for _ in range(5):
        await asyncio.sleep(0)


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    received = b""
    try:
        while piece := await reader.read(65_536):
            received += piece
    except ConnectionResetError:  # closed while bytes of ours were on their way
        pass
    return received


@asynccontextmanager
async def serving(
    get=None, *, read_timeout_s: float = 60, before_body=None, express=None, **limits: float
) -> AsyncIterator[Served]:
    async def answer(_request):
        return web.Response(text="ok")

    async def echo(request):
        try:
            if before_body is not None:
                await before_body()
            return web.Response(body=await read_body(request, BODY_BYTES, read_timeout_s))
        except Problem as problem:
            body = problem_bytes(problem.slug, problem.detail)
            return web.Response(status=problem.status, body=body, headers=problem.headers)
        except ConnectionError as error:
            served.gone.put_nowait(error)
            raise

    app = web.Application()
    if express is not None:
        app[EXPRESS] = express
    app.router.add_get("/", get or answer, expect_handler=expect_continue)
    app.router.add_post("/", echo, expect_handler=expect_continue)
    refusals: list[int] = []
    listener = Listener(EdgeLimits(**limits), lambda sent: sent or "made-here", refusals.append)
    served = Served(listener, await listener.start(app, "127.0.0.1", 0), refusals)
    try:
        yield served
    finally:
        await listener.close(1)


def post(body: bytes, *headers: str) -> bytes:
    lines = ["POST / HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def chunked(*chunks: bytes) -> list[bytes]:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head, *(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks), b"0\r\n\r\n"]


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers in lower case and the body of the first answer."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status_line.split()[1]), headers, rest[: int(headers.get("content-length", 0))]


def assert_problem(answer: bytes, status: int, slug: str) -> dict[str, str]:
    """A whole problem and nothing after it; returns the headers."""
    seen_status, headers, body = parsed(answer)
    assert (seen_status, headers["content-type"]) == (status, "application/problem+json"), answer
    problem = json.loads(body)
    assert (problem["type"], problem["status"]) == (f"/problems/{slug}", status)
    assert problem["detail"]
    assert headers["x-request-id"] == "made-here"
    always = {"server": "ledgerd", "x-content-type-options": "nosniff", "cache-control": "no-store"}
    assert {name: headers.get(name) for name in always} == always
    assert answer.lower().count(b"\r\nserver:") == 1
    assert answer.endswith(body)
    return headers
