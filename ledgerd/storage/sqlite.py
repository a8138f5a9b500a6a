"""Connections to SQLite: the only module that imports aiosqlite.

A connection is used by whole functions, each of which runs from BEGIN to COMMIT without giving the thread
away, so that no two coroutines ever share a transaction. Exactly one connection writes and checkpoints each
file (SQLite before 3.51.3 can corrupt a WAL when two do); the others are read-only.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import aiosqlite

# How much of a file is read as memory: pages of it that are in use count as the process's, but cost nothing.
MMAP_BYTES = 1 << 28

P = ParamSpec("P")
R = TypeVar("R")


class Database(Protocol):
    """One connection and the turn-taking around it."""

    async def run(
        self, function: Callable[Concatenate[sqlite3.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Call `function(connection, ...)` when its turn comes."""
        ...

    def call(
        self, function: Callable[Concatenate[sqlite3.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Call `function(connection, ...)` on the caller's own thread, when no other has a turn."""
        ...

    async def close(self) -> None:
        """Finish what is queued, then close."""
        ...


class ThreadDatabase:
    """A connection on a thread of its own (aiosqlite's); one hop a function, whatever it runs."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._turn = threading.Lock()

    @classmethod
    async def open(cls, connect: Callable[[], sqlite3.Connection]) -> ThreadDatabase:
        """Open by calling `connect` on the new thread."""
        return cls(await aiosqlite.Connection(connect, iter_chunk_size=64))

    async def run(
        self, function: Callable[Concatenate[sqlite3.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        # aiosqlite has no public way to run a function on its thread; a test fails if this name goes.
        execute: Callable[..., Awaitable[R]] = self._connection._execute  # noqa: SLF001
        return await execute(self.call, function, *args, **kwargs)

    def call(
        self, function: Callable[Concatenate[sqlite3.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        connection = self._connection._conn  # noqa: SLF001 - likewise
        with self._turn:
            return function(connection, *args, **kwargs)

    async def close(self) -> None:
        await self._connection.close()


class InlineDatabase:
    """A connection used where the caller stands: for memory, simulation and tests."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def run(
        self, function: Callable[Concatenate[sqlite3.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        return function(self._connection, *args, **kwargs)

    def call(
        self, function: Callable[Concatenate[sqlite3.Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        return function(self._connection, *args, **kwargs)

    async def close(self) -> None:
        self._connection.close()


def connect_writer(target: str) -> sqlite3.Connection:
    """Open the one connection that writes a file (a path or a `file:` URI), durable at each commit, or refuse
    to run.
    """
    connection = sqlite3.connect(
        target,
        isolation_level=None,
        uri=True,
        cached_statements=512,
        check_same_thread=False,  # the journal is written by two threads, in turn: see `Database.call`
    )
    in_memory = "mode=memory" in target
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    synchronous = connection.execute("PRAGMA synchronous").fetchone()[0]
    if not in_memory and (mode != "wal" or synchronous != 2):
        connection.close()
        raise sqlite3.OperationalError(
            f"{target}: needs WAL and synchronous=FULL, got {mode} and {synchronous}"
        )
    return connection


def connect_reader(target: str) -> sqlite3.Connection:
    """Open a connection that only reads."""
    connection = sqlite3.connect(target, isolation_level=None, uri=True, cached_statements=512)
    connection.execute("PRAGMA query_only = ON")
    connection.execute(f"PRAGMA mmap_size = {MMAP_BYTES}")
    return connection


def file_uri(path: Path, mode: str = "rw") -> str:
    """Return the `file:` URI of a database; mode is ro, rw or rwc."""
    return f"{path.absolute().as_uri()}?mode={mode}"


def file_of(connection: sqlite3.Connection) -> str:
    """Return the path of the connection's file; empty for one in memory."""
    row = connection.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()
    return str(row[0] or "")


def is_disk_full(error: BaseException) -> bool:
    """Return whether a statement failed for want of room on the disk, or in a quota. SQLite has undone its
    transaction, and nothing of it is on disk. A sync that failed is something else: of that nothing is known.
    """
    return getattr(error, "sqlite_errorcode", None) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE}


def is_disk_failure(error: BaseException) -> bool:
    """Return whether a disk failed under a statement otherwise, as in a sync: what it wrote may be on it."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_IOERR and not is_disk_full(error)


def transact(connection: sqlite3.Connection, function: Callable[..., Any], *args: Any) -> Any:
    """Run a function between BEGIN IMMEDIATE and COMMIT; roll back if it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = function(connection, *args)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has rolled back by itself after a full disk or a failed write
            connection.execute("ROLLBACK")
        raise
    return result


def snapshot(connection: sqlite3.Connection, function: Callable[..., Any], *args: Any) -> Any:
    """Run a function that reads, all of its statements on one state of the file."""
    connection.execute("BEGIN")
    try:
        return function(connection, *args)
    finally:
        if connection.in_transaction:  # likewise
            connection.execute("COMMIT")
