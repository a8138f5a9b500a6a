"""Balances are the sums of their transactions: kept so, carried over so, and summed again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledgerd.storage import migrate as migrate_module
from ledgerd.storage.balances import balances_of, differing_balances
from ledgerd.storage.migrate import migrate, migrations
from ledgerd.storage.transactions import import_end, known_imports, score_users
from tests.storage.test_transactions import (
    LARGEST,
    ROWS,
    RULES,
    add,
    begin,
    connect,
    key,
    packed,
    register,
    scores,
)


@pytest.fixture
def conn() -> Iterator[sqlite3.Connection]:
    opened = connect()
    yield opened
    opened.close()


def test_balances_of_borrowers(conn: sqlite3.Connection) -> None:
    register(conn, 1, 2, 3)
    add(conn, (1, "CREDIT", 5), (1, "DEBIT", 7), (2, "CREDIT", LARGEST), (8, "CREDIT", 1))
    assert balances_of(conn, [1, 2, 3]) == {1: -2, 2: LARGEST, 3: 0}


def test_summing_again_finds_what_was_changed_by_hand(conn: sqlite3.Connection) -> None:
    add(conn, (1, "CREDIT", 25_000_00), (2, "DEBIT", LARGEST), (2, "DEBIT", LARGEST), (3, "CREDIT", 5))
    assert list(differing_balances(conn)) == []
    conn.execute("UPDATE transactions SET kind = 'DEBIT' WHERE identity_key = ?", (key(1),))
    conn.execute("UPDATE balances SET crores = crores + 1 WHERE identity_key = ?", (key(2),))
    conn.execute("DELETE FROM balances WHERE identity_key = ?", (key(3),))
    conn.execute("INSERT INTO balances VALUES (?, 0, 7, 0)", (key(4),))
    assert list(differing_balances(conn)) == [
        (key(1), 25_000_00, -25_000_00),
        (key(2), 1_000_000_000 - 2 * LARGEST, -2 * LARGEST),
        (key(3), 0, 5),
        (key(4), 7, 0),
    ]


@settings(max_examples=30)
@given(st.lists(st.lists(ROWS, max_size=9), max_size=5), st.booleans())
def test_balances_are_the_sums_of_their_rows(
    batches: list[list[tuple[int, str, int]]], takes_a_tail_out: bool
) -> None:
    conn = connect()
    for rows in batches:
        add(conn, *rows)
    if takes_a_tail_out and batches:
        begin(conn)
        last = known_imports(conn)["last_id"]
        import_end(conn, last, [10, 0], [30, 2, b"e"], True, packed((1, "DEBIT", 3), (1, "CREDIT", 4)), 0, 9)
        begin(conn, matched=last, mark=10, replaces_tail=True)
    assert list(differing_balances(conn)) == []
    sums = {}
    for user_id, kind, amount in (row for rows in batches for row in rows):
        sums[user_id] = sums.get(user_id, 0) + (amount if kind == "CREDIT" else -amount)
    kept = conn.execute("SELECT identity_key, crores * 1000000000 + paise FROM balances").fetchall()
    assert {user_key: paise for user_key, paise in kept if paise} == {
        key(user_id): paise for user_id, paise in sums.items() if paise
    }
    conn.close()


def test_rows_of_the_first_schema_are_carried_over(monkeypatch: pytest.MonkeyPatch) -> None:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    with monkeypatch.context() as first:
        first.setattr(migrate_module, "migrations", lambda kind: migrations(kind)[:1])
        migrate(conn, "tables")
    conn.execute("PRAGMA foreign_keys = ON")
    register(conn, 1)
    conn.execute("INSERT INTO imports VALUES (1, 'f', 0, 0, x'', '{\"tail\": null}', 0, 0, 0, 1)")
    rows = [(1, "CREDIT", 25_000_00), (2, "DEBIT", 7), (1, "DEBIT", 1), *[(2, "CREDIT", LARGEST)] * 9_300]
    conn.executemany(
        "INSERT INTO transactions (identity_key, kind, amount_paise, date, import_id) VALUES (?, ?, ?, 5, 1)",
        [(key(user_id), kind, amount) for user_id, kind, amount in rows],
    )
    before = conn.execute("SELECT * FROM transactions ORDER BY id").fetchall()
    migrate(conn, "tables")
    assert conn.execute("SELECT * FROM transactions ORDER BY id").fetchall() == before
    assert list(differing_balances(conn)) == []
    assert conn.execute("SELECT identity_key, last_id FROM balances").fetchall() == [
        (key(1), 3),
        (key(2), 9303),
    ]
    add(conn, (1, "CREDIT", 1))
    assert score_users(conn, [1], *RULES) == 1
    assert scores(conn) == {1: 310}
    conn.close()
