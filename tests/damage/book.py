"""A sound database, made by the engine and its named writes as the service makes one, with rows in every
table; what it says, as a dump of all rows; and copies of it, to be damaged.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from ledgerd.storage.files import open_engine
from ledgerd.storage.journal import Journal
from ledgerd.storage.migrate import FileKind
from ledgerd.storage.once import Keys, indexed_seq
from ledgerd.storage.ports import Entry, StoreError
from ledgerd.storage.projections import project, projected_seq
from ledgerd.storage.report import Report
from ledgerd.storage.sqlite import connect_writer, file_uri, transact
from ledgerd.storage.tail import Tail
from ledgerd.storage.verify import verify_files
from tests.storage.books import BORROWER, RULES, START, Place, Writer, live

FILES: tuple[FileKind, ...] = ("tables", "journal")
LOANS = 6
USERS = (BORROWER, 20, 33)
_SCALE = msgspec.structs.astuple(RULES)
_COLUMNS = {"aadhar_id": 0, "date": 1, "transaction_type": 2, "amount": 3}
Dump = dict[tuple[str, str], list[tuple[Any, ...]]]


async def make(place: Place, seed: int = 8) -> None:
    """Write the book; both files are closed, and hold all of it."""
    chance = Random(seed)
    store = await open_engine(*place.paths, index_keys=8)
    try:
        await _people(store)
        await _bank_history(store)
        lives = [live(Writer(loan_id), chance, 14) for loan_id in chance.sample(range(1, 2**62), LOANS)]
        while lives:
            batch: list[Entry] = []
            for _ in range(chance.randint(1, 5)):
                if lives and (entry := next(of := chance.choice(lives), None)) is not None:
                    batch.append(entry)
                elif lives:
                    lives.remove(of)
            reply = await store.append(store.opened.epoch, batch)
            assert reply.exceptions == ()
        await store.project_through(reply.head_seq)
        for run_id, failed in ((11, []), (12, [5])):
            await store.write("begin_run", run_id, START + run_id, run_id * 1_000)
            await store.write(
                "save_run", run_id, 6, 5 + run_id % 2, len(failed), failed, "completed", run_id * 1_000 + 9
            )
        await store.write("save_clock", "sandbox", START + 1_800)
    finally:
        await store.close()


async def _people(store: Any) -> None:
    await store.write("bind_vault", b"fingerprint of a vault's key....")
    for user_id in USERS:
        email = f"Asha{user_id}@example.com"
        await store.write(
            "register_user", user_id, f"Asha {user_id}", email, email.casefold(), 90_000_00 + user_id,
            f"$argon2id${user_id}", 1_000 + user_id, _identity(user_id), b"sealed" + bytes([user_id]),
            f"{user_id:04}",
        )  # fmt: skip
        await store.write(
            "store_refresh_token", bytes([user_id]) * 32, 70 + user_id, user_id, 9_000 + user_id, 10
        )
    await store.write("exchange_refresh_token", bytes([20]) * 32, bytes([80]) * 32, 11, 9_500, 9_900)
    for login_id in (3, 4):
        await store.write("revoke_login", login_id, 9_700 + login_id, 12)
    for client_id in (1, 2):
        await store.write(
            "create_client", client_id, f"gateway {client_id}", bytes([client_id]) * 32, "payments:write", 5
        )


async def _bank_history(store: Any) -> None:
    """Two imports: one of three parts, one whose last line had no newline; then scores."""
    for first, users in ((0, (*USERS, 6)), (40, (20, 33, 5))):
        known = await store.read("known_imports")
        begun = await store.write(
            "import_begin", "bank.csv", known["last_id"], None, False, [first, 1, b"d" * 32], _COLUMNS, 5
        )
        import_id = begun["import_id"]
        await store.write(
            "import_batch", import_id, [first, 0], first + 20, 4, b"e" * 32, _rows(users, 10_000_00), 1
        )
        await store.write(
            "import_end", import_id, [first + 20, 6], [first + 30, 9, b"f" * 32], first > 0,
            _rows(users, 5_000_00), 0, 99,
        )  # fmt: skip
    await store.write("use_score_rules", *_SCALE)
    await store.write("score_users", [*USERS], *_SCALE)
    touched = await store.read("touched_users", None, 100)
    assert await store.write("set_scored_through", touched["after"], touched["through"])


def _identity(user_id: int) -> bytes:
    return bytes([user_id]) * 16


def _rows(users: Sequence[int], paise: int) -> bytes:
    """A credit and a smaller debit of each, and what they come to."""
    credits_, debits, sums = list[Any](), list[Any](), list[Any]()
    for user_id in users:
        credits_ += [_identity(user_id), paise * user_id + user_id, START - user_id]
        debits += [_identity(user_id), user_id, START - user_id]
        sums += [_identity(user_id), paise * user_id]
    return msgspec.msgpack.encode(([("CREDIT", credits_), ("DEBIT", debits)], sums))


def copy_of(book: Place, folder: Path) -> Place:
    """A copy in the place of the last one."""
    folder.mkdir(exist_ok=True)
    for path in folder.glob("ledgerd.*"):
        path.unlink()
    for path in book.folder.glob("ledgerd.*db*"):
        if path != book.lock:
            shutil.copy(path, folder)
    return Place(folder)


def checked(place: Place) -> Report | StoreError:
    """What `ledgerd verify` finds; a refusal is as good. Anything else that it raises is a traceback."""
    try:
        return verify_files(place.tables, place.journal, RULES, lambda _done, _total: None, sandbox=True)
    except StoreError as refusal:
        return refusal


def findings(place: Place) -> list[str]:
    """The lines that `ledgerd verify` would say: none when nothing is wrong."""
    found = checked(place)
    lines = [str(found)] if isinstance(found, StoreError) else found.differences
    assert all(line and line.isprintable() for line in lines), lines
    return lines


def dump(place: Place) -> Dump | None:
    """All rows of all tables of both files, as SQLite reads them; None when it can't."""
    rows: Dump = {}
    try:
        for file in FILES:
            with closing(sqlite3.connect(file_uri(getattr(place, file), "ro"), uri=True)) as connection:
                for table in tables_of(connection):
                    rows[file, table] = sorted(connection.execute(f"SELECT * FROM {table}"), key=repr)
    except (sqlite3.Error, UnicodeDecodeError):
        return None
    return rows


def tables_of(connection: sqlite3.Connection) -> list[str]:
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return [name for (name,) in names if not name.startswith("sqlite_")]


def _as_killed(place: Place, folder: Path) -> Place:
    """A copy of files that are open. By another process: a close in this one drops SQLite's locks."""
    folder.mkdir()
    subprocess.run(["cp", *place.folder.glob("ledgerd.*db*"), folder], check=True)
    return Place(folder)


def copied(book: Place, folder: Path, files: Sequence[FileKind] = FILES) -> None:
    """Put these files of a book into the place of others, with their WALs or none."""
    for file in files:
        path: Path = getattr(book, file)
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            (folder / name).unlink(missing_ok=True)
            if (path.parent / name).exists():
                shutil.copy(path.parent / name, folder)


class Moments:
    """Copies of a book as a kill would leave it, WALs and all, with what was committed before each."""

    def __init__(self, book: Place, folder: Path, seed: int) -> None:
        """Write on from the book in `folder`, commit by commit, and stop in the middle of it."""
        place = copy_of(book, folder / "live")
        self.states: dict[FileKind, list[Dump]] = {file: [] for file in FILES}
        chance = Random(f"a life after book {seed}")
        tables, journal = connect_writer(file_uri(place.tables)), connect_writer(file_uri(place.journal))
        journal.execute("ATTACH ? AS tables", (file_uri(place.tables, "ro"),))
        for connection in (tables, journal):
            connection.execute("PRAGMA wal_autocheckpoint = 0")
        keeper = Journal(Tail(), Keys())
        keeper.recover(journal, projected_seq(tables), indexed_seq(tables))
        self._note(place)
        writers = [Writer(chance.randrange(1, 2**62)) for _ in range(4)]
        entries = [entry for writer in writers for entry in live(writer, chance, 6)]
        for number, entry in enumerate(entries):
            assert keeper.append(journal, [entry]) == []
            self._note(place)
            if number % 3 == 2:
                transact(tables, project, keeper.tail.turn())
                keeper.tail.drop()
                self._note(place)
            if number == len(entries) // 2:
                self.earlier = _as_killed(place, folder / "earlier")
        self.last = _as_killed(place, folder / "last")
        for connection in (tables, journal):
            connection.close()
        self.closed = copy_of(place, folder / "closed")

    def _note(self, place: Place) -> None:
        whole = dump(place)
        assert whole is not None
        for file in FILES:
            self.states[file].append({key: rows for key, rows in whole.items() if key[0] == file})

    def once_was(self, found: Dump, masked: Callable[[Dump], Dump]) -> bool:
        """Whether each of the files says what it said at some moment."""
        for file in FILES:
            now = {key: rows for key, rows in masked(found).items() if key[0] == file}
            if not any(now == masked(state) for state in self.states[file]):
                return False
        return True
