"""Verify finds every hand in the till: any value of any column, rows too many and too few, damaged files.

The columns are read from the schema, so that a new one is tried by itself.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from ledgerd.domain.events import BillIssued, Event, PaymentRecorded, decode_event, encode_event
from ledgerd.storage import verify
from ledgerd.storage.chain import GENESIS, batch_digest, event_hash
from ledgerd.storage.ports import StoredEvent, StoreError
from ledgerd.storage.verify import Report, verify_files
from tests.storage.books import BORROWER, RULES, Place, write_book

SEED = 8  # some of its loans are paid off, some past due, one has paid every bill
EVENTS = 113
COVERED = {"journal": ("events", "batches"), "tables": ("loans", "bills", "payments", "once")}
NOT_COVERED: dict[tuple[str, str], str] = {}  # (table, column) -> why it need not be
PAGE_BYTES = 4096


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Never changed: tests take copies."""
    place = Place(tmp_path_factory.mktemp("book"))
    write_book(place, SEED)
    assert checked(place).summary() == {
        "status": "verified",
        "events": EVENTS,
        "loans": 5,
        "bills": 58,
        "payments": 50,
        "scores": 2,
        "differences": 0,
    }
    return place


def copy_of(place: Place, folder: Path) -> Place:
    """Another copy at the same place as the last."""
    copy = Place(folder)
    for path in folder.glob("ledgerd.*"):
        path.unlink()
    for path in (place.tables, place.journal):
        shutil.copy(path, folder)
    return copy


def checked(place: Place) -> Report:
    return verify_files(place.tables, place.journal, RULES, lambda done, total: None)


def differs(place: Place) -> list[str]:
    report = checked(place)
    assert report.summary()["status"] == "differs"
    assert report.found == report.summary()["differences"] > 0
    return report.differences


# Green ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_random_lives_are_verified(place: Place, seed: int) -> None:
    write_book(place, seed, unprojected=seed % 3 * 7)
    report = checked(place)
    assert report.differences == []
    assert report.summary()["status"] == "verified"
    counts = [place.query(f"SELECT count(*) FROM {table}")[0][0] for table in ("loans", "bills", "payments")]
    assert [report.loans, report.bills] == counts[:2]
    assert report.payments == counts[2]
    assert (report.events,) == place.query("SELECT count(*) FROM events", file="journal")[0]


def test_an_empty_database_is_verified(place: Place) -> None:
    place.make()
    assert checked(place).summary()["status"] == "verified"


def test_it_reads_while_others_write_and_leaves_no_trace(book: Place, tmp_path: Path) -> None:
    place = copy_of(book, tmp_path)
    with place.projection_held():
        assert checked(place).found == 0
    before = (book.tables.read_bytes(), book.journal.read_bytes())
    assert checked(book).found == 0
    assert before == (book.tables.read_bytes(), book.journal.read_bytes())


def test_it_says_how_far_it_is(book: Place) -> None:
    said: list[tuple[int, int]] = []
    verify_files(book.tables, book.journal, RULES, lambda done, total: said.append((done, total)))
    assert said[-1] == (EVENTS, EVENTS)


# One value changed ---------------------------------------------------------------------------------


def covered_columns() -> Iterator[Any]:
    for file, tables in COVERED.items():
        with closing(sqlite3.connect(":memory:")) as connection:
            for sql in sorted((Path(verify.__file__).parent / "migrations" / file).glob("*.sql")):
                connection.executescript(sql.read_text())
            for table in tables:
                for _, column, kind, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall():
                    yield pytest.param(file, table, column, kind, id=f"{table}.{column}")


CHANGES = {
    "INTEGER": ["{} + 1", "{} - 1", "-{}", "0", "9223372036854775807", "NULL"],
    "TEXT": ["{} || 'x'", "''", "'equal_emi'"],
    "BLOB": ["x''", "{} || x'00'", "zeroblob(length({}))", "NULL", "zeroblob(70000)"],
}


@pytest.mark.parametrize(("file", "table", "column", "kind"), list(covered_columns()))
def test_a_changed_value_is_found(
    book: Place, tmp_path: Path, file: str, table: str, column: str, kind: str
) -> None:
    assert (table, column) not in NOT_COVERED
    changed = 0
    count = book.query(f"SELECT count(*) FROM {table}", file=file)[0][0]
    for change in CHANGES[kind]:
        for offset in {0, Random(table + column + change).randrange(count), count - 1}:
            place = copy_of(book, tmp_path)
            value = change.format(column)
            before = place.query(f"SELECT * FROM {table}", file=file)
            try:
                place.edit(
                    f"UPDATE {table} SET {column} = {value} WHERE ({key_columns(table)}) ="
                    f" (SELECT {key_columns(table)} FROM {table} ORDER BY 1, 2 LIMIT 1 OFFSET {offset})",
                    file=file,
                )
            except sqlite3.IntegrityError:
                continue
            if place.query(f"SELECT * FROM {table}", file=file) != before:
                changed += 1
                assert differs(place), f"{table}.{column} = {value} in row {offset}"
    assert changed >= 2


def key_columns(table: str) -> str:
    return {"events": "seq, loan_id", "batches": "last_seq, digest", "loans": "id, version",
            "bills": "loan_id, number", "payments": "seq, loan_id", "once": "hash, seq"}[table]  # fmt: skip


def test_a_changed_score_is_found(book: Place, tmp_path: Path) -> None:
    place = copy_of(book, tmp_path)
    for user_id, score in ((BORROWER, 301), (8, 900)):
        place.edit("UPDATE users SET credit_score = credit_score + 10 WHERE id = ?", user_id)
        assert any("credit_score is" in line for line in differs(place)), score
        place.edit("UPDATE users SET credit_score = credit_score - 10 WHERE id = ?", user_id)
        assert checked(place).found == 0


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE balances SET paise = paise + 1 WHERE identity_key = x'08'",
        "UPDATE balances SET crores = crores - 1 WHERE identity_key = x'08'",
        "DELETE FROM balances WHERE identity_key = x'08'",
        "UPDATE transactions SET amount_paise = amount_paise + 1 WHERE id = 4",
        "UPDATE transactions SET kind = 'DEBIT' WHERE id = 4",
        "UPDATE transactions SET identity_key = x'09' WHERE id = 4",
        "DELETE FROM transactions WHERE id = 4",
    ],
)
def test_a_balance_that_is_not_its_sum_is_found(book: Place, tmp_path: Path, sql: str) -> None:
    place = copy_of(book, tmp_path)
    place.edit(sql)
    assert any("balance of bank history 08: is " in line for line in differs(place))


def test_scores_are_held_against_the_scale_that_made_them(book: Place, tmp_path: Path) -> None:
    place = copy_of(book, tmp_path)
    place.edit("INSERT OR REPLACE INTO meta VALUES ('score_rules', '[0, 1, 1, 0, 0]')")
    assert any("credit_score is" in line for line in differs(place))
    place.edit("UPDATE meta SET value = 'a scale' WHERE key = 'score_rules'")
    assert any("the scale of scores is damaged" in line for line in differs(place))


def test_a_score_that_is_not_known_yet_is_no_difference(book: Place, tmp_path: Path) -> None:
    place = copy_of(book, tmp_path)
    place.edit("UPDATE users SET credit_score = NULL")
    assert checked(place).summary()["scores"] == 0
    assert checked(place).found == 0


# Rows too many and too few -------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "table"), [(file, table) for file in COVERED for table in COVERED[file]])
def test_a_missing_row_is_found(book: Place, tmp_path: Path, file: str, table: str) -> None:
    keys = book.query(f"SELECT {key_columns(table)} FROM {table} ORDER BY 1, 2", file=file)
    for key in {keys[0], *Random(table).sample(keys, 4), keys[-1]}:
        place = copy_of(book, tmp_path)
        assert place.edit(f"DELETE FROM {table} WHERE ({key_columns(table)}) = (?, ?)", *key, file=file) == 1
        assert differs(place), key


def test_a_missing_borrower_is_found(book: Place, tmp_path: Path) -> None:
    place = copy_of(book, tmp_path)
    place.edit("DELETE FROM users WHERE id = ?", BORROWER)
    assert any("missing row of users" in line for line in differs(place))


@pytest.mark.parametrize(
    ("file", "sql"),
    [
        ("journal", "INSERT INTO events SELECT seq + 1, loan_id, version + 1, kind, NULL, hash, body {last}"),
        ("journal", "INSERT INTO events SELECT -seq, loan_id, version, kind, once_key, hash, body {last}"),
        ("journal", "INSERT INTO batches SELECT last_seq + 1, digest FROM batches ORDER BY 1 DESC LIMIT 1"),
        ("journal", "INSERT INTO batches SELECT last_seq - 1, digest FROM batches ORDER BY 1 DESC LIMIT 1"),
        ("journal", "INSERT INTO batches VALUES (0, x'00')"),
        ("tables", "INSERT INTO bills SELECT loan_id, number + 1, 0, 0, 0, 0, 0, 0, 0 {last_bill}"),
        ("tables", "INSERT INTO bills SELECT loan_id, -1, 0, 0, 0, 0, 0, 0, 0 {last_bill}"),
        ("tables", "INSERT INTO bills SELECT 5, number, 0, 0, 0, 0, 0, 0, 0 {last_bill}"),
        ("tables", "INSERT INTO once VALUES (0, 1)"),
        ("tables", "INSERT INTO payments SELECT seq + 1, {payment} ORDER BY seq DESC LIMIT 1"),
        ("tables", "INSERT INTO payments SELECT -seq, {payment} ORDER BY seq LIMIT 1"),
        ("tables", "CREATE TEMP TABLE more AS SELECT * FROM loans LIMIT 1"),
    ],
)
def test_an_extra_row_is_found(book: Place, tmp_path: Path, file: str, sql: str) -> None:
    place = copy_of(book, tmp_path)
    payment = (
        "loan_id, version, previous_seq, payment_id, transaction_id, paid_on, recorded_at_ms, amount_paise,"
        " interest_paise, principal_paise, allocations FROM payments"
    )
    with closing(sqlite3.connect(getattr(place, file))) as connection:
        connection.execute(
            sql.format(
                last="FROM events ORDER BY seq DESC LIMIT 1",
                last_bill="FROM bills ORDER BY 1 DESC, 2 DESC LIMIT 1",
                payment=payment,
            )
        )
        if "more" in sql:
            connection.execute("UPDATE more SET id = 5")
            connection.execute("INSERT INTO loans SELECT * FROM more")
        connection.commit()
    assert differs(place)


def test_a_bill_that_went_to_another_loan_is_found(book: Place, tmp_path: Path) -> None:
    """Whatever it asks for: its old loan misses it, and the counts are what they were."""
    last_bills = "SELECT loan_id, max(number) FROM bills GROUP BY loan_id"
    bills = book.query(last_bills)
    moved = 0
    for loan_id, number in bills:
        for other, others_last in bills:
            if other != loan_id:
                place = copy_of(book, tmp_path)
                place.edit(
                    "UPDATE bills SET loan_id = ?, number = ? WHERE (loan_id, number) = (?, ?)",
                    *(other, others_last + 1, loan_id, number),
                )
                assert differs(place)
                moved += 1
    assert moved > 5


# The journal as a whole ----------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 2, 30])
def test_a_cut_journal_is_found(book: Place, tmp_path: Path, cut: int) -> None:
    place = copy_of(book, tmp_path)
    place.edit("DELETE FROM events WHERE seq > ?", EVENTS - cut, file="journal")
    assert any(f"the tables show event {EVENTS}" in line for line in differs(place))
    place.edit("DELETE FROM batches WHERE last_seq > ?", EVENTS - cut, file="journal")
    assert differs(place)


def test_a_cut_where_nothing_is_projected_yet_is_found_by_the_batches(place: Place) -> None:
    write_book(place, SEED, unprojected=30)
    assert checked(place).found == 0
    place.edit(f"DELETE FROM events WHERE seq = {EVENTS}", file="journal")
    assert differs(place) == ["the journal does not end where its last batch does"]


def test_a_missing_event_ends_the_reading(book: Place, tmp_path: Path) -> None:
    place = copy_of(book, tmp_path)
    place.edit("DELETE FROM events WHERE seq = 20", file="journal")
    assert "event 20 is missing from the journal" in differs(place)


def test_two_events_that_changed_places_are_found(book: Place, tmp_path: Path) -> None:
    for seq in (5, 40, 70):
        place = copy_of(book, tmp_path)
        for old, new in ((seq, -1), (seq + 1, seq), (-1, seq + 1)):
            place.edit("UPDATE events SET seq = ? WHERE seq = ?", new, old, file="journal")
        assert differs(place)


def test_the_journal_of_another_database_is_found(book: Place, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Place(tmp_path / "other")
    write_book(other, SEED)
    assert checked(other).found == 0
    place = copy_of(book, tmp_path)
    shutil.copy(other.journal, place.journal)
    assert "the journal is not the journal of these tables" in differs(place)


def test_a_watermark_that_lies_is_found(book: Place, tmp_path: Path) -> None:
    place = copy_of(book, tmp_path)
    for watermark in (0, EVENTS - 1, EVENTS + 1, f"{EVENTS}", b"x"):
        place.edit("UPDATE meta SET value = ? WHERE key = 'projected_seq'", watermark)
        assert differs(place)
    place.edit("DELETE FROM meta")
    assert differs(place)


def test_events_with_right_hashes_that_break_the_rules_are_found(book: Place, tmp_path: Path) -> None:
    """Somebody who writes the whole journal anew, chain and digests and all, still has to obey the rules."""
    for kind, forge, says in (
        ("billed", one_paisa_less_interest, "the rules give"),
        ("paid", a_later_date, "the rules give"),
        ("paid", another_receipt, "the rules give"),
        ("paid", another_key, "its once_key is not its own"),
        ("paid", a_gap, "version"),
    ):
        place = copy_of(book, tmp_path)
        [(seq,)] = place.query("SELECT min(seq) FROM events WHERE kind = ?", kind, file="journal")
        rewrite(place, seq, forge)
        differences = differs(place)
        assert any(line.startswith(f"event {seq} of") and says in line for line in differences)
        assert not any("match its" in line for line in differences)


def one_paisa_less_interest(stored: StoredEvent) -> StoredEvent:
    event = decode_event(stored.body)
    assert isinstance(event, BillIssued)
    return with_body(stored, msgspec.structs.replace(event, interest_paise=event.interest_paise - 1))


def a_later_date(stored: StoredEvent) -> StoredEvent:
    event = decode_event(stored.body)
    assert isinstance(event, PaymentRecorded)
    return with_body(stored, msgspec.structs.replace(event, paid_on=event.paid_on + 300))


def another_receipt(stored: StoredEvent) -> StoredEvent:
    event = decode_event(stored.body)
    assert isinstance(event, PaymentRecorded)
    paise = event.outstanding_interest_paise + 1
    return with_body(stored, msgspec.structs.replace(event, outstanding_interest_paise=paise))


def another_key(stored: StoredEvent) -> StoredEvent:
    return msgspec.structs.replace(stored, once_key=b"p:c:1:another")


def a_gap(stored: StoredEvent) -> StoredEvent:
    return msgspec.structs.replace(stored, version=stored.version + 1)


def with_body(stored: StoredEvent, event: Event) -> StoredEvent:
    return msgspec.structs.replace(stored, body=encode_event(event))


def rewrite(place: Place, seq: int, forge: Any) -> None:
    """Forge one event, and every hash and digest after it."""
    with closing(sqlite3.connect(place.journal, isolation_level=None)) as journal:
        heads: dict[int, bytes] = {}
        digest, hashes = GENESIS, []
        batches = {last for (last,) in journal.execute("SELECT last_seq FROM batches")}
        for row in journal.execute(
            "SELECT seq, loan_id, version, kind, once_key, hash, body FROM events"
        ).fetchall():
            event = StoredEvent(*row)
            if event.seq == seq:
                event = forge(event)
            head = event_hash(
                heads.get(event.loan_id, GENESIS), event.loan_id, event.version, event.once_key, event.body
            )
            heads[event.loan_id] = head
            hashes.append(head)
            journal.execute(
                "UPDATE events SET version = ?, once_key = ?, hash = ?, body = ? WHERE seq = ?",
                (event.version, event.once_key, head, event.body, event.seq),
            )
            if event.seq in batches:
                digest, hashes = batch_digest(digest, hashes), []
                journal.execute("UPDATE batches SET digest = ? WHERE last_seq = ?", (digest, event.seq))


@pytest.mark.parametrize("offset", range(-6, 0))
def test_a_body_that_can_not_be_followed_is_a_difference(book: Place, tmp_path: Path, offset: int) -> None:
    """Cut, or with another shape: whatever the rules make of it."""
    [(body,)] = book.query("SELECT body FROM events WHERE kind = 'paid' LIMIT 1", file="journal")
    paid = decode_event(body)
    assert isinstance(paid, PaymentRecorded)
    [(lent,)] = book.query("SELECT body FROM events WHERE seq = 1", file="journal")
    bodies = [
        body[:offset],
        encode_event(msgspec.structs.replace(paid, allocations=())),
        encode_event(msgspec.structs.replace(paid, allocations=paid.allocations * 20, amount_paise=0)),
        encode_event(msgspec.structs.replace(paid, transaction_id="t" * 70_000)),
        lent,
        b"",
    ]
    place = copy_of(book, tmp_path)
    place.edit(
        "UPDATE events SET body = ? WHERE seq = (SELECT min(seq) FROM events WHERE kind = 'paid')",
        bodies[offset],
        file="journal",
    )
    assert differs(place)


# Damage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["tables", "journal"])
def test_a_garbled_page_is_a_difference(book: Place, tmp_path: Path, file: str) -> None:
    chance = Random(file)
    size = getattr(book, file).stat().st_size
    for page in range(size // PAGE_BYTES):
        place = copy_of(book, tmp_path)
        place.damage(file, page * PAGE_BYTES, chance.randbytes(PAGE_BYTES))
        if checked(place).found == 0:
            assert page_is_of_others(book, page + 1)


def page_is_of_others(book: Place, page: int) -> bool:
    """Whether a page of the tables belongs to what verify does not recompute."""
    [(name,)] = book.query("SELECT name FROM dbstat WHERE pageno = ?", page)
    return name not in {*COVERED["tables"], "users"}


@pytest.mark.parametrize("file", ["tables", "journal"])
def test_a_truncated_file_is_a_difference(book: Place, tmp_path: Path, file: str) -> None:
    size = getattr(book, file).stat().st_size
    for length in (0, 1, 100, PAGE_BYTES, size // 2, size - PAGE_BYTES, size - 1):
        place = copy_of(book, tmp_path)
        data = getattr(place, file).read_bytes()
        getattr(place, file).write_bytes(data[:length])
        if not data[length:].strip(b"\0"):
            continue  # nothing was cut off: SQLite reads zeros behind the end
        if length < 100:  # to SQLite that is a new file
            with pytest.raises(StoreError, match="restore it from a backup"):
                checked(place)
        else:
            assert differs(place), length


@pytest.mark.parametrize("file", ["tables", "journal"])
def test_single_garbled_bytes_are_never_a_traceback(book: Place, tmp_path: Path, file: str) -> None:
    chance = Random(file)
    found = 0
    for _ in range(60):
        place = copy_of(book, tmp_path)
        data = bytearray(getattr(place, file).read_bytes())
        for _ in range(chance.choice([1, 1, 8])):
            data[chance.randrange(100, len(data))] = chance.randrange(256)
        getattr(place, file).write_bytes(data)
        found += checked(place).found > 0
    assert found > 5  # most bytes are of free space


def test_what_is_no_database_is_refused(book: Place, tmp_path: Path) -> None:
    place = copy_of(book, tmp_path)
    place.edit("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer"):
        checked(place)
    place.journal.unlink()
    with pytest.raises(StoreError, match=r"journal\.db is missing beside its other half"):
        checked(place)
    place.tables.unlink()
    with pytest.raises(StoreError, match="no database here"):
        checked(place)


def test_only_the_first_hundred_differences_are_kept() -> None:
    report = Report()
    for number in range(250):
        report.differ(f"{number}")
    assert (report.found, len(report.differences)) == (250, 100)
