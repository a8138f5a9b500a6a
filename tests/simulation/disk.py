"""A disk that delays, fails, and loses what was not synced, under the real SQLite and its real files.

The files lie in memory, and no sync is made: what one would have made durable is known, since with
`synchronous = FULL` a COMMIT syncs the WAL, and a checkpoint the WAL, the file, and only then starts the WAL
over. So a cut of power between two functions loses nothing, and one within a function may leave any of the
512-byte sectors that it wrote: of the WAL, with the file as it was, or of the file, once the WAL was whole.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ledgerd.storage.engine import Engine
from ledgerd.storage.files import _connect_journal, make_files
from ledgerd.storage.sqlite import connect_reader, connect_writer, file_uri
from tests.simulation.machine import Machine, Process

SECTOR = 512
WAL_HEADER = 32
FILES = ("journal", "tables")
BORROWERS = (1, 2, 3)
Image = tuple[bytes, bytes]  # a file and its WAL


class PowerCut(BaseException):
    """The power goes while a function runs; the disk has taken its image."""


class Habits:
    """How a seed's disk behaves."""

    def __init__(self, machine: Machine, *, faulty: bool) -> None:
        chance = machine.chance
        self.slow_s = chance.choice([0.0, 0.002, 0.02, 2.0 if faulty else 0.02])
        self.fails = chance.choice([0.0, 0.0, 0.01, 0.04]) if faulty else 0.0
        self.tears = chance.choice([0.0, 0.005, 0.02]) if faulty else 0.0
        self.checkpoint_pages = chance.choice([1, 8, 1000])


class Disk:
    """The two files. Whoever opens them is gone when they are opened again."""

    def __init__(self, machine: Machine, folder: Path, habits: Habits, counts: Counter[str]) -> None:
        self.machine = machine
        self.habits = habits
        self.counts = counts
        self.quiet = False  # no more faults
        self.free_bytes = 1
        self.on_power_cut: Callable[[], None] = lambda: None
        self._folder = folder
        self._connections: list[sqlite3.Connection] = []
        for name, (content, _) in _new_files().items():
            self.path(name).write_bytes(content)

    def path(self, name: str) -> Path:
        return self._folder / f"{name}.db"

    def _wal(self, name: str) -> Path:
        return self._folder / f"{name}.db-wal"

    def engine(self, process: Process, slice_events: int, index_keys: int) -> Engine:
        """Open the files in a process. Raises sqlite3.Error as the service would meet it."""
        assert not self._connections, "one owner at a time"
        journal, tables = (file_uri(self.path(name)) for name in FILES)
        tables_reader = file_uri(self.path("tables"), "ro")
        connections = [
            _connect_journal(journal, tables_reader),
            connect_reader(file_uri(self.path("journal"), "ro")),
            connect_writer(tables),
            *(connect_reader(tables_reader) for _ in range(2)),
        ]
        for writer in (connections[0], connections[2]):
            writer.execute("PRAGMA synchronous = OFF")
            writer.execute(f"PRAGMA wal_autocheckpoint = {self.habits.checkpoint_pages}")
        self._connections = connections
        names = ("journal", None, "tables", None, None)
        databases = [
            SimulatedDatabase(connection, process, self, name)
            for connection, name in zip(connections, names, strict=True)
        ]
        return Engine(
            databases[0], databases[1], databases[2], databases[3:], slice_events, index_keys, precedence=None
        )

    def drop(self, images: dict[str, Image] | None = None) -> None:
        """Leave the files as whoever had them open left them, or as a cut of power did."""
        if self._connections:
            images = images or {name: self.image(name) for name in FILES}
            for connection in self._connections:
                connection.close()
            self._connections = []
            for name, (content, wal) in images.items():
                self.path(name).write_bytes(content)
                self._wal(name).write_bytes(wal)
                self.path(name).with_name(f"{name}.db-shm").unlink(missing_ok=True)

    def close(self) -> None:
        """Close in good order, as a stop does."""
        for connection in self._connections:
            connection.close()
        self._connections = []

    def image(self, name: str) -> Image:
        wal = self._wal(name)
        return self.path(name).read_bytes(), wal.read_bytes() if wal.exists() else b""

    def torn(self, name: str, before: Image, after: Image) -> dict[str, Image]:
        """What a cut of power within a function that wrote one file may leave of both."""
        other = next(each for each in FILES if each != name)
        chance = self.machine.chance
        if before[0] == after[0] or chance.random() < 0.5:
            left = (before[0], self._torn_wal(before[1], after[1]))
        else:
            self.counts["torn checkpoints"] += 1
            left = (self._some_sectors(before[0], after[0]), after[1])
        return {name: left, other: self.image(other)}

    def _torn_wal(self, before: bytes, after: bytes) -> bytes:
        """SQLite syncs the header of a WAL that it starts over before it writes what follows."""
        if before[:WAL_HEADER] != after[:WAL_HEADER]:
            if self.machine.chance.random() < 0.2:
                return before
            before = after[:WAL_HEADER] + before[WAL_HEADER:]
        return self._some_sectors(before, after)

    def _some_sectors(self, before: bytes, after: bytes) -> bytes:
        """Some of what was written, sector by sector: all, none, a beginning, or any."""
        chance = self.machine.chance
        length = max(len(before), len(after))
        changed = [
            start
            for start in range(0, length, SECTOR)
            if before[start : start + SECTOR] != after[start : start + SECTOR]
        ]
        kind = chance.random()
        if kind < 0.1:
            kept = changed
        elif kind < 0.5:
            kept = changed[: chance.randint(0, len(changed))]
        else:
            likely = chance.random()
            kept = [start for start in changed if chance.random() < likely]
        left = bytearray(before)
        for start in kept:
            sector = after[start : start + SECTOR]
            if len(left) < start:
                left.extend(bytes(start - len(left)))
            left[start : start + len(sector)] = sector
        return bytes(left)


class SimulatedDatabase:
    """See `storage.sqlite.Database`: functions run in turn, each after a while, on the process's own loop."""

    def __init__(
        self, connection: sqlite3.Connection, process: Process, disk: Disk, writes: str | None
    ) -> None:
        self._connection = connection
        self._process = process
        self._disk = disk
        self._writes = writes
        self._turn = asyncio.Lock()

    async def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        async with self._turn:
            await self._while()
            try:
                return self._now(function, *args, **kwargs)
            finally:
                await self._while()

    async def _while(self) -> None:
        if self._process.killed:
            raise asyncio.CancelledError
        await asyncio.sleep(self._process.machine.delay_s(self._disk.habits.slow_s))
        if self._process.killed:
            raise asyncio.CancelledError

    def _now(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        disk, habits, chance = self._disk, self._disk.habits, self._process.machine.chance
        kind = 1.0 if self._writes is None or disk.quiet else chance.random()
        if kind < habits.tears:
            self._tear(function, *args, **kwargs)
        if kind < habits.tears + habits.fails:
            return function(Failing(self._connection, chance.choice(FAILURES), disk.counts), *args, **kwargs)
        return function(self._connection, *args, **kwargs)

    def _tear(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        assert self._writes is not None
        disk = self._disk
        before = disk.image(self._writes)
        function(self._connection, *args, **kwargs)
        after = disk.image(self._writes)
        if after != before:  # it did write
            disk.counts["torn writes"] += 1
            disk.drop(disk.torn(self._writes, before, after))
        else:
            disk.drop()
        disk.on_power_cut()
        raise PowerCut

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError  # only on threads

    async def close(self) -> None:
        """The disk closes all together."""


FAILURES = ("write", "full", "full", "commit kept", "commit lost", "full at commit", "full at commit")


class Failing:
    """A connection on which something fails, once: the first statement that writes, or COMMIT."""

    def __init__(self, connection: sqlite3.Connection, failure: str, counts: Counter[str]) -> None:
        self._connection = connection
        self._failure: str | None = failure
        self._counts = counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *values: Any) -> Any:
        if self._failure in ("write", "full") and statement.startswith(("INSERT", "UPDATE", "DELETE")):
            self._fail(keep=False)
        if statement == "COMMIT" and self._failure is not None:
            self._fail(keep=self._failure == "commit kept")
        return self._connection.execute(statement, *values)

    def executemany(self, statement: str, rows: Any) -> Any:
        if self._failure in ("write", "full"):
            self._fail(keep=False)
        return self._connection.executemany(statement, rows)

    def _fail(self, *, keep: bool) -> None:
        failure, self._failure = self._failure, None
        assert failure is not None
        self._counts[f"disk: {failure}"] += 1
        if self._connection.in_transaction:
            self._connection.execute("COMMIT" if keep else "ROLLBACK")
        full = failure.startswith("full")
        error = sqlite3.OperationalError("database or disk is full" if full else "disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL if full else sqlite3.SQLITE_IOERR_FSYNC
        raise error


@cache
def _new_files() -> dict[str, Image]:
    """A new database, made once by the product itself."""
    with TemporaryDirectory() as folder:
        paths = {name: Path(folder, f"{name}.db") for name in FILES}
        make_files(paths["tables"], paths["journal"])
        with closing(sqlite3.connect(paths["tables"])) as tables, tables:
            borrowers = [(borrower_id,) for borrower_id in BORROWERS]
            tables.executemany(
                "INSERT INTO users VALUES (?, 'Asha', 'a' || ?1, 'a' || ?1, 0, '', 300, 0)", borrowers
            )
            tables.executemany(
                "INSERT INTO vault VALUES (?, CAST('a' || ?1 AS BLOB), x'00', '0000')", borrowers
            )
        return {name: (path.read_bytes(), b"") for name, path in paths.items()}
