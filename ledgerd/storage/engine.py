"""The engine: the two SQLite files, put together behind the seam, in whatever process it runs.

The journal's connection appends; the tables' connection projects and takes the direct writes; a few
connections read. The store process (process.py) serves it over a socket; tests, simulation and offline
commands use it where they stand.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from ledgerd.domain.events import LoanDisbursed, decode_event
from ledgerd.domain.loan import Loan, evolve
from ledgerd.ids import format_id
from ledgerd.storage import book, once, pages, people, projections, runs, transactions
from ledgerd.storage import journal as journal_file
from ledgerd.storage.backup import JOURNAL_NAME, TABLES_NAME, back_up, copy_file, give_new_id
from ledgerd.storage.chain import GENESIS
from ledgerd.storage.journal import DiskFull, Journal
from ledgerd.storage.ports import (
    AppendReply,
    BatchLost,
    Entry,
    Loaded,
    Opened,
    StorageFull,
    StoredEvent,
    StoreError,
)
from ledgerd.storage.precedence import Precedence
from ledgerd.storage.sqlite import (
    Database,
    file_of,
    is_disk_full,
    snapshot,
    transact,
)
from ledgerd.storage.tail import Tail

READS: dict[str, Callable[..., Any]] = {
    **book.READS,
    **pages.READS,
    **runs.READS,
    **people.READS,
    **transactions.READS,
}
WRITES: dict[str, Callable[..., Any]] = {**runs.WRITES, **people.WRITES, **transactions.WRITES}

GATHER_EVENTS = 2_000  # how many events wait at most before they are projected ..
GATHER_S = 0.5  # .. and for how long
FULL_PAUSE_S = 1.0  # until the projector tries again what the disk had no room for
GIVE_WAY_EVENTS = 4_000  # with more of them waiting a projection stands aside for nobody


class Engine:
    """See `ports.Store`. Made by `files.open_engine` or `files.open_memory`; `start` comes before everything
    else.
    """

    def __init__(
        self,
        journal_db: Database,
        journal_reader: Database,
        tables: Database,
        readers: list[Database],
        slice_events: int = 2_000,
        index_keys: int = 100_000,
        precedence: Precedence | None = None,
    ) -> None:
        self._journal_db = journal_db
        self._journal_reader = journal_reader
        self._tables = tables
        self._readers = readers
        self._turn = 0
        self._slice_events = slice_events
        self._index_keys = index_keys
        self._tail = Tail()
        self._keys = once.Keys()
        self._precedence = precedence  # of appends over projections, where they have threads of their own
        self._journal = Journal(self._tail, self._keys, precedence)
        self._projected_seq = 0
        self._hurried = 0  # by how many who wait for the tables or for their watermark
        self._loop = asyncio.get_running_loop()
        self._projector: asyncio.Task[None] | None = None
        self._some = asyncio.Event()  # there is something to project
        self._enough = asyncio.Event()  # don't gather any longer
        self._moved = asyncio.Condition()  # the watermark moved
        self._waits_for_room = True
        self._on_close = ExitStack()
        self.opened = Opened(0, 0, 0)

    async def start(self) -> Opened:
        """Recover: read what is not projected and not indexed, take a new epoch, start projecting."""
        self._projected_seq = await self._tables.run(projections.projected_seq)
        indexed_seq = await self._catch_up(await self._tables.run(once.indexed_seq))
        await self._journal_db.run(self._journal.recover, self._projected_seq, indexed_seq)
        if self._projected_seq > self._journal.head_seq:
            raise StoreError(
                f"the tables are projected to event {self._projected_seq}, the journal ends at"
                f" {self._journal.head_seq}: the journal was cut or swapped; restore both from one backup"
            )
        await self._know_borrowers()
        epoch: int = await self._journal_db.run(transact, take_epoch)
        self.opened = Opened(epoch, self._journal.head_seq, self._projected_seq)
        self._projector = asyncio.get_running_loop().create_task(self._project_for_ever())
        if len(self._tail):
            self._some.set()
        return self.opened

    async def _know_borrowers(self) -> None:
        """Raise StoreError when the tables lack somebody whom the journal has lent to since."""
        begun = [decode_event(stored.body) for stored in self._tail.beginnings()]
        borrowers = {event.borrower_id for event in begun if isinstance(event, LoanDisbursed)}
        unknown = await self._tables.run(people.unknown_of, borrowers) if borrowers else []
        if unknown:
            raise StoreError(
                f"the journal has lent to user {format_id(unknown[0])}, whom the tables do not know:"
                " they are of an older moment; restore both from one backup"
            )

    @property
    def projector(self) -> asyncio.Task[None]:
        """The task that projects for ever: when it ends by itself, the store is broken."""
        assert self._projector is not None
        return self._projector

    # Loans ---------------------------------------------------------------------------------------

    async def append(self, epoch: int, entries: Sequence[Entry]) -> AppendReply:
        reply = await self._journal_db.run(self._append, epoch, entries)
        self._appended()
        return reply

    def append_here(self, epoch: int, entries: Sequence[Entry]) -> AppendReply:
        """Append on the caller's own thread, one that does nothing else: it saves the way over the loop."""
        reply = self._journal_db.call(self._append, epoch, entries)
        # The loop is woken only when it would learn something: it runs on what this thread could use.
        if not self._some.is_set() or (len(self._tail) >= GATHER_EVENTS and not self._enough.is_set()):
            self._loop.call_soon_threadsafe(self._appended)
        return reply

    def _append(self, connection: sqlite3.Connection, epoch: int, entries: Sequence[Entry]) -> AppendReply:
        if epoch != self.opened.epoch:
            raise StoreError("fenced: another owner has opened this database")
        try:
            verdicts = self._journal.append(connection, entries)
        except DiskFull:
            # Batches that are on their way were decided on this one.
            self.opened = msgspec.structs.replace(self.opened, epoch=epoch + 1)
            raise BatchLost(self.opened.epoch) from None
        return AppendReply(self._journal.head_seq, self._projected_seq, tuple(verdicts))

    def _appended(self) -> None:
        """Have the projector look."""
        self._some.set()
        if len(self._tail) >= GATHER_EVENTS:
            self._enough.set()

    async def load(self, loan_ids: Sequence[int]) -> list[Loaded]:
        tails = [self._tail.of_loan(loan_id) for loan_id in loan_ids]  # first; the rows second
        rows = await self._reader().run(snapshot, projections.load_rows, loan_ids)
        return [
            _loaded(loan_id, rows.get(loan_id), tail) for loan_id, tail in zip(loan_ids, tails, strict=True)
        ]

    # Reads and writes ------------------------------------------------------------------------------

    async def read(self, name: str, *params: Any) -> Any:
        merged = pages.MERGED_READS.get(name)
        if merged is not None:
            tail = self._tail.of_loan(params[0])
            return await self._reader().run(snapshot, merged, tail, *params)
        if name == "owner_of":
            return await self._owner_of(*params)
        if name == "events_of":
            return await self._journal_reader.run(journal_file.events_of, *params)
        return await self._reader().run(snapshot, READS[name], *params)

    async def _owner_of(self, once_key: bytes) -> StoredEvent | None:
        seq = self._keys.seq_of(once_key)  # memory first, index second
        if seq is None:
            found = await self._reader().run(once.candidates, [once.key_hash(once_key)])
        else:
            found = [seq]
        for seq in found:
            event = await self._journal_reader.run(journal_file.event_at, seq)
            if event.once_key == once_key:
                return event
        return None

    def _reader(self) -> Database:
        self._turn = (self._turn + 1) % len(self._readers)
        return self._readers[self._turn]

    async def write(self, name: str, *params: Any) -> Any:
        with self._hurry():
            try:
                return await self._tables.run(transact, WRITES[name], *params)
            except sqlite3.OperationalError as error:
                if is_disk_full(error):
                    raise StorageFull("the disk is full: make room on it") from error
                raise

    @contextmanager
    def _hurry(self) -> Iterator[None]:
        self._hurried += 1
        try:
            yield
        finally:
            self._hurried -= 1

    # Projection ----------------------------------------------------------------------------------

    async def project_through(self, seq: int) -> int:
        with self._hurry():
            return await self._projected_through(seq)

    async def _projected_through(self, seq: int) -> int:
        async with self._moved:
            while self._projected_seq < min(seq, self._journal.head_seq):
                if self.projector.done():
                    raise StoreError("projection has stopped: see the log of the store")
                self._some.set()
                self._enough.set()
                await self._moved.wait()
        return self._projected_seq

    async def _project_for_ever(self) -> None:
        """Gather for a moment (the more events, the fewer pages each dirties), then project what there is,
        slice by slice.
        """
        try:
            while True:
                await self._some.wait()
                self._some.clear()
                # Not wait_for: on Python 3.11 that swallows a cancellation which comes with `_enough`.
                with suppress(TimeoutError):
                    async with asyncio.timeout(GATHER_S):
                        await self._enough.wait()
                self._enough.clear()
                await self._project_tail()
        finally:
            async with self._moved:
                self._moved.notify_all()

    async def _project_tail(self) -> None:
        events = await self._journal_db.run(
            lambda _: self._tail.turn()
        )  # where events are added, so none is missed
        for start in range(0, len(events), self._slice_events):
            some = events[start : start + self._slice_events]
            watermark: int = await self._fold(projections.project, some, self._give_way)
            async with self._moved:
                self._projected_seq = watermark
                self._moved.notify_all()
            await self._index(2 * len(some))
        self._tail.drop()

    async def _fold(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run one of the projector's transactions. When the disk has no room for it, it waits: the tail has
        what it is about, and grows until payments are refused.
        """
        while True:
            try:
                return await self._tables.run(transact, function, *args)
            except sqlite3.OperationalError as error:
                if not is_disk_full(error):
                    raise
            if not self._waits_for_room:
                raise asyncio.CancelledError  # it ends as it would when `close` ends it: nothing is broken
            await asyncio.sleep(FULL_PAUSE_S)

    def _give_way(self) -> None:
        """Called between rows that the projector writes."""
        if self._precedence is not None and not self._hurried and len(self._tail) < GIVE_WAY_EVENTS:
            self._precedence.give_way()

    # The once index --------------------------------------------------------------------------------

    async def _index(self, count: int) -> None:
        """Merge about so many keys. Called with each slice for twice what it brings at most, so that a merge
        has ended before the next one is due.
        """
        if not self._keys.merging:
            if self._keys.gathered < self._index_keys:
                return
            await self._journal_db.run(lambda _: self._keys.turn())  # likewise
        rows, watermark = self._keys.take(count)
        await self._fold(once.merge, rows, watermark, self._give_way)
        if watermark is not None:
            self._keys.drop()

    async def _catch_up(self, indexed_seq: int) -> int:
        """Index what the last run left beyond what memory should hold, as after a migration, and return the
        watermark.
        """
        while True:
            keys: list[tuple[bytes, int]] = await self._journal_db.run(
                _keys_after, indexed_seq, 2 * self._index_keys
            )
            if len(keys) < 2 * self._index_keys:
                return indexed_seq
            indexed_seq = keys[-1][1]
            await self._tables.run(transact, once.merge_keys, keys, indexed_seq)

    # The whole -----------------------------------------------------------------------------------

    async def backup(self, path: str) -> None:
        """See `backup.back_up`; a database in memory is copied where it stands."""
        tables, journal = await self._tables.run(file_of), await self._journal_db.run(file_of)
        if tables and journal:
            await asyncio.to_thread(back_up, self._journal_db, Path(tables), Path(journal), Path(path))
            return
        await asyncio.to_thread(Path(path).mkdir, parents=True, exist_ok=False)
        for database, name in ((self._tables, TABLES_NAME), (self._journal_db, JOURNAL_NAME)):
            await database.run(copy_file, Path(path) / name)
        await asyncio.to_thread(give_new_id, Path(path))

    def stop_waiting_for_room(self) -> None:
        """End the projector when it finds the disk full: the next start projects what is left, from the
        journal. Whoever waits for it hears so.
        """
        self._waits_for_room = False

    async def close(self) -> None:
        """Project what is left, as far as there is room, close every connection, then let go of the files."""
        self.stop_waiting_for_room()
        try:
            if self._projector is not None:
                with suppress(StoreError):
                    await self.project_through(self._journal.head_seq)
                self._projector.cancel()
                await asyncio.gather(self._projector, return_exceptions=True)
            # Each file's writer last of those that have it open: then its WAL is folded in and removed.
            for database in (*self._readers, self._journal_reader, self._journal_db, self._tables):
                await database.close()
        finally:
            self._on_close.close()

    def release_at_close(self, release: Callable[[], object]) -> None:
        """Call `release` after everything is closed."""
        self._on_close.callback(release)


def _keys_after(connection: sqlite3.Connection, seq: int, limit: int) -> list[tuple[bytes, int]]:
    return [*journal_file.keys_after(connection, seq, limit)]


def _loaded(loan_id: int, row: projections.LoanRow | None, tail: Sequence[StoredEvent]) -> Loaded:
    """Fold the events that the row has not seen into its state."""
    loan: Loan | None = row.loan if row else None
    version, head_hash = (row.version, row.head_hash) if row else (0, GENESIS)
    for stored in tail:
        if stored.version > version:
            loan = evolve(loan, decode_event(stored.body))
            version, head_hash = stored.version, stored.hash
    return Loaded(loan_id, version, head_hash, loan)


def take_epoch(connection: sqlite3.Connection) -> int:
    """Count one more owner: what an earlier one still sends is fenced off."""
    epoch: int = connection.execute(
        "UPDATE meta SET value = value + 1 WHERE key = 'epoch' RETURNING value"
    ).fetchone()[0]
    return epoch
