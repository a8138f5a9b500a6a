"""Found by the service's processes on their PYTHONPATH, to be killed in a window or to be less careful.

CRASH_AT is "WINDOW N": both processes get SIGKILL the n-th time that the window opens; the file CRASH_MARK is
made before. CRASH_SYNCHRONOUS puts another mode in the place of FULL, and hides that. CRASH_CHECKPOINT is how
many pages of a WAL make a checkpoint. CRASH_SLOW is a file: a COMMIT of the journal waits while somebody has
it locked. CRASH_SYNC is "FILE PATH": while PATH is there, what a COMMIT of FILE (journal, tables) writes is
kept, and its sync fails. With CRASH_FOLDERS no folder is synced. Without these nothing is done.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

WINDOW, _, _TIMES = os.environ.get("CRASH_AT", "").partition(" ")
SYNCHRONOUS = os.environ.get("CRASH_SYNCHRONOUS", "")
CHECKPOINT = os.environ.get("CRASH_CHECKPOINT", "")
SLOW = os.environ.get("CRASH_SLOW", "")
SYNC_FILE, _, SYNC_FAILS = os.environ.get("CRASH_SYNC", "").partition(" ")
IS_STORE = any(argument.endswith("storage.process") for argument in sys.orig_argv)
_left = int(_TIMES or "0")


def opens(window: str) -> None:
    """Die here, when it is this window's turn."""
    global _left  # noqa: PLW0603 - one for the process
    if window != WINDOW:
        return
    _left -= 1
    if _left == 0:
        Path(os.environ["CRASH_MARK"]).touch()
        if IS_STORE:
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


class Connection(sqlite3.Connection):
    """A connection whose commits are windows, and which may lie about its syncs."""

    _file = ""

    def execute(self, statement: str, *values: Any) -> Any:  # type: ignore[override]
        if CHECKPOINT and statement == "PRAGMA synchronous = FULL":
            super().execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT}")
        if SYNCHRONOUS and statement == "PRAGMA synchronous = FULL":
            statement = f"PRAGMA synchronous = {SYNCHRONOUS}"
        elif SYNCHRONOUS and statement == "PRAGMA synchronous":
            statement = "SELECT 2"
        if statement != "COMMIT" or not (WINDOW or SLOW or SYNC_FAILS):
            return super().execute(statement, *values)
        if not self._file:
            name = super().execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()[0]
            self._file = "journal" if name.endswith(".journal.db") else "tables"
        wrote = self.in_transaction and self.total_changes > getattr(self, "_changes", 0)
        if wrote:
            opens(f"{self._file}-before-commit")
            if SLOW and self._file == "journal":
                with Path(SLOW).open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_SH)
        result = super().execute(statement, *values)
        if wrote:
            self._changes = self.total_changes
            opens(f"{self._file}-after-commit")
            if self._file == SYNC_FILE and Path(SYNC_FAILS).exists():
                error = sqlite3.OperationalError("disk I/O error")
                error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
                error.sqlite_errorname = "SQLITE_IOERR_FSYNC"
                raise error
        return result


_connect = sqlite3.connect


def connect(*args: Any, **kwargs: Any) -> sqlite3.Connection:
    """Connect, by the class above."""
    return _connect(*args, **{"factory": Connection, **kwargs})


def before(owner: Any, name: str, window: str) -> None:
    """Open a window before a function runs."""
    wrapped = getattr(owner, name)

    def opening(*args: Any, **kwargs: Any) -> Any:
        opens(window)
        return wrapped(*args, **kwargs)

    setattr(owner, name, opening)


if WINDOW or SYNCHRONOUS or CHECKPOINT or SLOW or SYNC_FAILS:
    sqlite3.connect = connect
if os.environ.get("CRASH_FOLDERS"):
    from ledgerd.storage import folders

    folders.sync_folder = lambda _path: None
if WINDOW and IS_STORE:
    from ledgerd.storage import backup, engine, journal, once, projections, wire

    before(journal.Journal, "recover", "in-recovery")
    before(projections, "write_rows", "in-projection")
    before(once, "merge", "in-merge")
    before(wire, "transmit", "before-the-reply")
    before(backup, "copy_file", "in-backup-copy")
    before(backup, "sync_folder", "in-backup-sync")
    for written in ("import_begin", "import_batch", "import_end", "save_run", "begin_run"):
        before_write = engine.WRITES[written]

        def opening(*args: Any, _write: Any = before_write, _name: str = written) -> Any:
            opens(f"in-{_name}")
            return _write(*args)

        engine.WRITES[written] = opening
elif WINDOW and "serve" in sys.orig_argv:
    from ledgerd.actors import committer
    from ledgerd.scheduler import billing

    before(committer.Committer, "acknowledge", "before-the-answer")
    before(billing.Billing, "_hear", "in-billing")
