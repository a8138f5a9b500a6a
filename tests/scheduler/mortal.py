"""A store that dies, and the disk that outlives it.

A Mortal is an engine until a call that is its last: neither that call nor any after it comes back, as when
the process is killed. Nothing runs on threads here, so that a life goes the same way each time.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ledgerd.storage.engine import Engine
from ledgerd.storage.files import _connect_journal, make_files
from ledgerd.storage.ports import Opened, StoreError
from ledgerd.storage.sqlite import InlineDatabase, connect_reader, connect_writer, file_uri


class Killed(StoreError):
    """Nothing is known of the call."""


class Mortal:
    """See the module. `calls` counts each kind of call; the last one may still reach the disk."""

    def __init__(self, engine: Engine, last_call: int | None = None, *, reaches_disk: bool = True) -> None:
        self.engine = engine
        self.calls: Counter[str] = Counter()
        self.dead = False
        self._last_call = last_call
        self._reaches_disk = reaches_disk

    @property
    def opened(self) -> Opened:
        return self.engine.opened

    async def _call(self, method: Callable[..., Any], *args: Any) -> Any:
        if self.dead:
            raise Killed
        self.calls[method.__name__] += 1
        self.dead = self.calls.total() == self._last_call
        if self.dead and not self._reaches_disk:
            raise Killed
        result = await method(*args)
        await asyncio.sleep(0)  # an answer comes in a later turn
        if self.dead:
            raise Killed
        return result

    async def append(self, *args: Any) -> Any:
        return await self._call(self.engine.append, *args)

    async def load(self, *args: Any) -> Any:
        return await self._call(self.engine.load, *args)

    async def read(self, *args: Any) -> Any:
        return await self._call(self.engine.read, *args)

    async def write(self, *args: Any) -> Any:
        return await self._call(self.engine.write, *args)

    async def project_through(self, *args: Any) -> Any:
        return await self._call(self.engine.project_through, *args)

    async def backup(self, path: str) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class Disk:
    """The two files in a folder, and the engine on them, if there is one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.tables, self.journal = folder / "ledgerd.db", folder / "ledgerd.journal.db"
        self._connections: list[sqlite3.Connection] = []
        self.engine: Engine | None = None

    @classmethod
    def new(cls, folder: Path) -> Disk:
        folder.mkdir()
        disk = cls(folder)
        make_files(disk.tables, disk.journal)
        return disk

    def copy(self, folder: Path) -> Disk:
        """As it lies there, with no engine on it."""
        assert self.engine is None
        shutil.copytree(self._folder, folder)
        return Disk(folder)

    async def open(self) -> Engine:
        tables, reader = file_uri(self.tables), file_uri(self.tables, "ro")
        self._connections = [
            *(_connect_journal(file_uri(self.journal), reader), connect_reader(file_uri(self.journal, "ro"))),
            *(connect_writer(tables), connect_reader(reader)),
        ]
        for connection in self._connections:
            connection.execute("PRAGMA synchronous = OFF")  # the machine lives on
        journal, journal_reader, writer, tables_reader = map(InlineDatabase, self._connections)
        self.engine = Engine(journal, journal_reader, writer, [tables_reader])
        await self.engine.start()
        return self.engine

    async def drop(self) -> None:
        """Leave the files as a kill does: nothing is finished, projected or closed in order."""
        assert self.engine is not None
        self.engine.projector.cancel()
        await asyncio.gather(self.engine.projector, return_exceptions=True)
        for connection in self._connections:
            connection.close()
        self.engine = None
