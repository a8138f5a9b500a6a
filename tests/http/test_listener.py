"""Starting, draining and closing a listener."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from ledgerd.http.edge import EdgeLimits
from ledgerd.http.listener import Listener
from tests.http.edge import GET, next_turns, on_both_loops, parsed, post, serving, until_closed


class Slow:
    """A handler that says when it has begun, and ends when told."""

    def __init__(self):
        self.started, self.release = asyncio.Event(), asyncio.Event()
        self.ended = None

    async def handle(self, _request):
        self.started.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "answered"
        return web.Response(text="ok")


@on_both_loops
async def test_open_connections_are_served_after_accepting_has_stopped():
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(GET)
        await reader.readuntil(b"ok")
        await served.listener.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            await served.connect()
        writer.write(GET)
        await reader.readuntil(b"ok")
        writer.close()


@on_both_loops
async def test_close_ends_idle_connections_at_once():
    async with serving() as served:
        silent, silent_writer = await served.connect()
        idle, idle_writer = await served.connect()
        partial, partial_writer = await served.connect()
        idle_writer.write(GET)
        partial_writer.write(GET[:-1])
        await idle.readuntil(b"ok")
        await served.listener.close(60)
        assert [await until_closed(reader) for reader in (silent, idle, partial)] == [b"", b"", b""]
        for writer in (silent_writer, idle_writer, partial_writer):
            writer.close()


@on_both_loops
async def test_close_lets_a_handler_end_and_says_that_the_connection_does():
    slow = Slow()
    async with serving(slow.handle) as served:
        reader, writer = await served.connect()
        writer.write(GET)
        await slow.started.wait()
        closing = asyncio.create_task(served.listener.close(60))
        await next_turns()
        slow.release.set()
        status, headers, _ = parsed(await until_closed(reader))
        assert (status, headers["connection"], slow.ended) == (200, "close", "answered")
        await closing
        writer.close()


@on_both_loops
async def test_a_body_on_its_way_is_taken_while_the_listener_closes():
    begun = asyncio.Event()

    async def begin():
        begun.set()

    async with serving(before_body=begin) as served:
        reader, writer = await served.connect()
        request = post(b"abc")
        writer.write(request[:-1])
        await begun.wait()
        closing = asyncio.create_task(served.listener.close(60))
        await next_turns()
        writer.write(request[-1:])
        status, _, body = parsed(await until_closed(reader))
        assert (status, body) == (200, b"abc")
        await closing
        writer.close()


@on_both_loops
async def test_close_waits_for_a_handler_whose_client_is_gone():
    slow = Slow()
    async with serving(slow.handle) as served:
        _, writer = await served.connect()
        writer.write(GET)
        await slow.started.wait()
        writer.transport.abort()
        await served.listener._edge.empty.wait()
        closing = asyncio.create_task(served.listener.close(60))
        await next_turns()
        slow.release.set()
        await closing
        assert slow.ended == "answered"


@on_both_loops
async def test_close_cancels_a_handler_when_the_time_is_up():
    slow = Slow()
    async with serving(slow.handle) as served:
        reader, writer = await served.connect()
        writer.write(GET)
        await slow.started.wait()
        await served.listener.close(0.05)
        assert await until_closed(reader) == b""
        writer.close()
    assert slow.ended == "cancelled"


@on_both_loops
async def test_close_does_not_wait_for_ever_for_a_handler_whose_client_is_gone():
    slow = Slow()
    async with serving(slow.handle) as served:
        _, writer = await served.connect()
        writer.write(GET)
        await slow.started.wait()
        writer.transport.abort()
        await served.listener._edge.empty.wait()
        await served.listener.close(0.05)
        assert slow.ended is None
        slow.release.set()


@on_both_loops
async def test_the_application_is_started_and_cleaned_up_once():
    seen = []

    async def life(_app):
        seen.append("started")
        yield
        seen.append("cleaned up")

    app = web.Application()
    app.cleanup_ctx.append(life)
    listener = Listener(EdgeLimits(), lambda sent: sent or "made-here")
    await listener.start(app, "127.0.0.1", 0)
    await listener.close(1)
    await listener.close(1)
    assert seen == ["started", "cleaned up"]


@on_both_loops
async def test_a_taken_port_is_an_error_and_leaves_nothing_behind():
    cleaned = []

    async def clean(_app):
        cleaned.append(True)

    async with serving() as served:
        app = web.Application()
        app.on_cleanup.append(clean)
        listener = Listener(EdgeLimits(), lambda sent: sent or "made-here")
        with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
            await listener.start(app, "127.0.0.1", served.port)
        assert cleaned == [True]
        await listener.close(1)
