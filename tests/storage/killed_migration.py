"""`python -m tests.storage.killed_migration FROM TO`: migrate copies of the database in FROM, one after
the other, and kill the process that does it before its first statement, its second, and so on, until one
comes to its end. Each copy is left as it lies, in the folder of its number in TO.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import sys
from itertools import count
from pathlib import Path

from ledgerd.storage import files
from ledgerd.storage.files import migrate_files
from tests.storage.books import Place


def main(source: Path, target: Path) -> None:
    for number in count(1):
        place = Place(target / str(number))
        place.folder.mkdir(parents=True)
        for path in source.glob("ledgerd.*"):
            shutil.copy(path, place.folder)
        child = os.fork()
        if child == 0:
            migrate_and_die(place, number)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            sys.exit(os.WEXITSTATUS(status))
        assert os.WTERMSIG(status) == signal.SIGKILL


def migrate_and_die(place: Place, statements: int) -> None:
    """Migrate in this process and end it: before a statement, whichever file it is for, or at the end."""
    connect, left = files.connect_writer, statements

    def counted(_statement: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def connect_counted(uri: str) -> sqlite3.Connection:
        connection = connect(uri)
        connection.set_trace_callback(counted)
        return connection

    files.connect_writer = connect_counted
    code = 1
    try:
        asyncio.run(migrate_files(*place.paths))
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
