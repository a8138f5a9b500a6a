"""What verify can know of the schema, the settings, people, imports, runs; tests/damage/ does it all."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ledgerd.http.person import email_key
from ledgerd.storage.verify import verify_files
from tests.storage.books import RULES, Place, write_book

RUN = "INSERT INTO billing_runs VALUES (1, 2, 'completed', 5, 4, 1, 10, 20, '[7]')"


@pytest.fixture
def book(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    write_book(place, 8)
    place.edit(RUN)
    assert found_in(place) == []
    return place


def found_in(place: Place) -> list[str]:
    return verify_files(place.tables, place.journal, RULES, lambda _done, _total: None).differences


@pytest.mark.parametrize(
    ("file", "sql", "says"),
    [
        ("tables", "DROP INDEX loans_borrower", "tables file: index loans_borrower is missing"),
        ("journal", "CREATE INDEX mine ON events (kind)", "journal file: 'mine' is not what ledgerd made"),
        ("tables", "CREATE TABLE more (id)", "tables file: 'more' is not what ledgerd made"),
        (
            "tables",
            "CREATE TRIGGER thief AFTER INSERT ON payments BEGIN DELETE FROM bills; END",
            "tables file: 'thief' is not what ledgerd made",
        ),
        (
            "tables",
            "ALTER TABLE clients ADD COLUMN note TEXT",
            "tables file: 'clients' is not what ledgerd made",
        ),
    ],
)
def test_another_schema_is_found(book: Place, file: str, sql: str, says: str) -> None:
    book.edit(sql, file=file)
    assert found_in(book) == [says]


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("UPDATE users SET annual_income_paise = -1 WHERE id = 8", "1 rows of users break CHECK (annual_"),
        (
            "UPDATE transactions SET kind = 'GIFT' WHERE id < 3",
            "2 rows of transactions break CHECK (kind IN ",
        ),
        ("UPDATE billing_runs SET status = 'well'", "1 rows of billing_runs break CHECK (status IN "),
    ],
)
def test_constraints_hold_in_a_file_that_is_only_read(book: Place, sql: str, says: str) -> None:
    with closing(sqlite3.connect(book.tables)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(sql)
        connection.commit()
    [found] = found_in(book)
    assert found.startswith(f"tables file: {says}")


@pytest.mark.parametrize(
    ("file", "sql", "says"),
    [
        (
            "tables",
            "DELETE FROM meta WHERE key = 'indexed_seq'",
            "tables file: indexed_seq is missing from meta",
        ),
        ("journal", "DELETE FROM meta WHERE key = 'epoch'", "journal file: epoch is missing from meta"),
        ("journal", "UPDATE meta SET value = 'x' WHERE key = 'epoch'", "journal file: epoch in meta is 'x'"),
        (
            "journal",
            "INSERT INTO meta VALUES ('up', 1)",
            "journal file: meta has 'up', which is not ledgerd's",
        ),
        (
            "tables",
            "UPDATE meta SET value = 'six' WHERE key = 'scored_through'",
            "tables file: scored_through in meta is 'six'",
        ),
        ("tables", "INSERT INTO meta VALUES ('clock_kind', 1)", "tables file: clock_kind in meta is 1"),
    ],
)
def test_settings_are_those_of_ledgerd(book: Place, file: str, sql: str, says: str) -> None:
    book.edit(sql, file=file)
    assert found_in(book) == [says]


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("DELETE FROM vault WHERE user_id = 9", "user 0000000000000009 has no row in the vault"),
        (
            "UPDATE users SET email = 'b@example.com' WHERE id = 9",
            "user 0000000000000009: email_key is not that of the email",
        ),
        ("UPDATE imports SET rows_imported = 7", "import 1: rows_imported is 7, there are 6"),
        ("UPDATE imports SET header = '{}'", "import 1: its header can't be read: "),
        ("UPDATE imports SET header = ''", "import 1: its header can't be read: "),
        ("UPDATE billing_runs SET ended_at_ms = NULL", "billing run 0000000000000001: it is completed, and "),
        ("UPDATE billing_runs SET status = 'running'", "billing run 0000000000000001: it is running, and "),
        (
            "UPDATE billing_runs SET failed_loans = '[7'",
            "billing run 0000000000000001: failed_loans can't be ",
        ),
    ],
)
def test_what_is_said_twice_agrees(book: Place, sql: str, says: str) -> None:
    book.edit(sql)
    [found] = found_in(book)
    assert found.startswith(says)


def test_emails_have_the_key_that_accounts_give_them(book: Place) -> None:
    for email in ("Asha@Example.com", "STRASSE@example.com", "i.o+1@EXAMPLE.in"):
        book.edit("UPDATE users SET email = ?, email_key = ? WHERE id = 9", email, email_key(email))
        assert found_in(book) == []
