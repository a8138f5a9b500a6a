"""A backup: both files as they were at one moment, in a folder that appears when it is whole.

The moment is one at which nobody appends. Were the journal copied a little later than the tables, it might
have loans of people whom those don't know yet; a little earlier, and the tables would be ahead of it.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from ledgerd.storage.folders import make_folder, sync_folder
from ledgerd.storage.sqlite import Database, connect_reader, file_uri

TABLES_NAME, JOURNAL_NAME = "ledgerd.db", "ledgerd.journal.db"
# What a backup that was cut off may have left in its folder.
_LEFT = {f"{name}{end}" for name in (TABLES_NAME, JOURNAL_NAME) for end in ("", "-journal", "-wal", "-shm")}

_one_at_a_time = threading.Lock()


def advice(error: OSError) -> str:
    """Return what can be done about a backup's folder, with a colon before it; "" when the error says it."""
    if error.errno in {errno.EEXIST, errno.ENOTDIR} and "move it away" not in str(error):
        return ": name a new folder"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT}:
        return ": choose a folder that the service can write to"
    return ": make room on its disk" if error.errno in {errno.ENOSPC, errno.EDQUOT} else ""


def back_up(journal_db: Database, tables: Path, journal: Path, folder: Path) -> None:
    """Copy both files into a new folder, durably; for a thread of its own. `journal_db` is the connection
    that appends: it is held up for a moment, and payments go on while the files are copied.

    Raises OSError when the folder exists or can't be made, or while another backup is made. What a backup
    that was cut off left is removed.
    """
    if os.path.lexists(folder):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder))
    if os.path.lexists(folder.parent) and not folder.parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not _one_at_a_time.acquire(blocking=False):
        raise BlockingIOError(errno.EBUSY, "another backup is being made: wait for its end", str(folder))
    try:
        _back_up(journal_db, tables, journal, folder)
    finally:
        _one_at_a_time.release()


def _back_up(journal_db: Database, tables: Path, journal: Path, folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    _remove_left(partial)
    make_folder(partial.parent)
    partial.mkdir()
    try:
        with (
            closing(connect_reader(file_uri(tables, "ro"))) as of_tables,
            closing(connect_reader(file_uri(journal, "ro"))) as of_journal,
        ):
            journal_db.call(_open_snapshots, of_tables, of_journal)
            copy_file(of_tables, partial / TABLES_NAME)
            copy_file(of_journal, partial / JOURNAL_NAME)
        give_new_id(partial)
        sync_folder(partial)
        partial.rename(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def copy_file(connection: sqlite3.Connection, target: Path) -> None:
    """Copy a database by SQLite's own backup, into a file that only its owner reads."""
    target.touch(mode=0o600, exist_ok=False)
    with closing(sqlite3.connect(target)) as copy:
        connection.backup(copy)


def give_new_id(folder: Path) -> None:
    """Make the two copies a pair: put beside a file of another pair, either is refused."""
    identity = secrets.token_hex(16)
    for name in (TABLES_NAME, JOURNAL_NAME):
        with closing(sqlite3.connect(folder / name)) as copy, copy:
            copy.execute("UPDATE meta SET value = ? WHERE key = 'database_id'", (identity,))


def _remove_left(partial: Path) -> None:
    """Remove what a backup that was cut off left; OSError when it is anybody else's."""
    if not os.path.lexists(partial):
        return
    if partial.is_symlink() or not partial.is_dir() or not {path.name for path in partial.iterdir()} <= _LEFT:
        raise FileExistsError(errno.EEXIST, "is in the way, and no backup's: move it away", str(partial))
    shutil.rmtree(partial)


def _open_snapshots(_appending: sqlite3.Connection, *readers: sqlite3.Connection) -> None:
    for reader in readers:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM meta").fetchone()
