"""Bodies in pieces. Whole ones are tested in test_protocol.py, at the edge where their timeouts live."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from ledgerd.http.edge import EdgeLimits
from ledgerd.http.listener import Listener
from ledgerd.http.problems import Problem
from ledgerd.http.protocol import ClientGone
from ledgerd.http.request_body import read_piece
from tests.http.edge import chunked, next_turns, until_closed

SOON_S = 0.1  # a timeout that is meant to run out


@pytest.fixture
async def heard():
    """Serves POST: what `read_piece` says of its body, in order."""
    said: asyncio.Queue[bytes | Exception] = asyncio.Queue()

    async def read(request: web.Request) -> web.Response:
        try:
            while piece := await read_piece(request, SOON_S if "hurry" in request.query else 60):
                said.put_nowait(piece)
            said.put_nowait(b"")
        except (Problem, ClientGone) as error:
            said.put_nowait(error)
        return web.Response()

    app = web.Application()
    app.router.add_post("/", read)
    listener = Listener(EdgeLimits(), lambda _sent: "id")
    port = await listener.start(app, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield said, reader, writer
    writer.close()
    await listener.close(1)


async def test_pieces_come_as_they_are_sent_up_to_the_end(heard):
    said, reader, writer = heard
    head, *pieces = chunked(b"one", b"two")
    writer.write(head)
    for piece, expected in zip(pieces, (b"one", b"two", b""), strict=True):
        writer.write(piece)
        assert await said.get() == expected
    assert (await until_closed(reader)).startswith(b"HTTP/1.1 200")


async def test_silence_and_bad_chunks_are_problems_and_close(heard):
    said, reader, writer = heard
    writer.write(chunked(b"one")[0].replace(b"/", b"/?hurry", 1) + b"3\r\none\r\n")
    assert await said.get() == b"one"
    assert (await said.get()).slug == "request-timeout"
    assert (await until_closed(reader)).startswith(b"HTTP/1.1 200")


async def test_bad_chunks_are_malformed(heard):
    said, _reader, writer = heard
    writer.write(chunked()[0] + b"3\r\none\r\n")
    assert await said.get() == b"one"
    writer.write(b"zz\r\n")
    assert (await said.get()).slug == "malformed"


async def test_who_hangs_up_is_gone(heard):
    said, _reader, writer = heard
    writer.write(chunked()[0] + b"3\r\none\r\n")
    assert await said.get() == b"one"
    await next_turns()
    writer.transport.abort()
    assert isinstance(await said.get(), ClientGone)
