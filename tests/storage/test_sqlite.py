"""Connections: one transaction is one function, one thread is one queue, and durability is not an option."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from ledgerd.storage.sqlite import (
    InlineDatabase,
    ThreadDatabase,
    connect_reader,
    connect_writer,
    file_uri,
    snapshot,
    transact,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a folder?#%.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
    return path


@pytest.fixture
async def database(path: Path) -> AsyncIterator[ThreadDatabase]:
    opened = await ThreadDatabase.open(lambda: connect_writer(file_uri(path)))
    yield opened
    await opened.close()


def numbers(connection: sqlite3.Connection) -> list[int]:
    return [n for (n,) in connection.execute("SELECT n FROM t ORDER BY n")]


def insert(connection: sqlite3.Connection, *values: Any) -> int:
    for value in values:
        connection.execute("INSERT INTO t VALUES (?)", (value,))
    return len(values)


# aiosqlite -----------------------------------------------------------------------------------------


def test_the_private_names_of_aiosqlite_that_are_used_are_there() -> None:
    """ThreadDatabase.run depends on them: pin aiosqlite, or find another way, when this fails."""
    assert isinstance(inspect.getattr_static(aiosqlite.Connection, "_conn"), property)
    execute = inspect.signature(aiosqlite.Connection._execute)
    assert inspect.iscoroutinefunction(aiosqlite.Connection._execute)
    assert [parameter.kind.name for parameter in execute.parameters.values()] == [
        "POSITIONAL_OR_KEYWORD",
        "POSITIONAL_OR_KEYWORD",
        "VAR_POSITIONAL",
        "VAR_KEYWORD",
    ]


async def test_functions_run_whole_and_in_order_on_one_thread_of_their_own(database: ThreadDatabase) -> None:
    order: list[int] = []

    def work(connection: sqlite3.Connection, number: int, *, more: int) -> tuple[int, int]:
        order.append(number)
        return threading.get_ident(), number + more

    results = await asyncio.gather(*(database.run(work, number, more=10) for number in range(20)))
    assert order == list(range(20))
    assert [result for _, result in results] == list(range(10, 30))
    assert {thread for thread, _ in results} - {threading.get_ident()} == {results[0][0]}


async def test_an_error_is_its_callers_alone(database: ThreadDatabase) -> None:
    results = await asyncio.gather(
        *(database.run(transact, insert, value) for value in (1, 1, 2)), return_exceptions=True
    )
    assert results[0] == results[2] == 1
    assert isinstance(results[1], sqlite3.IntegrityError)
    assert await database.run(numbers) == [1, 2]


async def test_what_is_queued_is_finished_when_its_caller_goes_and_when_it_closes(path: Path) -> None:
    database = await ThreadDatabase.open(lambda: connect_writer(file_uri(path)))
    gate, started = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: sqlite3.Connection) -> None:
        loop.call_soon_threadsafe(started.set)
        gate.wait(30)
        transact(connection, insert, 1)

    first = asyncio.create_task(database.run(slow))
    await started.wait()
    second = asyncio.create_task(database.run(transact, insert, 2))
    closing_task = asyncio.create_task(database.close())
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    await closing_task
    assert await second == 1
    with pytest.raises(ValueError, match=r"[Cc]onnection"):
        await database.run(numbers)
    with closing(connect_reader(file_uri(path, "ro"))) as reader:
        assert numbers(reader) == [1, 2]


async def test_a_file_that_can_not_be_opened_leaves_no_thread(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        await ThreadDatabase.open(lambda: connect_writer(file_uri(tmp_path / "none.db")))
    for thread in threading.enumerate():
        if "_connection_worker_thread" in thread.name:
            thread.join(30)
    assert set(threading.enumerate()) <= before


# Connections ---------------------------------------------------------------------------------------


def test_a_writer_is_durable_at_every_commit(path: Path) -> None:
    with closing(connect_writer(file_uri(path))) as writer:
        pragmas = {
            name: writer.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
        assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
        assert writer.isolation_level is None


def test_a_file_that_can_not_be_durable_is_refused(path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match=r"needs WAL and synchronous=FULL, got delete and 2"):
        connect_writer(f"{file_uri(path)}&vfs=unix-dotfile")  # locks by files: has no WAL
    with closing(connect_writer(file_uri(path))) as writer:
        assert insert(writer, 1) == 1  # nothing still holds the file


def test_a_reader_only_reads(path: Path) -> None:
    with closing(connect_writer(file_uri(path))) as writer:
        insert(writer, 1)
        for mode in ("ro", "rw"):
            with closing(connect_reader(file_uri(path, mode))) as reader:
                assert numbers(reader) == [1]
                with pytest.raises(sqlite3.OperationalError, match="readonly"):
                    insert(reader, 2)


def test_any_path_has_a_uri(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert file_uri(path).endswith("/a%20folder%3F%23%25.db?mode=rw")
    monkeypatch.chdir(path.parent)
    assert file_uri(Path(path.name), "ro") == file_uri(path, "ro")
    with pytest.raises(sqlite3.OperationalError):
        connect_writer(file_uri(Path("not there.db")))
    assert not Path("not there.db").exists()


# Transactions --------------------------------------------------------------------------------------


def test_a_function_that_raises_leaves_nothing_and_the_connection_goes_on(path: Path) -> None:
    with closing(connect_writer(file_uri(path))) as writer:
        assert transact(writer, insert, 1, 2) == 2
        with pytest.raises(sqlite3.IntegrityError):
            transact(writer, insert, 3, 1)
        with pytest.raises(KeyboardInterrupt):
            transact(writer, interrupted)
        assert not writer.in_transaction
        transact(writer, insert, 4)
        assert numbers(writer) == [1, 2, 4]


def interrupted(connection: sqlite3.Connection) -> None:
    insert(connection, 9)
    raise KeyboardInterrupt


def test_an_error_after_which_sqlite_rolled_back_by_itself_is_heard(path: Path) -> None:
    def full(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT OR ROLLBACK INTO t VALUES (1)")

    with closing(connect_writer(file_uri(path))) as writer:
        insert(writer, 1)
        with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
            transact(writer, full)
        assert numbers(writer) == [1]


def test_a_commit_that_fails_is_heard_and_rolled_back(path: Path) -> None:
    with closing(connect_writer(file_uri(path))) as writer:
        writer.execute("CREATE TABLE child (n INTEGER REFERENCES t (n) DEFERRABLE INITIALLY DEFERRED)")

        def orphan(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO child VALUES (5)")

        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            transact(writer, orphan)
        assert not writer.in_transaction
        assert writer.execute("SELECT count(*) FROM child").fetchone() == (0,)


def test_a_snapshot_is_one_state_of_the_file(path: Path) -> None:
    with (
        closing(connect_writer(file_uri(path))) as writer,
        closing(connect_reader(file_uri(path, "ro"))) as reader,
    ):

        def twice(connection: sqlite3.Connection, more: int) -> list[list[int]]:
            first = numbers(connection)
            insert(writer, more)
            return [first, numbers(connection)]

        assert snapshot(reader, twice, 1) == [[], []]
        assert snapshot(reader, twice, 2) == [[1], [1]]
        with pytest.raises(sqlite3.IntegrityError):
            snapshot(reader, twice, 2)
        assert not reader.in_transaction
        assert snapshot(reader, numbers) == [1, 2]


async def test_an_inline_database_runs_where_it_stands(path: Path) -> None:
    database = InlineDatabase(connect_writer(file_uri(path)))
    assert await database.run(transact, insert, 7) == 1
    assert await database.run(lambda connection: threading.get_ident()) == threading.get_ident()
    await database.close()
    with pytest.raises(sqlite3.ProgrammingError):
        await database.run(numbers)
