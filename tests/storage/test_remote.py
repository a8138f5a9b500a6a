"""The service's end of the seam: what callers hear when the store answers, fails, or is gone."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ledgerd.domain.events import BillIssued
from ledgerd.storage import remote
from ledgerd.storage.ports import AppendReply, Loaded, StoredEvent, StoreError
from ledgerd.storage.remote import RemoteStore
from tests.storage.books import BORROWER, START, Place, Writer, add_borrower, key_of
from tests.storage.conftest import INDEX_KEYS, SLICE_EVENTS

GUARD_S = 30  # only ever runs out when a test fails
GONE = "the store has ended: what it had not acknowledged is unknown"


class Watched:
    """A store whose end is counted."""

    store: RemoteStore
    ends = 0

    def on_end(self) -> None:
        self.ends += 1

    async def start(self, place: Place) -> None:
        self.store = await RemoteStore.start(*place.paths, SLICE_EVENTS, INDEX_KEYS, self.on_end)

    def send_signal(self, number: signal.Signals) -> None:
        self.store._process.send_signal(number)


@pytest.fixture
async def watched(place: Place) -> AsyncIterator[Watched]:
    watched = Watched()
    await watched.start(place)
    await add_borrower(watched.store)
    yield watched
    await watched.store.close()


async def test_answers_come_back_as_what_they_are(watched: Watched) -> None:
    store, writer = watched.store, Writer(1)
    reply = await store.append(1, [writer.lend(), writer.pay("t", today=START + 30)])
    assert isinstance(reply, AppendReply)
    assert isinstance((await store.load([1]))[0], Loaded)
    assert isinstance(await store.read("owner_of", key_of("t")), StoredEvent)
    assert isinstance((await store.read("issued_bills", 1, 3))[0], BillIssued)
    assert isinstance((await store.read("payments_page", 1, 3, None, 5))[0], list)


async def test_a_bug_in_the_store_is_no_refusal(watched: Watched) -> None:
    with pytest.raises(RuntimeError, match="in the store: KeyError: 'nothing'"):
        await watched.store.read("nothing")
    assert await watched.store.read("is_registered", BORROWER) is True


async def test_calls_are_answered_each_for_itself_also_when_a_caller_has_gone(watched: Watched) -> None:
    store = watched.store
    async with asyncio.timeout(GUARD_S):
        gone = asyncio.ensure_future(store.load([1]))
        others = [asyncio.ensure_future(store.load([loan_id])) for loan_id in range(2, 30)]
        await asyncio.sleep(0)
        gone.cancel()
        loaded = await asyncio.gather(*others)
    assert [each.loan_id for [each] in loaded] == list(range(2, 30))
    assert gone.cancelled()


async def test_appends_reach_the_journal_in_the_order_they_were_called(watched: Watched) -> None:
    store, writer = watched.store, Writer(1)
    batches = [[writer.lend()], *([writer.pay(f"t{n}")] for n in range(40))]
    async with asyncio.timeout(GUARD_S):
        replies = await asyncio.gather(*(store.append(1, batch) for batch in batches))
    assert [reply.exceptions for reply in replies] == [()] * 41
    assert await store.load([1]) == [writer.loaded]


async def test_when_the_store_is_killed_whoever_waits_hears_of_it_and_the_service_once(
    watched: Watched,
) -> None:
    store = watched.store
    watched.send_signal(signal.SIGSTOP)
    calls: list[Any] = [
        asyncio.ensure_future(call)
        for call in (store.append(1, [Writer(1).lend()]), store.load([1]), store.read("is_registered", 1))
    ]
    await asyncio.sleep(0)
    assert watched.ends == 0
    watched.send_signal(signal.SIGKILL)
    async with asyncio.timeout(GUARD_S):
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [(type(outcome), str(outcome)) for outcome in outcomes] == [(StoreError, GONE)] * 3
    for call in (store.load([1]), store.write("save_clock", "system", 1), store.project_through(1)):
        with pytest.raises(StoreError, match=GONE):
            await call
    assert watched.ends == 1
    await store.close()
    assert watched.ends == 1
    assert store._process.returncode == -signal.SIGKILL


async def test_a_close_is_not_an_end(place: Place) -> None:
    watched = Watched()
    await watched.start(place)
    waiting = asyncio.ensure_future(watched.store.load([1]))
    await asyncio.sleep(0)
    await watched.store.close()
    assert watched.ends == 0
    assert watched.store._process.returncode == 0
    with pytest.raises(StoreError, match=GONE):
        await waiting
    with pytest.raises(StoreError, match=GONE):
        await watched.store.load([1])


async def test_a_store_that_does_not_end_is_killed(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "STOP_PATIENCE_S", 0.01)
    watched.send_signal(signal.SIGSTOP)
    async with asyncio.timeout(GUARD_S):
        await watched.store.close()
    assert watched.store._process.returncode == -signal.SIGKILL


async def test_a_start_that_is_refused_leaves_no_process_and_is_one_line(place: Place) -> None:
    place.tables.write_bytes(b"no database" * 1_000)
    place.journal.write_bytes(b"no database" * 1_000)
    watched = Watched()
    with pytest.raises(StoreError) as refused:
        await watched.start(place)
    why = str(refused.value)
    assert why.startswith(f"{place.tables}: file is not a database: restore it from a backup")
    assert "\n" not in why
    assert watched.ends == 0
    place.tables.unlink()
    place.journal.unlink()
    await watched.start(place)  # the lock was let go
    await watched.store.close()


@pytest.mark.parametrize("first", ["_appends", "_calls"])
async def test_one_socket_that_ends_ends_both_and_is_told_once(
    watched: Watched, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    store, writer = watched.store, Writer(1)
    waiting = [
        asyncio.ensure_future(store.append(1, [writer.lend()])),
        *(asyncio.ensure_future(store.load([loan_id])) for loan_id in range(1, 20)),
    ]
    await asyncio.sleep(0)
    getattr(store, first).transport.abort()
    async with asyncio.timeout(GUARD_S):
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.to_thread(store._process.wait)
        await asyncio.sleep(0)
    assert store._calls.transport is store._appends.transport is None
    assert any(isinstance(outcome, StoreError) for outcome in outcomes)
    assert watched.ends == 1
    assert caplog.records == []  # nothing that came late was a surprise
