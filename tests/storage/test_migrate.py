"""Migrations: numbered, forward only, each whole or not at all."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import get_args

import pytest

from ledgerd.storage import journal as journal_module
from ledgerd.storage import migrate as migrate_module
from ledgerd.storage.files import migrate_files, open_engine
from ledgerd.storage.migrate import FileKind, check_schema, migrate, migrations, schema_version
from ledgerd.storage.ports import StoreError
from ledgerd.storage.verify import verify_files
from tests.storage.books import RULES, Place, write_book

ROOT = Path(__file__).parents[2]
KINDS: tuple[FileKind, ...] = get_args(FileKind)
ADD_NOTE = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT) STRICT; INSERT INTO notes VALUES (1, 'x');"
BROKEN = "CREATE TABLE half (id INTEGER); INSERT INTO half VALUES (1); INSERT INTO nowhere VALUES (1);"


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        yield connection


def with_next(monkeypatch: pytest.MonkeyPatch, **next_of: str) -> None:
    """What the version of ledgerd after this one would bring."""

    def more(kind: FileKind) -> list[tuple[int, str]]:
        known = migrations(kind)
        return [*known, (known[-1][0] + 1, next_of[kind])] if kind in next_of else known

    monkeypatch.setattr(migrate_module, "migrations", more)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_file_gets_them_all_in_order_once(connection: sqlite3.Connection, kind: FileKind) -> None:
    numbers = [number for number, _ in migrations(kind)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert schema_version(connection) == 0
    assert migrate(connection, kind) == len(numbers)
    assert schema_version(connection) == numbers[-1]
    check_schema(connection, kind)
    assert migrate(connection, kind) == 0
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert "meta" in names
    for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'table'"):
        assert "STRICT" in sql


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_migration_leaves_nothing_behind(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch, kind: FileKind
) -> None:
    migrate(connection, kind)
    have = schema_version(connection)
    before = connection.execute("SELECT * FROM sqlite_schema").fetchall()
    with_next(monkeypatch, **{kind: BROKEN})
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        migrate(connection, kind)
    connection.execute("ROLLBACK")
    assert schema_version(connection) == have
    assert connection.execute("SELECT * FROM sqlite_schema").fetchall() == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_newer_file_is_refused(connection: sqlite3.Connection, kind: FileKind) -> None:
    connection.execute("PRAGMA user_version = 99")
    for refuse in (check_schema, migrate):
        with pytest.raises(StoreError, match=f"the {kind} file has schema 99, .*install the newer ledgerd"):
            refuse(connection, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_file_is_refused(connection: sqlite3.Connection, kind: FileKind) -> None:
    with pytest.raises(StoreError, match=f"the {kind} file is empty"):
        check_schema(connection, kind)


def write_first_book(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database with rows in it, as the first schema had it."""
    with monkeypatch.context() as first:
        first.setattr(migrate_module, "migrations", lambda kind: migrations(kind)[:1])
        first.setattr(journal_module, "candidates", lambda *_, **__: [])  # it asks an index of today
        write_book(place, seed=1)
    assert place.query("PRAGMA user_version") == [(1,)]


def everything(place: Place) -> list[str]:
    """All that both files hold, as statements."""
    lines: list[str] = []
    for path in (place.tables, place.journal):
        with closing(sqlite3.connect(path)) as connection:
            lines += connection.iterdump()
    return lines


# Files ---------------------------------------------------------------------------------------------


async def test_a_file_of_an_older_version_is_refused_until_it_is_migrated(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_book(place, seed=1)
    [(have,)] = place.query("PRAGMA user_version")
    with_next(monkeypatch, tables=ADD_NOTE)
    words = rf"the tables file has schema {have}, .* needs {have + 1}: run `ledgerd migrate`"
    with pytest.raises(StoreError, match=words):
        await open_engine(*place.paths)
    with pytest.raises(StoreError, match="run `ledgerd migrate`"):
        verify_files(place.tables, place.journal, RULES, lambda done, total: None)
    assert [await migrate_files(*place.paths) for _ in range(2)] == [1, 0]
    assert place.query("SELECT * FROM notes") == [(1, "x")]
    await (await open_engine(*place.paths)).close()
    assert verify_files(place.tables, place.journal, RULES, lambda done, total: None).found == 0


async def test_the_first_schema_with_rows_in_it_is_brought_up_to_this_one(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_first_book(place, monkeypatch)
    place.edit("INSERT INTO billing_runs VALUES (1, 739000, 'completed', 5, 5, 0, 1000, 2000)")
    place.edit("INSERT INTO billing_runs VALUES (2, 739001, 'running', 5, 3, 1, 3000, NULL)")
    tables = ("users", "vault", "transactions", "loans", "bills", "payments")
    before = [place.query(f"SELECT * FROM {table}") for table in tables]
    assert all(before)
    with pytest.raises(StoreError, match=r"the tables file has schema 1, .*run `ledgerd migrate`"):
        await open_engine(*place.paths)
    assert await migrate_files(*place.paths) == len(migrations("tables")) - 1
    assert [place.query(f"SELECT * FROM {table}") for table in tables] == before
    engine = await open_engine(*place.paths)
    try:
        for key, seq in place.query(
            "SELECT once_key, seq FROM events WHERE once_key NOTNULL", file="journal"
        ):
            assert (await engine.read("owner_of", key)).seq == seq
        assert await engine.read("runs_before", 9, 9) == [
            [2, 739001, "running", 5, 3, 1, [], 3000, None],
            [1, 739000, "completed", 5, 5, 0, [], 1000, 2000],
        ]
    finally:
        await engine.close()
    assert verify_files(place.tables, place.journal, RULES, lambda done, total: None).found == 0


async def test_a_migration_that_is_killed_before_any_statement_goes_on_at_the_next(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_first_book(place, monkeypatch)
    killed = tmp_path / "killed"
    run = [sys.executable, "-m", "tests.storage.killed_migration", str(place.folder), str(killed)]
    done = await asyncio.to_thread(subprocess.run, run, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    newest = await migrate_files(*place.paths) + 1
    whole = everything(place)
    found = Counter[int]()
    for folder in killed.iterdir():
        left = Place(folder)
        [(have,)] = left.query("PRAGMA user_version")
        found[have] += 1
        if have < newest:
            with pytest.raises(StoreError, match=f"schema {have}, .*run `ledgerd migrate`"):
                await open_engine(*left.paths)
        assert await migrate_files(*left.paths) == newest - have
        assert everything(left) == whole
    assert sorted(found) == list(range(1, newest + 1))  # each was left behind, all of it or nothing
    assert verify_files(place.tables, place.journal, RULES, lambda done, total: None).found == 0


async def test_both_files_are_migrated_and_a_broken_one_stays_what_it_was(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_book(place, seed=1)
    [(have,)] = place.query("PRAGMA user_version")
    with_next(monkeypatch, journal=ADD_NOTE, tables=BROKEN)
    with pytest.raises(StoreError, match=r"ledgerd\.db: no such table: .*nowhere"):
        await migrate_files(*place.paths)
    assert place.query("PRAGMA user_version", file="journal") == [(2,)]
    assert place.query("PRAGMA user_version") == [(have,)]
    assert place.query("SELECT name FROM sqlite_schema WHERE name = 'half'") == []
    with_next(monkeypatch, journal=ADD_NOTE, tables=ADD_NOTE)
    assert await migrate_files(*place.paths) == 1


async def test_only_a_database_that_is_there_is_migrated(place: Place) -> None:
    with pytest.raises(StoreError, match="no database here"):
        await migrate_files(*place.paths)
    assert not place.tables.exists()
    place.make()
    place.journal.write_bytes(b"")
    with pytest.raises(StoreError, match="the journal file is empty"):
        await migrate_files(*place.paths)
    place.journal.write_bytes(b"no database" * 1_000)
    with pytest.raises(StoreError, match="not a database"):
        await migrate_files(*place.paths)
