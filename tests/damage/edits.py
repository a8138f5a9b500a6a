"""Rows changed by hand: every column of every table, read from the schema, so that new ones try themselves.

An edit has a name, such as `loans.version more`. `UNKNOWABLE` lists the names that verify can't find, with
the reason; every other one must be found.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from random import Random
from typing import Any

from ledgerd.storage.migrate import migrate
from tests.damage.book import FILES, USERS, Dump, tables_of
from tests.storage.books import Place

# What is said only once. A column's name stands for all edits of it, `rows` for a table's rows as a whole.
UNKNOWABLE = {
    # people, as they said themselves, and what only the vault's key could tell
    "users.name": "said once",
    "users.annual_income_paise": "said once",
    "users.password_hash": "only its password would tell; with another nobody gets in",
    "users.registered_at_ms": "said once",
    "users.credit_score null": "pending: it is made again",
    "vault.ciphertext": "sealed with a key that verify doesn't have; opening it fails",
    "vault.last_four": "of a number that is sealed",
    "meta.vault_fingerprint more": "a start refuses it: these are not its keys",
    "meta.vault_fingerprint less": "likewise",
    "meta.vault_fingerprint deleted": "the next start writes it",
    # callers and logins: each row stands alone
    "clients rows": "said once",
    "clients.id": "a label",
    "clients.name": "a label",
    "clients.secret_hash": "a digest of what only its owner has",
    "clients.scopes": "said once",
    "clients.created_at_ms": "a label",
    "refresh_tokens.token_hash": "a digest of what only its owner has",
    "refresh_tokens.login_id": "said once",
    "refresh_tokens.user_id valid": "said once",
    "refresh_tokens.expires_at_s": "said once",
    "refresh_tokens.used_at_s": "said once",
    "refresh_tokens rows": "said once",
    "revoked_logins rows": "said once",
    "revoked_logins.login_id": "said once",
    "revoked_logins.expires_at_s": "said once",
    # files that were imported: what they were is not here any more
    "imports.file_name": "a label",
    "imports.bytes_done": "of a file that is elsewhere",
    "imports.lines_done": "likewise",
    "imports.digest": "likewise",
    "imports.rows_rejected": "likewise",
    "imports.started_at_ms": "a label",
    "imports.ended_at_ms": "a label",
    "transactions.id more": "nothing refers to it",
    "transactions swapped": "nothing refers to their ids",
    "transactions.date": "scores don't depend on it",
    "balances.last_id": "only says whose score waits",
    "meta.scored_through more": "only says whose score waits",
    "meta.scored_through less": "likewise: they are scored again",
    "meta.scored_through deleted": "likewise",
    "meta.score_rules deleted": "the next start makes scores anew",
    # the log of nightly runs
    "billing_runs rows": "a log",
    "billing_runs.id": "a label",
    "billing_runs.business_date": "a log",
    "billing_runs.status valid": "a log",
    "billing_runs.due": "a log",
    "billing_runs.billed": "a log",
    "billing_runs.failed": "a log",
    "billing_runs.failed_loans valid": "a log",
    "billing_runs.started_at_ms": "a label",
    "billing_runs.ended_at_ms more": "a label",
    "billing_runs.ended_at_ms less": "a label",
    # counters that only go up
    "meta.epoch more": "counts the owners there were",
    "meta.epoch less": "likewise",
    "meta.business_date more": "days that nothing happened on",
    "meta.business_date less": "likewise",
    "meta.indexed_seq less": "keys behind it are indexed again",
}
# What is found or not by the figures beside it.
DEPENDS = {
    "meta.indexed_seq more": "true as long as there is no key in between",
    "meta swapped": "watermarks that may stand for each other",
    "transactions.id less": "nothing refers to it, but it may be another's",
    "users swapped": "with the same score, only the vault's key would tell",
    "vault swapped": "likewise",
}
VALID: dict[str, tuple[Any, Any]] = {  # values that SQLite and ledgerd take, of which one is another
    "billing_runs.status": ("interrupted", "completed"),
    "billing_runs.failed_loans": ("[]", "[8]"),
    "events.kind": ("billed", "paid"),
    "loans.plan": ("equal_emi", "min_due"),
    "meta.clock_kind": ("system", "sandbox"),
    "refresh_tokens.user_id": USERS[:2],
    "transactions.kind": ("DEBIT", "CREDIT"),
}


@dataclass(frozen=True)
class Edit:
    """Some rows of a table, and what is there instead."""

    name: str
    file: str
    table: str
    before: tuple[tuple[Any, ...], ...]
    after: tuple[tuple[Any, ...], ...]

    def make(self, place: Place) -> bool:
        """Change the file, past its constraints; False when SQLite doesn't let it."""
        with closing(sqlite3.connect(getattr(place, self.file), isolation_level=None)) as connection:
            connection.executescript("PRAGMA synchronous = OFF; PRAGMA ignore_check_constraints = ON; BEGIN")
            columns = [column[1] for column in connection.execute(f"PRAGMA table_info({self.table})")]
            here = " AND ".join(f"{column} IS ?" for column in columns)
            try:
                for row in self.before:
                    assert connection.execute(f"DELETE FROM {self.table} WHERE {here}", row).rowcount == 1
                for row in self.after:
                    marks = ", ".join("?" * len(row))
                    connection.execute(f"INSERT INTO {self.table} VALUES ({marks})", row)
            except sqlite3.IntegrityError:
                return False
            connection.execute("COMMIT")
        return True

    @property
    def listed(self) -> str | None:
        """The name in UNKNOWABLE that it falls under, if any."""
        whole, _, how = self.name.partition(" ")
        rows = [f"{whole} rows"] if how in {"deleted", "added", "swapped"} and "." not in whole else []
        return next((name for name in (self.name, whole, *rows) if name in UNKNOWABLE), None)


def edits(place: Place, chance: Random) -> Iterator[Edit]:
    """Every column of every table in a row by chance, and rows too many, too few and exchanged."""
    for file in FILES:
        with closing(sqlite3.connect(getattr(place, file))) as connection:
            for table in tables_of(connection):
                info = connection.execute(f"PRAGMA table_info({table})").fetchall()
                rows = connection.execute(f"SELECT * FROM {table}").fetchall()
                unique = _unique(connection, table)
                for row in rows if table == "meta" else [chance.choice(rows)]:
                    yield from _of_row(file, table, info, row, rows)
                    yield Edit(_name(table, row, "deleted"), file, table, (row,), ())
                yield _added(file, table, info, rows, unique)
                yield from _swapped(file, table, info, chance.sample(rows, 2))


def _of_row(file: str, table: str, info: list[Any], row: tuple[Any, ...], rows: list[Any]) -> Iterator[Edit]:
    for place, (_, column, _, not_null, _, key) in enumerate(info):
        name = _name(table, row, "") if table == "meta" and column == "value" else f"{table}.{column} "
        value = row[place]
        changes = {
            "more": _more(max(each[place] for each in rows) if key else value),
            "less": _less(value),
            "type": _of_another_type(value),
        }
        if not not_null and not key:
            changes["null"] = None
        if (valid := VALID.get(name.strip())) is not None:
            changes["valid"] = valid[value == valid[0]]
        for how, changed in changes.items():
            if changed != value or type(changed) is not type(value):
                yield Edit(f"{name}{how}", file, table, (row,), (_with(row, place, changed),))


def _added(file: str, table: str, info: list[Any], rows: list[Any], unique: set[str]) -> Edit:
    """A row again, under a new key."""
    row = list(rows[-1])
    keys = [place for place, column in enumerate(info) if column[5]]
    for place, column in enumerate(info):
        if place == keys[-1] or column[1] in unique:
            values = [each[place] for each in rows]
            row[place] = max(values) + 1 if isinstance(row[place], int) else _more(max(values))
    return Edit(f"{table} added", file, table, (), (tuple(row),))


def _swapped(file: str, table: str, info: list[Any], two: list[tuple[Any, ...]]) -> Iterator[Edit]:
    """Two rows under each other's first key."""
    key = next(place for place, column in enumerate(info) if column[5] == 1)
    first, second = two
    after = (_with(second, key, first[key]), _with(first, key, second[key]))
    if set(after) != {first, second}:
        yield Edit(f"{table} swapped", file, table, (first, second), after)


def _unique(connection: sqlite3.Connection, table: str) -> set[str]:
    indexes = [row[1] for row in connection.execute(f"PRAGMA index_list({table})") if row[3] == "u"]
    return {row[2] for index in indexes for row in connection.execute(f"PRAGMA index_info({index})")}


def _name(table: str, row: tuple[Any, ...], how: str) -> str:
    return f"meta.{row[0]} {how}" if table == "meta" else f"{table} {how}"


def _with(row: tuple[Any, ...], place: int, value: Any) -> tuple[Any, ...]:
    return (*row[:place], value, *row[place + 1 :])


def _more(value: Any) -> Any:
    if value is None:
        return 1
    if isinstance(value, int):
        return value + 1 if value < 2**63 - 1 else value - 2
    return value + ("x" if isinstance(value, str) else b"x")


def _less(value: Any) -> Any:
    if value is None:
        return 0
    if isinstance(value, int):
        return value - 1
    return value[:-1] + ("y" if isinstance(value, str) else bytes([value[-1] ^ 1]) if value else b"")


def _of_another_type(value: Any) -> Any:
    return "text" if isinstance(value, int | bytes) or value is None else 7


def knowable(dump: Dump) -> Dump:
    """A dump without what verify can't know."""
    kept: Dump = {}
    columns = {name.partition(" ")[0] for name in UNKNOWABLE}
    for (file, table), rows in dump.items():
        if table == "meta":
            kept[file, table] = [row for row in rows if f"meta.{row[0]}" not in columns]
        elif f"{table} rows" not in UNKNOWABLE:
            hidden = {at for at, name in enumerate(COLUMNS[table]) if f"{table}.{name}" in columns}
            masked = [tuple(None if at in hidden else v for at, v in enumerate(row)) for row in rows]
            kept[file, table] = sorted(masked, key=repr)
    return kept


def _columns() -> dict[str, list[str]]:
    found = {}
    for kind in FILES:
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
            migrate(connection, kind)
            for table in tables_of(connection):
                found[table] = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    return found


COLUMNS = _columns()
