"""Loans as their actors write them, for the tests of the storage: entries with right hashes and real rules.

A Writer decides one loan in its head, as an actor does, before anything is on disk. Lives come from a seeded
Random.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

from ledgerd.domain.commands import Disburse, IssueBills, Rejection, Repay, payment_key
from ledgerd.domain.events import Event, Terms, encode_event, kind_of
from ledgerd.domain.loan import Loan, bring_up_to_date, decide, evolve
from ledgerd.domain.money import daily_rate
from ledgerd.domain.scoring import ScoreRules, score
from ledgerd.storage.balances import differing_balances
from ledgerd.storage.chain import GENESIS, event_hash
from ledgerd.storage.engine import Engine
from ledgerd.storage.files import make_files
from ledgerd.storage.journal import Journal
from ledgerd.storage.migrate import migrate, schema_version
from ledgerd.storage.once import Keys, merge_keys
from ledgerd.storage.ports import Entry, Loaded, NewEvent, StoredEvent
from ledgerd.storage.projections import project
from ledgerd.storage.sqlite import InlineDatabase, connect_reader, connect_writer, file_uri, transact
from ledgerd.storage.tail import Tail

START = 739_000
BORROWER = 7
CALLER = "c:1"
RULES = ScoreRules(10_000_00, 15_000_00, 10, 300, 900)


def terms(amount_paise: int = 5_000_00, tenure: int = 6, disbursed_on: int = START) -> Terms:
    return Terms(amount_paise, 14_00, daily_rate(14_00), tenure, "min_due", disbursed_on, 30, 15, 3_00)


def key_of(transaction_id: str) -> bytes:
    return payment_key(CALLER, transaction_id)


class Writer:
    """Writes one loan's entries, each on the state that the one before it left."""

    def __init__(self, loan_id: int, loaded: Loaded | None = None) -> None:
        self.loan_id = loan_id
        self.loan: Loan | None = loaded.loan if loaded else None
        self.version = loaded.version if loaded else 0
        self.head_hash = loaded.head_hash if loaded else GENESIS
        self.payments = 0

    @property
    def state(self) -> tuple[Loan | None, int, bytes]:
        """Where it stands; assign to go back."""
        return self.loan, self.version, self.head_hash

    @state.setter
    def state(self, state: tuple[Loan | None, int, bytes]) -> None:
        self.loan, self.version, self.head_hash = state

    @property
    def loaded(self) -> Loaded:
        """What the store should load once everything is on disk."""
        return Loaded(self.loan_id, self.version, self.head_hash, self.loan)

    def lend(self, of: Terms | None = None, idempotency_key: str | None = None) -> Entry:
        command = Disburse(BORROWER, of or terms(), 1_000, idempotency_key)
        return self._entry(decide(None, command, command.terms.disbursed_on), command.once_key)

    def bill(self, through: int) -> Entry:
        return self._entry(decide(self.loan, IssueBills(through), through), None)

    def pay(self, transaction_id: str, amount_paise: int = 10_00, today: int | None = None) -> Entry:
        """Pay, at most the payoff, after the bills that fell due: perhaps an entry of several events."""
        assert self.loan is not None
        self.payments += 1
        today = self.loan.accrued_through if today is None else today
        amount_paise = min(amount_paise, bring_up_to_date(self.loan, today)[1].payoff_paise(today))
        payment_id = self.loan_id % 1_000_000 * 1_000 + self.payments
        command = Repay(CALLER, transaction_id, amount_paise, payment_id, 2_000 + self.payments)
        return self._entry(decide(self.loan, command, today), command.once_key)

    def ask(self, transaction_id: str) -> Entry:
        """Only ask whether the id is taken."""
        return Entry(self.loan_id, self.version, key_of(transaction_id), ())

    def _entry(self, events: list[Event] | Rejection, once_key: bytes | None) -> Entry:
        assert isinstance(events, list), events
        base_version, rows = self.version, []
        for event in events:
            self.loan = evolve(self.loan, event)
            self.version += 1
            body = encode_event(event)
            key = once_key if event is events[-1] else None
            self.head_hash = event_hash(self.head_hash, self.loan_id, self.version, key, body)
            rows.append(NewEvent(kind_of(event), self.head_hash, body))
        return Entry(self.loan_id, base_version, once_key, tuple(rows))


def live(writer: Writer, chance: Random, moves: int, prefix: str = "") -> Iterator[Entry]:
    """Lend, then pay and bill by chance, until closed; payments have the ids prefix + loan + number."""
    yield writer.lend(terms(chance.randint(1, 9_000_00), chance.randint(1, 8)))
    assert writer.loan is not None
    today = writer.loan.accrued_through
    for _ in range(moves):
        assert writer.loan is not None
        if writer.loan.closed_on is not None:
            return
        today += chance.choice([0, 1, 7, 30, 31, 95])
        due = bring_up_to_date(writer.loan, today)[1]
        if chance.random() < 0.3:
            if due.bills_issued > writer.loan.bills_issued:
                yield writer.bill(today)
            continue
        most = due.payoff_paise(today)
        asked = max(1, sum(bill.amount_paise for bill in due.unpaid_bills))
        amounts = [1, most, max(1, most // 9), asked, max(1, asked // 2)]
        [amount] = chance.choices(amounts, [20, 5, 30, 25, 20])
        yield writer.pay(f"{prefix}{writer.loan_id}-{writer.payments + 1}", min(amount, most), today)


def stored(entries: Sequence[Entry], first_seq: int = 1) -> list[StoredEvent]:
    """The rows that the entries become, when all are appended."""
    rows: list[StoredEvent] = []
    for entry in entries:
        for offset, new in enumerate(entry.events, 1):
            key = entry.once_key if offset == len(entry.events) else None
            seq = first_seq + len(rows)
            rows.append(
                StoredEvent(
                    seq, entry.loan_id, entry.base_version + offset, new.kind, key, new.hash, new.body
                )
            )
    return rows


# The two files, bare -------------------------------------------------------------------------------


NO_COLUMNS = '{"columns": {}, "tail": null}'
ADD_USER = "INSERT INTO users VALUES (?1, 'Asha', ?1, ?1, 1, 'hash', NULL, 0)"


class Bare:
    """Both files in memory with plain connections: what outlives an engine, or stands without one."""

    _made = 0

    def __init__(self) -> None:
        Bare._made += 1
        self._tables_uri = f"file:bare-tables-{Bare._made}?mode=memory&cache=shared"
        self._journal_uri = f"file:bare-journal-{Bare._made}?mode=memory&cache=shared"
        self.tables = connect_writer(self._tables_uri)
        self.journal = connect_writer(self._journal_uri)
        migrate(self.tables, "tables")
        migrate(self.journal, "journal")
        self.tables.execute("INSERT INTO meta VALUES ('projected_seq', 0)")
        self.journal.execute("INSERT INTO meta VALUES ('epoch', 0)")
        self.tables.execute(ADD_USER, (BORROWER,))
        self.journal.execute("ATTACH ? AS tables", (self._tables_uri,))
        self.reader = connect_reader(self._tables_uri)
        self.journal_reader = connect_reader(self._journal_uri)

    def clear(self) -> None:
        """As new, at a fraction of the price."""
        for table in ("once", "payments", "bills", "loans"):
            self.tables.execute(f"DELETE FROM {table}")
        self.tables.execute("UPDATE meta SET value = 0 WHERE key IN ('projected_seq', 'indexed_seq')")
        for table in ("events", "batches"):
            self.journal.execute(f"DELETE FROM {table}")

    def project(self, events: Sequence[StoredEvent]) -> int:
        return int(transact(self.tables, project, events))

    def engine(self, slice_events: int = 2_000, index_keys: int = 100_000) -> Engine:
        """A new engine on what is there; it is not started, and must not be closed."""
        return Engine(
            journal_db=InlineDatabase(self.journal),
            journal_reader=InlineDatabase(self.journal_reader),
            tables=InlineDatabase(self.tables),
            readers=[InlineDatabase(self.reader)],
            slice_events=slice_events,
            index_keys=index_keys,
        )

    def close(self) -> None:
        for connection in (self.journal_reader, self.reader, self.journal, self.tables):
            connection.close()


def appended(bare: Bare, journal: Journal, entries: Sequence[Entry]) -> None:
    """Append entries that nothing speaks against."""
    assert journal.append(bare.journal, entries) == []


# Files on disk -------------------------------------------------------------------------------------


class Place:
    """Where a database lives."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tables = folder / "ledgerd.db"
        self.journal = folder / "ledgerd.journal.db"
        self.lock = folder / "ledgerd.db.lock"

    @property
    def paths(self) -> tuple[Path, Path, Path]:
        return self.tables, self.journal, self.lock

    def make(self) -> None:
        make_files(self.tables, self.journal)

    def query(self, sql: str, *params: Any, file: str = "tables") -> list[Any]:
        """Read a file from outside."""
        with closing(sqlite3.connect(file_uri(getattr(self, file), "ro"), uri=True)) as connection:
            return connection.execute(sql, params).fetchall()

    def edit(self, sql: str, *params: Any, file: str = "tables") -> int:
        """Change a file by hand, with no foreign key in the way; how many rows changed."""
        with closing(sqlite3.connect(getattr(self, file), isolation_level=None)) as connection:
            connection.executescript("PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF")
            return connection.execute(sql, params).rowcount

    def damage(self, file: str, start: int, data: bytes) -> None:
        """Write bytes into the middle of a file."""
        with getattr(self, file).open("r+b") as opened:
            opened.seek(start)
            opened.write(data)

    @contextmanager
    def projection_held(self) -> Iterator[None]:
        """Hold the tables' write lock from outside: nothing can be projected meanwhile."""
        with closing(sqlite3.connect(self.tables, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield


def write_book(place: Place, seed: int, unprojected: int = 0) -> None:
    """A database of a few loans' lives, some people and their scores; the last events perhaps unprojected."""
    chance = Random(seed)
    place.make()
    tables = connect_writer(file_uri(place.tables))
    journal = connect_writer(file_uri(place.journal))
    journal.execute("ATTACH ? AS tables", (file_uri(place.tables, "ro"),))
    add_people(tables)
    lives = [live(Writer(loan_id), chance, 14) for loan_id in chance.sample(range(1, 2**62), 5)]
    keeper = Journal(Tail(), Keys())
    while lives:
        batch: list[Entry] = []
        for _ in range(chance.randint(1, 5)):
            if lives and (entry := next(of := chance.choice(lives), None)) is not None:
                batch.append(entry)
            elif lives:
                lives.remove(of)
        assert keeper.append(journal, batch) == []
    events = keeper.tail.turn()
    projected = events[: len(events) - unprojected]
    transact(tables, project, projected)
    # All but some are indexed, and one of those that are not, as a merge that was cut off leaves it.
    keys = [(event.once_key, event.seq) for event in projected if event.once_key is not None]
    if schema_version(tables) >= 4:
        merge_keys(tables, [*keys[:-5], keys[-3]], keys[-6][1])
    else:
        tables.executemany("INSERT INTO once VALUES (?, ?)", keys)
    for connection in (journal, tables):
        connection.close()


def add_people(tables: sqlite3.Connection) -> None:
    tables.execute("INSERT INTO imports VALUES (1, 'f', 0, 0, x'', ?, 6, 0, 0, 1)", (NO_COLUMNS,))
    for user_id in (BORROWER, 8, 9):
        tables.execute(ADD_USER, (user_id,))
        tables.execute("INSERT INTO vault VALUES (?, ?, x'00', '0000')", (user_id, bytes([user_id])))
        for amount in (90_000_00, user_id * 15_000_00):
            tables.execute(
                "INSERT INTO transactions (identity_key, kind, amount_paise, date, import_id)"
                " VALUES (?, 'CREDIT', ?, 1, 1)",
                (bytes([user_id]), amount),
            )
    if schema_version(tables) >= 3:  # a book of an older schema has no balances
        for key, _, summed_paise in list(differing_balances(tables)):
            tables.execute("INSERT INTO balances VALUES (?, 0, ?, 6)", (key, summed_paise))
    for user_id in (BORROWER, 8):
        points = score(90_000_00 + user_id * 15_000_00, RULES)
        tables.execute("UPDATE users SET credit_score = ? WHERE id = ?", (points, user_id))
    tables.execute("INSERT INTO meta VALUES ('scored_through', 6)")


async def add_borrower(store: Any, user_id: int = BORROWER) -> None:
    """Register the borrower whom the loans belong to."""
    await store.write(
        "register_user", user_id, "Asha", f"{user_id}@example.com", f"{user_id}@example.com", 1, "hash", 0,
        user_id.to_bytes(16, "big"), b"sealed", "0124",
    )  # fmt: skip
