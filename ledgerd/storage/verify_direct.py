"""What `ledgerd verify` can know of the rows that no journal tells: those that are written directly.

The schema is held against the migrations; the settings in `meta`, people, imports and billing runs against
whatever else says the same. What is said only once, such as a name, can't be checked
(docs/reliability.md lists it).
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

import msgspec

from ledgerd.ids import format_id
from ledgerd.storage.migrate import FileKind, migrate
from ledgerd.storage.people import unknown_of
from ledgerd.storage.report import Report

# The rows of meta: those of every file, and those that come with use.
_SETTINGS: dict[FileKind, dict[str, type]] = {
    "journal": {"database_id": str, "epoch": int},
    "tables": {"database_id": str, "projected_seq": int, "indexed_seq": int},
}
_LATER_SETTINGS: dict[FileKind, dict[str, type]] = {
    "journal": {},
    "tables": {
        "business_date": int,
        "clock_kind": str,
        "score_rules": str,
        "scored_through": int,
        "vault_fingerprint": bytes,
    },
}
_SCHEMA = "SELECT name, type, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
_CHECK = re.compile(r"CHECK \((.+)\)")
_loan_ids = msgspec.json.Decoder(list[int])


class _Tail(msgspec.Struct, forbid_unknown_fields=True):
    bytes: int
    lines: int
    first_id: int
    last_id: int


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    """What an import keeps as JSON: see storage/transactions.py."""

    columns: dict[str, int]
    tail: _Tail | None
    parts_from: int | None = None


_header = msgspec.json.Decoder(_Header)


def verify_schema(connection: sqlite3.Connection, kind: FileKind, report: Report) -> None:
    """Every table with its constraints, and every index, is what the migrations make, and nothing else is."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as new:
        migrate(new, kind)
        wanted = {row[0]: row for row in new.execute(_SCHEMA)}
    found = {row[0]: row for row in connection.execute(_SCHEMA)}
    for name in sorted(wanted.keys() | found.keys()):
        if name not in found:
            report.differ(f"{kind} file: {wanted[name][1]} {name} is missing")
        elif wanted.get(name) != found[name]:
            report.differ(f"{kind} file: {name!r} is not what ledgerd made")
    # SQLite leaves CHECKs out of its integrity_check, for it doesn't read them in a file that is read-only.
    checks = [(row[0], check) for row in wanted.values() for check in _CHECK.findall(row[3])]
    for table, check in [] if report.found else checks:
        [(broken,)] = connection.execute(f"SELECT count(*) FROM {table} WHERE NOT ({check})")
        if broken:
            report.differ(f"{kind} file: {broken} rows of {table} break CHECK ({check})")


def verify_settings(connection: sqlite3.Connection, kind: FileKind, report: Report) -> None:
    """`meta` has the rows that everything else relies on, of their types, and no others."""
    wanted, types = _SETTINGS[kind], _SETTINGS[kind] | _LATER_SETTINGS[kind]
    found = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    for key in sorted(wanted.keys() - found.keys()):
        report.differ(f"{kind} file: {key} is missing from meta")
    for key, value in found.items():
        if key not in types:
            report.differ(f"{kind} file: meta has {key!r}, which is not ledgerd's")
        elif type(value) is not types[key]:
            report.differ(f"{kind} file: {key} in meta is {value!r}")


def verify_direct(tables: sqlite3.Connection, borrowers: set[int], report: Report) -> None:
    """Compare what is said twice, and read what has a form; `borrowers` are those of the journal."""
    _verify_people(tables, report)
    for user_id in unknown_of(tables, borrowers):
        report.differ(f"the journal has lent to user {format_id(user_id)}, whom the tables do not know")
    _verify_imports(tables, report)
    _verify_runs(tables, report)


def _verify_people(tables: sqlite3.Connection, report: Report) -> None:
    for (user_id,) in tables.execute("SELECT id FROM users WHERE id NOT IN (SELECT user_id FROM vault)"):
        report.differ(f"user {format_id(user_id)} has no row in the vault")
    for user_id, email, email_key in tables.execute("SELECT id, email, email_key FROM users"):
        if email.casefold() != email_key:
            report.differ(f"user {format_id(user_id)}: email_key is not that of the email")


def _verify_imports(tables: sqlite3.Connection, report: Report) -> None:
    counted = dict(tables.execute("SELECT import_id, count(*) FROM transactions GROUP BY 1").fetchall())
    for import_id, rows, header in tables.execute("SELECT id, rows_imported, header FROM imports"):
        if rows != (count := counted.get(import_id, 0)):
            report.differ(f"import {import_id}: rows_imported is {rows}, there are {count}")
        try:
            _header.decode(header)
        except msgspec.MsgspecError as error:
            report.differ(f"import {import_id}: its header can't be read: {error}")


def _verify_runs(tables: sqlite3.Connection, report: Report) -> None:
    query = "SELECT id, status, failed_loans, ended_at_ms FROM billing_runs"
    for run_id, status, failed_loans, ended_at_ms in tables.execute(query):
        name = f"billing run {format_id(run_id)}"
        if (status == "running") != (ended_at_ms is None):
            report.differ(f"{name}: it is {status}, and ended_at_ms is {ended_at_ms}")
        try:
            _loan_ids.decode(failed_loans)
        except msgspec.MsgspecError as error:
            report.differ(f"{name}: failed_loans can't be read: {error}")
