"""The store process: whom it answers what, and when it ends."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from ledgerd.storage import engine as engine_module
from ledgerd.storage.ports import StoreError
from ledgerd.storage.process import EXIT_BROKEN, STOPS, Server
from ledgerd.storage.remote import RemoteStore
from ledgerd.storage.wire import Frames, Reply, Request, encoder
from tests.storage.books import BORROWER, START, Place, Writer, add_borrower
from tests.storage.conftest import INDEX_KEYS, SLICE_EVENTS, opened

GUARD_S = 30  # only ever runs out when a test fails


class Client:
    """Speaks to a server in this process, a call at a time."""

    def __init__(self) -> None:
        self._answers: asyncio.Queue[Reply] = asyncio.Queue()
        self.ended = asyncio.Event()
        self.frames = Frames(self._on_frame, self.ended.set)
        self.appends = Frames(self._on_frame, lambda: None)

    def _on_frame(self, frame: memoryview) -> None:
        self._answers.put_nowait(msgspec.msgpack.decode(frame, type=Reply))

    async def call(self, method: str, *args: Any) -> tuple[str | None, Any]:
        frames = self.appends if method == "append" else self.frames
        frames.send(encoder.encode(Request(7, method, msgspec.Raw(encoder.encode(args)))))
        async with asyncio.timeout(GUARD_S):
            reply = await self._answers.get()
        assert reply.id == 7
        return reply.failed, msgspec.msgpack.decode(reply.result)

    def hang_up(self) -> None:
        for frames in (self.frames, self.appends):
            if frames.transport is not None:
                frames.transport.close()

    async def open(self, place: Place) -> tuple[str | None, Any]:
        return await self.call("open", *map(str, place.paths), SLICE_EVENTS, INDEX_KEYS)


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """A client of a server that is not open yet; at the end the server ends because the client goes."""
    (calls, their_calls), (appends, their_appends) = socket.socketpair(), socket.socketpair()
    client = Client()
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: client.frames, sock=calls)
    await loop.create_connection(lambda: client.appends, sock=appends)
    serving = asyncio.create_task(Server().serve(their_calls.detach(), their_appends.detach()))
    yield client
    client.hang_up()
    async with asyncio.timeout(GUARD_S):
        await serving


# Answers -------------------------------------------------------------------------------------------


async def test_nothing_is_answered_before_it_is_open(client: Client, place: Place) -> None:
    for method in ("append", "load", "read", "close"):
        assert await client.call(method) == ("refused", "the store is not open")
    assert await client.open(place) == (None, [1, 0, 0])
    assert await client.call("load", [5]) == (None, [[5, 0, bytes(32), None]])


async def test_a_database_that_can_not_be_opened_is_refused_with_the_reason(
    client: Client, place: Place
) -> None:
    place.tables.write_bytes(b"no database" * 1_000)
    place.journal.write_bytes(b"no database" * 1_000)
    failed, why = await client.open(place)
    assert failed == "refused"
    assert why.startswith(f"{place.tables}: file is not a database: restore it from a backup")
    assert await client.call("load", [5]) == ("refused", "the store is not open")


async def test_bugs_are_their_callers_to_hear_of(
    client: Client, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(connection: object) -> object:
        return 2**70

    monkeypatch.setitem(engine_module.READS, "odd", odd)
    await client.open(place)
    assert await client.call("read", "no_such") == ("broken", "KeyError: 'no_such'")
    failed, why = await client.call("read", "run_by_id", "x", "y", "z")
    assert failed == "broken"
    assert why.startswith("TypeError")
    failed, why = await client.call("read", "odd")
    assert failed == "broken"
    assert why.startswith("OverflowError")
    failed, why = await client.call("write", "register_user", *[None] * 10)
    assert (failed, why) == ("broken", "IntegrityError: NOT NULL constraint failed: users.name")
    assert await client.call("read", "runs_before", 9, 9) == (None, [])


async def test_it_closes_cleanly_when_the_socket_ends(client: Client, place: Place) -> None:
    await client.open(place)
    await client.call(
        "write", "register_user", BORROWER, "Asha", "e", "e", 1, "hash", 0, b"k", b"sealed", "0124"
    )
    entries = [Writer(loan_id).lend() for loan_id in range(1, 12)]
    # Sent, and not waited for: what has arrived is done before it closes.
    args = msgspec.Raw(encoder.encode((1, entries)))
    client.appends.send(encoder.encode(Request(8, "append", args)))
    client.hang_up()
    async with asyncio.timeout(GUARD_S):
        await client.ended.wait()
        async with opened("files", place) as engine:
            assert (engine.opened.head_seq, engine.opened.projected_seq) == (11, 11)


# The end of a process ------------------------------------------------------------------------------


async def exit_code(store: RemoteStore) -> int:
    return await asyncio.to_thread(store._process.wait, GUARD_S)


async def test_it_ends_with_its_service_and_leaves_clean_files(place: Place) -> None:
    async with opened("process", place) as store:
        assert isinstance(store, RemoteStore)
        await add_borrower(store)
        await store.append(1, [Writer(loan_id).lend() for loan_id in range(1, 12)])
        for frames in (store._calls, store._appends):
            assert frames.transport is not None
            frames.transport.abort()  # as when the service is killed
        assert await exit_code(store) == 0
    assert sorted(path.name for path in place.folder.iterdir()) == [
        "ledgerd.db",
        "ledgerd.db.lock",
        "ledgerd.journal.db",
    ]
    assert place.query("SELECT value FROM meta WHERE key = 'projected_seq'") == [(11,)]


async def test_it_closes_on_a_full_disk_too_and_leaves_the_rest_to_the_next_start(place: Place) -> None:
    async with opened("process", place) as store:
        assert isinstance(store, RemoteStore)
        await add_borrower(store)
        for number in range(40):  # so that the tables' WAL is the larger one: it alone finds no room
            await store.write("begin_run", number, START, 0)
        limit = (place.tables.with_name("ledgerd.db-wal").stat().st_size, resource.RLIM_INFINITY)
        resource.prlimit(store.pid(), resource.RLIMIT_FSIZE, limit)
        writer = Writer(1)
        await store.append(1, [writer.lend()])
        waiting = store._call("project_through", (1,))
        await store.close()
        assert store._process.returncode == 0
        with pytest.raises(StoreError):
            await waiting
    async with opened("process", place) as store:
        assert (store.opened.head_seq, store.opened.projected_seq) == (1, 0)
        assert await store.load([1]) == [writer.loaded]
        assert await store.project_through(1) == 1


async def test_the_signals_that_stop_the_service_are_not_for_it(place: Place) -> None:
    async with opened("process", place) as store:
        assert isinstance(store, RemoteStore)
        await add_borrower(store)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            store._process.send_signal(number)
            assert await store.read("is_registered", BORROWER) is True
            assert await store.load([1])
        assert store._process.poll() is None


async def test_it_stops_at_once_when_the_journal_can_not_go_on(
    place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    async with opened("process", place) as store:
        assert isinstance(store, RemoteStore)
        await add_borrower(store)
        writer = Writer(1)
        await store.append(1, [writer.lend()])
        lost = writer.pay("lost")
        with pytest.raises(StoreError, match="had not acknowledged is unknown"):
            await store.append(1, [writer.pay("t")])
        assert lost.events
        assert await exit_code(store) == EXIT_BROKEN
    [line] = capfd.readouterr().err.splitlines()
    said = json.loads(line)  # like the service's own lines
    assert (said["event"], said["level"]) == (STOPS, "error")
    assert "VersionGap" in said["exception"]


async def test_it_stops_when_it_can_not_project(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    async with opened("process", place) as store:
        assert isinstance(store, RemoteStore)
        assert (await store.append(1, [Writer(1).lend()])).head_seq == 1  # of a borrower who is not there
        assert await exit_code(store) == EXIT_BROKEN
    assert "FOREIGN KEY" in capfd.readouterr().err


@pytest.mark.parametrize("how", ["the journal", "the projections"])
async def test_it_stops_also_when_it_can_not_say_why(how: str, place: Place, full_stderr: None) -> None:
    async with opened("process", place) as store:
        assert isinstance(store, RemoteStore)
        writer = Writer(1)
        if how == "the journal":
            await add_borrower(store)
            await store.append(1, [writer.lend()])
            writer.pay("lost")
            with pytest.raises(StoreError):
                await store.append(1, [writer.pay("t")])
        else:
            await store.append(1, [writer.lend()])  # of a borrower who is not there
        assert await exit_code(store) == EXIT_BROKEN


@pytest.fixture
def full_stderr() -> Iterator[None]:
    """Whoever writes an error finds the disk full."""
    kept = os.dup(2)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 2)
    yield
    os.dup2(kept, 2)
    os.close(full)
    os.close(kept)


def test_without_a_socket_it_does_not_start() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "ledgerd.storage.process", "98", "99", "json", "info"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert "Bad file descriptor" in run.stderr
