"""Opening and making the two files: the owner's lock, the schema, and the tie between a journal and its
tables.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from ledgerd.storage.engine import Engine
from ledgerd.storage.folders import make_folder, sync_folder
from ledgerd.storage.migrate import FileKind, check_made, check_schema, migrate
from ledgerd.storage.ports import StoreError
from ledgerd.storage.precedence import Precedence
from ledgerd.storage.sqlite import (
    MMAP_BYTES,
    InlineDatabase,
    ThreadDatabase,
    connect_reader,
    connect_writer,
    file_uri,
    is_disk_full,
)

LOCK_PATIENCE_S = 5.0  # how long a new owner waits for one that is just leaving
READERS = 2
LET_WRITE = "let this user write to it and to its folder, or name another in [storage] url"


async def open_engine(
    tables: Path,
    journal: Path,
    lock: Path,
    slice_events: int = 2_000,
    index_keys: int = 100_000,
    service_pid: int | None = None,
) -> Engine:
    """Own the database at these paths, make it if there is none, and return its engine, started.

    Raises StoreError when another process owns it, when one file of the two is missing, or when the schema is
    another version's.
    """
    for path in (tables, journal):
        try:
            is_folder = await asyncio.to_thread(path.is_dir)
        except OSError as error:
            raise StoreError(f"{path}: {error.strerror}: {LET_WRITE}") from error
        if is_folder:
            raise StoreError(f"{path}: is a folder: name another file in [storage] url")
    release = await take_lock(lock, service_pid)
    try:
        await asyncio.to_thread(_prepare, tables, journal)
        engine = Engine(
            journal_db=await ThreadDatabase.open(
                lambda: _connect_journal(file_uri(journal), file_uri(tables, "ro"))
            ),
            journal_reader=await ThreadDatabase.open(lambda: connect_reader(file_uri(journal, "ro"))),
            tables=await ThreadDatabase.open(lambda: connect_writer(file_uri(tables))),
            readers=[
                await ThreadDatabase.open(lambda: connect_reader(file_uri(tables, "ro")))
                for _ in range(READERS)
            ],
            slice_events=slice_events,
            index_keys=index_keys,
            precedence=Precedence(),
        )
    except sqlite3.Error as error:
        release()
        raise unusable(tables, error) from error
    except BaseException:
        release()
        raise
    engine.release_at_close(release)
    try:
        await engine.start()
    except sqlite3.Error as error:
        await engine.close()
        raise unusable(tables, error) from error
    except BaseException:
        await engine.close()
        raise
    return engine


async def open_memory() -> Engine:
    """Return an engine whose two files live in this process's memory and end with it."""
    name = secrets.token_hex(8)
    tables_uri = f"file:tables-{name}?mode=memory&cache=shared"
    journal_uri = f"file:journal-{name}?mode=memory&cache=shared"
    tables = connect_writer(tables_uri)
    migrate(tables, "tables")
    with_journal = connect_writer(journal_uri)
    migrate(with_journal, "journal")
    _tie(with_journal, tables)
    with_journal.execute("ATTACH ? AS tables", (tables_uri,))
    engine = Engine(
        journal_db=InlineDatabase(with_journal),
        journal_reader=InlineDatabase(connect_reader(journal_uri)),
        tables=InlineDatabase(tables),
        readers=[InlineDatabase(connect_reader(tables_uri))],
    )
    await engine.start()
    return engine


async def take_lock(path: Path, service_pid: int | None = None) -> Callable[[], None]:
    """Become the one owner of a database and return how to stop being it. The lock ends with the process,
    however it ends.
    """
    try:
        make_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: choose a writable folder in [storage] url") from error
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}: {LET_WRITE}") from error
    deadline = asyncio.get_running_loop().time() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if asyncio.get_running_loop().time() > deadline:
                owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").partition(" ")[0] or "unknown"
                os.close(descriptor)
                raise StoreError(
                    f"{path.with_suffix('')} is in use by another ledgerd (process {owner}):"
                    " two can't serve one database; stop that one first"
                ) from None
            await asyncio.sleep(0.05)
        else:
            try:
                os.ftruncate(descriptor, 0)
                # Whom to stop, for the next one's message; then who holds the lock.
                os.pwrite(descriptor, f"{service_pid or os.getpid()} {os.getpid()}".encode(), 0)
            except OSError as error:
                os.close(descriptor)
                raise StoreError(f"{path}: {error.strerror}: make room on its disk") from error
            return lambda: os.close(descriptor)


def is_owned(path: Path) -> bool:
    """Return whether somebody owns the database whose lock this is."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _prepare(tables: Path, journal: Path) -> None:
    """Make both files when neither is there, check both otherwise."""
    if tables.exists() != journal.exists():
        _finish_making(tables, journal)
    if not tables.exists() and not journal.exists():
        make_files(tables, journal)
        return
    check_there(tables, journal)
    if _check(tables, "tables") != _check(journal, "journal"):
        raise StoreError(f"{journal} is not the journal of {tables}: restore both from one backup")


def check_there(tables: Path, journal: Path) -> None:
    """Refuse where there is no database, or half of one; raises StoreError."""
    if tables.exists() and journal.exists():
        return
    if not tables.exists() and not journal.exists():
        raise StoreError(
            f"{tables}: there is no database here: name its file in [storage] url; `ledgerd serve` makes one"
        )
    if tables.exists() and not _is_sqlite(tables):
        raise StoreError(f"{tables}: is no database of ledgerd: name another file in [storage] url")
    missing = journal if tables.exists() else tables
    raise StoreError(f"{missing} is missing beside its other half: restore it from a backup")


def _is_sqlite(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _check(path: Path, kind: FileKind) -> str:
    """Return the id of a file that can be served; raises StoreError."""
    try:
        with closing(connect_writer(file_uri(path))) as connection:
            check_schema(connection, kind)
            connection.execute("BEGIN")
            connection.execute("UPDATE meta SET value = value")  # refused when it can't be written to
            connection.execute("ROLLBACK")
            return database_id(connection)
    except StoreError as error:
        raise StoreError(f"{path}: {error}") from error
    except sqlite3.Error as error:
        raise unusable(path, error) from error


def unusable(path: Path, error: sqlite3.Error) -> StoreError:
    """Return SQLite's complaint about a file, with what to do about it."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what SQLite adds above it
    if code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        advice = LET_WRITE
    elif is_disk_full(error) or getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHMSIZE:
        advice = "make room on its disk, or in this user's quota; where there is room, the disk fails"
    elif code == sqlite3.SQLITE_IOERR:
        advice = "the disk fails: see the system's log before you start again"
    elif code == sqlite3.SQLITE_BUSY:
        advice = "another program has it open: end that one first"
    else:
        advice = "restore it from a backup, or name another in [storage] url"
    return StoreError(f"{path}: {error}: {advice}")


def make_files(tables: Path, journal: Path) -> None:
    """Make a new database. It appears whole: written under other names first, the tables renamed last."""
    made = []
    for path in (journal, tables):
        new = path.with_name(f"{path.name}.new")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        made.append(new)
    with_journal, with_tables = (sqlite3.connect(new, isolation_level=None) for new in made)
    try:
        migrate(with_journal, "journal")
        migrate(with_tables, "tables")
        _tie(with_journal, with_tables)
    finally:
        with_journal.close()
        with_tables.close()
    made[0].replace(journal)
    made[1].replace(tables)
    sync_folder(tables.parent)


def _finish_making(tables: Path, journal: Path) -> None:
    """Put the second file in its place, when make_files was stopped between its two renames."""
    for path in (tables, journal):
        new = path.with_name(f"{path.name}.new")
        if new.exists() and not path.exists():
            new.replace(path)
            sync_folder(path.parent)


def _tie(journal: sqlite3.Connection, tables: sqlite3.Connection) -> None:
    """Give both files of a new database one id, and each its own counters."""
    identity = secrets.token_hex(16)
    journal.executemany(
        "INSERT INTO meta (key, value) VALUES (?, ?)", [("database_id", identity), ("epoch", 0)]
    )
    tables.executemany(
        "INSERT INTO meta (key, value) VALUES (?, ?)", [("database_id", identity), ("projected_seq", 0)]
    )


def database_id(connection: sqlite3.Connection) -> str:
    """Return the id that a journal and its tables share."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'database_id'").fetchone()
    return str(row[0]) if row else ""


def _connect_journal(journal_uri: str, tables_uri: str) -> sqlite3.Connection:
    """Connect to the journal, with the tables attached for the probe of once_keys; what is attached is only
    read.
    """
    connection = connect_writer(journal_uri)
    connection.execute("ATTACH ? AS tables", (tables_uri,))
    connection.execute(f"PRAGMA tables.mmap_size = {MMAP_BYTES}")
    return connection


async def migrate_files(tables: Path, journal: Path, lock: Path) -> int:
    """Bring both files up to this version and return how many migrations ran. Raises StoreError while they
    are in use.
    """
    release = await take_lock(lock)
    try:
        return await asyncio.to_thread(_migrate, tables, journal)
    finally:
        release()


def _migrate(tables: Path, journal: Path) -> int:
    check_there(tables, journal)
    ran = 0
    files: list[tuple[Path, FileKind]] = [(journal, "journal"), (tables, "tables")]
    for path, kind in files:
        try:
            with closing(connect_writer(file_uri(path))) as connection:
                check_made(connection, kind)
                ran += migrate(connection, kind)
        except StoreError as error:
            raise StoreError(f"{path}: {error}") from error
        except sqlite3.Error as error:
            raise StoreError(f"{path}: {error}: nothing of this migration was kept") from error
    return ran
