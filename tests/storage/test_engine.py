"""The engine's own: reads on one state of the tables, the projector's life and end, fencing."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ledgerd.domain.events import BillIssued
from ledgerd.storage import book, pages, people, projections, runs, transactions
from ledgerd.storage import engine as engine_module
from ledgerd.storage.engine import Engine, take_epoch
from ledgerd.storage.files import open_engine
from ledgerd.storage.journal import Journal
from ledgerd.storage.once import Keys
from ledgerd.storage.ports import BatchLost, StorageFull, StoredEvent, StoreError
from ledgerd.storage.sqlite import InlineDatabase, connect_reader, connect_writer, file_uri, transact
from ledgerd.storage.tail import Tail
from tests.storage.books import START, Bare, Place, Writer, add_borrower, key_of, stored

GUARD_S = 30  # only ever runs out when a test fails
NEXT = START + 30


# Reads that take several statements ----------------------------------------------------------------


AFTER = 0


class Interrupted(InlineDatabase):
    """A reader into whose call, before its query `at` or AFTER them all, somebody else commits."""

    def __init__(self, connection: sqlite3.Connection, at: int, meanwhile: Callable[[], object]) -> None:
        super().__init__(connection)
        self._connection = connection
        self._at = at
        self._meanwhile = meanwhile
        self.statements: list[str] = []

    def _on_statement(self, sql: str) -> None:
        self.statements.append(sql)
        selects = [sql for sql in self.statements if "SELECT" in sql]
        if len(selects) == self._at and "SELECT" in sql:
            self._meanwhile()

    async def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        self._connection.set_trace_callback(self._on_statement)
        try:
            result = await super().run(function, *args, **kwargs)
        finally:
            self._connection.set_trace_callback(None)
        if self._at == AFTER:
            self._meanwhile()
        return result


@contextmanager
def halted(place: Place, at: int) -> Iterator[tuple[Engine, Writer, Interrupted]]:
    """An engine with a loan of three projected events and five in its tail, which are projected, and dropped
    from the tail, before its reader's query `at`. Its own projector never runs.
    """
    place.make()
    place.edit("INSERT INTO users VALUES (7, 'Asha', 'a', 'a', 1, 'h', NULL, 0)")
    writer = Writer(1)
    entries = [writer.lend(), writer.pay("t1"), writer.bill(NEXT)]
    tail = [writer.pay("t2"), writer.pay("t3", 60_00), writer.pay("t4", today=NEXT + 31), writer.pay("t5", 1)]
    with_tables = connect_writer(file_uri(place.tables))
    with_journal = connect_writer(file_uri(place.journal))
    with_journal.execute("ATTACH ? AS tables", (file_uri(place.tables, "ro"),))
    transact(with_tables, projections.project, stored(entries))
    events = stored(tail, first_seq=4)

    def meanwhile() -> None:
        transact(with_tables, projections.project, engine._tail.turn())
        engine._tail.drop()

    reader = Interrupted(connect_reader(file_uri(place.tables, "ro")), at, meanwhile)
    engine = Engine(
        InlineDatabase(with_journal), InlineDatabase(with_journal), InlineDatabase(with_tables), [reader]
    )
    for event in events:
        engine._tail.add(event)
    yield engine, writer, reader
    if reader.statements:
        assert projections.projected_seq(with_tables) == events[-1].seq  # it was interrupted
    for connection in (reader._connection, with_journal, with_tables):
        connection.close()


@pytest.mark.parametrize("at", [1, AFTER])
async def test_a_loan_is_loaded_from_one_state_of_the_tables(place: Place, at: int) -> None:
    with halted(place, at) as (engine, writer, _):
        assert await engine.load([1]) == [writer.loaded]


@pytest.mark.parametrize("at", [1, 2, AFTER])
async def test_a_page_is_read_from_one_state_of_the_tables(place: Place, at: int) -> None:
    with halted(place, at) as (engine, writer, _):
        page = await engine.read("payments_page", 1, writer.version, None, 10)
        assert [row[5] for row in page] == ["t5", "t4", "t3", "t2", "t1"]


@pytest.mark.parametrize("at", [1, 2, AFTER])
async def test_a_page_after_the_tails_oldest_payment_holds_it_only_once(place: Place, at: int) -> None:
    """The cursor is in the tail when the page begins, and in the tables before it ends."""
    with halted(place, at) as (engine, writer, _):
        page = await engine.read("payments_page", 1, writer.version, 4, 10)
        assert [row[5] for row in page] == ["t1"]


@pytest.mark.parametrize("at", [1, AFTER])
async def test_bills_are_read_from_one_state_of_the_tables(place: Place, at: int) -> None:
    with halted(place, at) as (engine, writer, _):
        bills = await engine.read("issued_bills", 1, writer.version)
        assert all(isinstance(bill, BillIssued) for bill in bills)
        assert [bill.number for bill in bills] == [1, 2]


async def test_a_key_is_looked_for_in_memory_first(bare: Bare) -> None:
    """It may go from there to the index at any moment, and never the other way."""
    engine, writer = bare.engine(), Writer(1)
    await engine.start()
    await engine.append(1, [writer.lend(), payment := writer.pay("t")])
    said: list[str] = []
    bare.reader.set_trace_callback(said.append)
    owner = await engine.read("owner_of", payment.once_key)
    assert (owner.seq, owner.once_key, said) == (2, payment.once_key, [])
    assert await engine.read("owner_of", b"p:c:1:another") is None
    assert any("once" in sql for sql in said)
    engine.projector.cancel()


async def test_a_failed_read_leaves_its_reader_fit_for_the_next(place: Place) -> None:
    engine = await open_engine(*place.paths)
    for _ in range(4):  # more than there are readers
        with pytest.raises(sqlite3.Error):
            await engine.read("runs_before", "x", object())
    assert await engine.read("runs_before", 1, 1) == []
    await engine.close()


# The projector -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unhurried")
async def test_closing_projects_everything_in_slices_and_ends(place: Place) -> None:
    engine = await open_engine(*place.paths, slice_events=1)
    await add_borrower(engine)
    await engine.append(1, [Writer(loan_id).lend() for loan_id in range(1, 8)])
    async with asyncio.timeout(GUARD_S):
        await engine.close()
    assert place.query("SELECT value FROM meta WHERE key = 'projected_seq'") == [(7,)]
    assert place.query("SELECT id FROM loans") == [(loan_id,) for loan_id in range(1, 8)]


async def test_a_full_tail_is_projected_without_waiting(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "GATHER_S", 3_600)
    monkeypatch.setattr(engine_module, "GATHER_EVENTS", 3)
    engine = await open_engine(*place.paths)
    await add_borrower(engine)
    await engine.append(1, [Writer(loan_id).lend() for loan_id in (1, 2, 3)])
    async with asyncio.timeout(GUARD_S), engine._moved:
        await engine._moved.wait_for(lambda: engine._projected_seq == 3)
    await engine.close()


async def test_a_little_is_projected_after_a_moment(place: Place) -> None:
    engine = await open_engine(*place.paths)
    await add_borrower(engine)
    for loan_id in (1, 2):
        await engine.append(1, [Writer(loan_id).lend()])
        async with asyncio.timeout(GUARD_S), engine._moved:
            while engine._projected_seq < loan_id:
                await engine._moved.wait()
    await engine.close()


async def test_what_was_recovered_is_projected_unasked(bare: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "GATHER_S", 0)
    journal = Journal(Tail(), Keys())
    assert journal.append(bare.journal, [Writer(1).lend(), Writer(2).lend()]) == []
    engine = bare.engine()
    await engine.start()
    async with asyncio.timeout(GUARD_S), engine._moved:
        while engine._projected_seq < 2:
            await engine._moved.wait()
    engine.projector.cancel()


@pytest.mark.usefixtures("unhurried")
async def test_what_waits_for_a_broken_projector_hears_of_it(bare: Bare) -> None:
    engine = bare.engine()
    await engine.start()
    nobodys = Writer(1)
    bare.tables.execute("DELETE FROM users")  # whose loan this is
    assert (await engine.append(engine.opened.epoch, [nobodys.lend()])).exceptions == ()
    waiting = [asyncio.create_task(engine.project_through(1)) for _ in range(2)]
    async with asyncio.timeout(GUARD_S):
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, StoreError)
        with pytest.raises(StoreError, match="projection has stopped"):
            await engine.project_through(1)
    assert isinstance(engine.projector.exception(), sqlite3.IntegrityError)
    assert await engine.load([1]) == [nobodys.loaded]  # it is durable all the same
    assert bare.tables.execute("SELECT count(*) FROM loans").fetchone() == (0,)


# Opening -------------------------------------------------------------------------------------------


def test_each_owner_counts_the_epoch_up(bare: Bare) -> None:
    assert [transact(bare.journal, take_epoch) for _ in range(3)] == [1, 2, 3]


async def test_an_older_owner_is_fenced_by_a_newer(bare: Bare) -> None:
    older, newer = bare.engine(), bare.engine()
    await older.start()
    await newer.start()
    with pytest.raises(StoreError, match="fenced"):
        await newer.append(older.opened.epoch, [Writer(1).lend()])
    for engine in (older, newer):
        engine.projector.cancel()


async def test_tables_ahead_of_their_journal_are_refused(place: Place) -> None:
    engine = await open_engine(*place.paths)
    await add_borrower(engine)
    await engine.append(1, [Writer(1).lend(), Writer(2).lend()])
    await engine.close()
    place.edit("DELETE FROM events WHERE seq = 2", file="journal")
    for _ in range(2):  # the lock is let go each time
        with pytest.raises(StoreError, match="projected to event 2, the journal ends at 1"):
            await open_engine(*place.paths)


def test_no_name_hides_another() -> None:
    modules: list[Any] = [book, runs, people, transactions, pages]
    named = [name for module in modules for name in (*module.READS, *getattr(module, "WRITES", {}))]
    named += [*pages.MERGED_READS, "events_of", "owner_of"]
    assert len(named) == len(set(named))
    known = {*engine_module.READS, *engine_module.WRITES, *pages.MERGED_READS, "events_of", "owner_of"}
    assert set(named) == known


@pytest.mark.usefixtures("unhurried")
async def test_the_owner_of_a_key_is_found_wherever_it_is(bare: Bare) -> None:
    engine = bare.engine()
    await engine.start()
    writer = Writer(1)
    entries = [writer.lend(), writer.pay("t")]
    await engine.append(engine.opened.epoch, entries)
    owner = stored(entries)[1]
    assert await engine.read("owner_of", owner.once_key) == owner
    await engine.project_through(2)
    found = await engine.read("owner_of", owner.once_key)
    assert isinstance(found, StoredEvent)
    assert found == owner
    engine.projector.cancel()


# Appends on a thread of their own ------------------------------------------------------------------


async def test_a_thread_s_appends_are_projected_and_kept_apart_from_the_loop_s(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "GATHER_S", 0.0)
    engine = await open_engine(*place.paths, slice_events=3)
    await add_borrower(engine)
    writers = [Writer(loan_id) for loan_id in (1, 2)]
    epoch = engine.opened.epoch

    def on_a_thread() -> None:
        engine.append_here(epoch, [writers[0].lend()])
        for number in range(100):
            engine.append_here(epoch, [writers[0].pay(f"a{number}")])

    async with asyncio.timeout(GUARD_S):
        appending = asyncio.create_task(asyncio.to_thread(on_a_thread))
        await engine.append(epoch, [writers[1].lend()])
        for number in range(100):
            await engine.append(epoch, [writers[1].pay(f"b{number}")])
        await appending
        assert await engine.project_through(202) == 202
        for loan_id in (1, 2):
            page = await engine.read("payments_page", loan_id, 101, None, 500)
            assert len(page) == 100
    await engine.close()


async def test_a_thread_s_append_alone_wakes_the_projector(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "GATHER_EVENTS", 5)
    monkeypatch.setattr(engine_module, "GATHER_S", 3_600)
    engine = await open_engine(*place.paths, slice_events=3)
    await add_borrower(engine)
    for loan_ids in (range(1, 4), range(4, 8)):
        entries = [Writer(loan_id).lend() for loan_id in loan_ids]
        await asyncio.to_thread(engine.append_here, engine.opened.epoch, entries)
    async with asyncio.timeout(GUARD_S), engine._moved:
        await engine._moved.wait_for(lambda: engine._projected_seq == 7)
    await engine.close()


async def test_a_thread_of_an_earlier_owner_is_fenced_off(place: Place) -> None:
    engine = await open_engine(*place.paths)
    with pytest.raises(StoreError, match="fenced"):
        await asyncio.to_thread(engine.append_here, engine.opened.epoch - 1, [Writer(1).lend()])
    await engine.close()


# A full disk ----------------------------------------------------------------------------------------


@contextmanager
def full(connection: sqlite3.Connection) -> Iterator[None]:
    """Let a file grow no more, while the block runs."""
    [(pages_now,)] = connection.execute("PRAGMA page_count")
    connection.execute(f"PRAGMA max_page_count = {pages_now}")
    try:
        yield
    finally:
        connection.execute("PRAGMA max_page_count = 1000000")


async def test_a_batch_without_room_is_lost_as_a_whole_and_what_was_decided_on_it_is_refused(bare: Bare):
    engine = bare.engine()
    opened = await engine.start()
    writer = Writer(1)
    entries = [writer.lend(), *(writer.pay(f"t{number}", 1) for number in range(60))]
    later = [writer.pay("later", 1)]
    with full(bare.journal):
        with pytest.raises(BatchLost) as lost:
            await engine.append(opened.epoch, entries)
        assert lost.value.epoch == opened.epoch + 1
        assert bare.journal.execute("SELECT count(*) FROM events").fetchone() == (0,)
        with pytest.raises(StoreError, match="fenced"):
            await engine.append(opened.epoch, later)
    with pytest.raises(StoreError, match="fenced"):
        await engine.append(opened.epoch, entries)
    for some in (entries, later):
        reply = await engine.append(lost.value.epoch, some)
        assert not reply.exceptions
    assert (await engine.load([1])) == [writer.loaded]
    await end(engine)


async def test_projections_wait_for_room_and_nothing_of_the_tail_is_lost(
    bare: Bare, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_module, "FULL_PAUSE_S", 0)
    engine = bare.engine(slice_events=20, index_keys=10)
    opened = await engine.start()
    writer = Writer(1)
    entries = [writer.lend(), *(writer.pay(f"t{number}", 1) for number in range(200))]
    with full(bare.tables):
        await engine.append(opened.epoch, entries)
        projecting = asyncio.create_task(engine.project_through(201))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not projecting.done()
        assert (await engine.load([1])) == [writer.loaded]
    assert await asyncio.wait_for(projecting, GUARD_S) == 201
    page = await engine.read("payments_page", 1, 201, None, 500)
    assert len(page) == 200
    owner = await engine.read("owner_of", key_of("t7"))
    assert owner.version == 9
    await end(engine)


async def test_a_named_write_without_room_says_so_and_did_nothing(bare: Bare):
    engine = bare.engine()
    await engine.start()
    with full(bare.tables):
        with pytest.raises(StorageFull, match="the disk is full"):
            await begin_runs(engine, 10_000)
        runs_made = len(await engine.read("runs_before", 2**62, 20_000))
    assert runs_made < 10_000
    await engine.write("begin_run", 20_000, START, 0)
    assert len(await engine.read("runs_before", 2**62, 20_000)) == runs_made + 1
    await end(engine)


async def begin_runs(engine: Engine, count: int) -> None:
    for number in range(count):
        await engine.write("begin_run", number, START, 0)


async def end(engine: Engine) -> None:
    engine.projector.cancel()
    await asyncio.gather(engine.projector, return_exceptions=True)
