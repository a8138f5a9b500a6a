"""The two files: made whole, owned by one process, tied to each other, refused with one line otherwise."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from ledgerd.storage import files
from ledgerd.storage.files import database_id, migrate_files, open_engine, open_memory, take_lock
from ledgerd.storage.ports import StoreError
from ledgerd.storage.sqlite import connect_reader, connect_writer, file_uri
from tests.storage.books import Place, Writer, add_borrower
from tests.storage.conftest import AnyStore, opened

ROUNDS = 2  # what refuses once refuses again: the lock was let go


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Don't wait for another owner to leave."""
    monkeypatch.setattr(files, "LOCK_PATIENCE_S", -1)


def names(place: Place) -> list[str]:
    return sorted(path.name for path in place.folder.iterdir())


# New files -----------------------------------------------------------------------------------------


async def test_new_files_are_for_their_owner_alone_and_the_wal_ends_with_the_engine(place: Place) -> None:
    engine = await open_engine(*place.paths)
    await add_borrower(engine)
    await engine.append(1, [Writer(1).lend()])
    assert {"ledgerd.db-wal", "ledgerd.journal.db-wal"} < set(names(place))
    assert {stat.S_IMODE(path.stat().st_mode) for path in place.folder.iterdir()} == {0o600}
    await engine.close()
    assert names(place) == ["ledgerd.db", "ledgerd.db.lock", "ledgerd.journal.db"]


async def test_a_folder_is_made_where_there_is_none(tmp_path: Path) -> None:
    place = Place(tmp_path / "deep" / "down")
    await (await open_engine(*place.paths)).close()
    assert "ledgerd.db" in names(place)


async def test_both_files_are_durable_whoever_writes(place: Place) -> None:
    engine = await open_engine(*place.paths)
    for database in (engine._journal_db, engine._tables):
        assert await database.run(lambda c: c.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
        assert await database.run(lambda c: c.execute("PRAGMA synchronous").fetchone()) == (2,)
    for database in (engine._journal_reader, *engine._readers):
        assert await database.run(lambda c: c.execute("PRAGMA query_only").fetchone()) == (1,)
    await engine.close()


@pytest.mark.parametrize("renamed", [0, 1])
async def test_making_goes_on_where_it_was_cut_off(place: Place, renamed: int) -> None:
    """The journal is renamed first, the tables last."""
    place.make()
    place.tables.rename(f"{place.tables}.new")
    if renamed == 0:
        place.journal.rename(f"{place.journal}.new")
    engine = await open_engine(*place.paths)
    await engine.close()
    assert names(place) == ["ledgerd.db", "ledgerd.db.lock", "ledgerd.journal.db"]


async def test_databases_in_memory_are_apart(place: Place) -> None:
    one, two = await open_memory(), await open_memory()
    await add_borrower(one)
    await one.append(1, [Writer(1).lend()])
    assert (await two.load([1]))[0].version == 0
    await one.close()
    await two.close()
    assert names(place) == []


# A full disk ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size_bytes", "made", "what"),
    [
        (4_000, False, "ledgerd.db: disk I/O error"),
        (0, True, "ledgerd.db.lock: File too large"),
        (4_000, True, "ledgerd.db: disk I/O error"),  # the WAL's index
    ],
)
async def test_a_full_disk_refuses_a_start_and_says_what_to_do(
    place: Place, size_bytes: int, made: bool, what: str
) -> None:
    if made:
        await (await open_engine(*place.paths)).close()
    for _ in range(ROUNDS):
        with files_up_to(size_bytes), pytest.raises(StoreError) as refused:
            await open_engine(*place.paths)
        assert f"{place.folder}/{what}: make room on its disk" in str(refused.value)
    await (await open_engine(*place.paths)).close()


@contextmanager
def files_up_to(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow past this, while the block runs."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_another_program_that_writes_to_a_file_is_in_the_way(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await open_engine(*place.paths)).close()
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, timeout=0))
    for path in (place.tables, place.journal):
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError) as refused:
                await open_engine(*place.paths)
        assert str(refused.value) == (
            f"{path}: database is locked: another program has it open: end that one first"
        )
    await (await open_engine(*place.paths)).close()


# One owner -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", ["files", "process"])
async def test_a_second_owner_is_refused_and_told_whom_to_stop(kind: str, place: Place) -> None:
    async with opened(kind, place) as store:
        for _ in range(ROUNDS):
            with pytest.raises(StoreError) as refused:
                await open_engine(*place.paths)
            assert str(refused.value) == (
                f"{place.tables} is in use by another ledgerd (process {os.getpid()}):"
                " two can't serve one database; stop that one first"
            )
            with pytest.raises(StoreError, match="in use by another ledgerd"):
                await migrate_files(*place.paths)
        await add_borrower(store)  # undisturbed
    await (await open_engine(*place.paths)).close()


async def test_a_new_owner_waits_for_one_that_is_just_leaving(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LOCK_PATIENCE_S", 60)  # never runs out
    first = await open_engine(*place.paths)
    second = asyncio.create_task(open_engine(*place.paths))
    await asyncio.sleep(0)
    assert not second.done()
    await first.close()
    engine = await second
    assert engine.opened.epoch == 2
    await engine.close()


@pytest.mark.usefixtures("impatient")
async def test_the_lock_ends_with_its_process_however_that_ends(place: Place) -> None:
    async with opened("process", place) as store:
        with pytest.raises(StoreError, match="in use"):
            await open_engine(*place.paths)
        kill(store)
        engine = await open_engine(*place.paths)
        assert engine.opened.epoch == 2
        await engine.close()


def kill(store: AnyStore) -> None:
    store._process.kill()  # type: ignore[union-attr]
    store._process.wait()  # type: ignore[union-attr]


async def test_the_lock_says_who_serves_and_who_holds_it(place: Place) -> None:
    release = await take_lock(place.lock, service_pid=12)
    assert place.lock.read_text() == f"12 {os.getpid()}"
    release()
    place.lock.write_text("a longer text than any number")
    release = await take_lock(place.lock)
    assert place.lock.read_text() == f"{os.getpid()} {os.getpid()}"
    assert stat.S_IMODE(place.lock.stat().st_mode) == 0o600
    release()


async def test_a_folder_that_can_not_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose a writable folder"):
        await open_engine(*Place(tmp_path / "file").paths)


# Files that don't belong together, or are none -----------------------------------------------------


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("missing", ["tables", "journal"])
async def test_half_a_database_is_refused(place: Place, missing: str) -> None:
    place.make()
    kept = place.journal if missing == "tables" else place.tables
    gone = getattr(place, missing)
    gone.unlink()
    for _ in range(ROUNDS):
        with pytest.raises(StoreError, match=f"{gone} is missing beside its other half"):
            await open_engine(*place.paths)
    assert names(place) == sorted([kept.name, "ledgerd.db.lock"])


@pytest.mark.usefixtures("impatient")
async def test_the_journal_of_another_database_is_refused(place: Place, tmp_path: Path) -> None:
    other = Place(tmp_path / "other")
    other.folder.mkdir()
    for each in (place, other):
        each.make()
    shutil.copy(other.journal, place.journal)
    for _ in range(ROUNDS):
        with pytest.raises(StoreError, match=r"is not the journal of .* restore both from one backup"):
            await open_engine(*place.paths)


async def test_each_new_database_has_an_id_that_both_files_bear(tmp_path: Path) -> None:
    ids = []
    for name in ("a", "b"):
        place = Place(tmp_path / name)
        place.folder.mkdir()
        place.make()
        for path in (place.tables, place.journal):
            connection = connect_reader(file_uri(path, "ro"))
            ids.append(database_id(connection))
            connection.close()
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert {len(each) for each in ids} == {32}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("content", [b"", b"x", b"no database, whatever its name says" * 300])
@pytest.mark.parametrize("file", ["tables", "journal"])
async def test_what_is_no_database_is_refused_in_one_line(place: Place, file: str, content: bytes) -> None:
    place.make()
    getattr(place, file).write_bytes(content)
    for _ in range(ROUNDS):
        with pytest.raises(StoreError, match=r"restore it from a backup|not a database") as refused:
            await open_engine(*place.paths)
        assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("file", "table"), [("tables", "meta"), ("journal", "events"), ("journal", "batches")]
)
async def test_a_damaged_file_is_refused_in_one_line(place: Place, file: str, table: str) -> None:
    place.make()
    [(page,)] = place.query("SELECT rootpage FROM sqlite_schema WHERE name = ?", table, file=file)
    place.damage(file, (page - 1) * 4096, b"\xa5" * 4096)
    for _ in range(ROUNDS):
        with pytest.raises(StoreError, match="malformed") as refused:
            await open_engine(*place.paths)
        assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("impatient")
async def test_files_of_a_newer_version_are_refused(place: Place) -> None:
    place.make()
    for file in ("journal", "tables"):
        place.edit("PRAGMA user_version = 99", file=file)
        for _ in range(ROUNDS):
            with pytest.raises(StoreError, match=f"the {file} file has schema 99"):
                await open_engine(*place.paths)
            with pytest.raises(StoreError, match="install the newer ledgerd"):
                await migrate_files(*place.paths)


async def test_what_is_made_passes_its_own_checks(place: Place) -> None:
    place.make()
    for path in (place.tables, place.journal):
        connection = connect_writer(file_uri(path))
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
    assert place.query("SELECT value FROM meta WHERE key = 'epoch'", file="journal") == [(0,)]


async def test_what_is_no_database_file_is_refused_as_what_it_is(place: Place) -> None:
    place.tables.mkdir()
    with pytest.raises(StoreError, match=r"is a folder: name another file in \[storage\] url"):
        await open_engine(*place.paths)
    assert [path.name for path in place.folder.iterdir()] == [place.tables.name]
    place.tables.rmdir()
    place.tables.write_text("key = 1")
    with pytest.raises(StoreError, match=r"is no database of ledgerd: name another file"):
        await open_engine(*place.paths)
    assert place.tables.read_text() == "key = 1"
