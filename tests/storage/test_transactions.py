"""The named reads and writes of the bank history: fences, tails, balances by index, scores."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import chain
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledgerd.domain.scoring import ScoreRules, score
from ledgerd.storage.balances import differing_balances
from ledgerd.storage.migrate import migrate
from ledgerd.storage.transactions import (
    import_batch,
    import_begin,
    import_end,
    known_imports,
    pending_users,
    recompute_scores,
    score_users,
    set_scored_through,
    touched_users,
    use_score_rules,
)

RULES = (10_000_00, 15_000_00, 10, 300, 900)
COLUMNS = {"aadhar_id": 0, "date": 1, "transaction_type": 2, "amount": 3}
LARGEST = 999_999_999_999_999
NO_ROWS = msgspec.msgpack.encode(([], []))


def connect() -> sqlite3.Connection:
    conn = sqlite3.connect(":memory:", isolation_level=None)
    migrate(conn, "tables")
    conn.execute("PRAGMA foreign_keys = ON")
    return conn


@pytest.fixture
def conn() -> Iterator[sqlite3.Connection]:
    opened = connect()
    yield opened
    opened.close()


def key(user_id: int) -> bytes:
    return user_id.to_bytes(16, "big")


def register(conn: sqlite3.Connection, *user_ids: int) -> None:
    for user_id in user_ids:
        conn.execute("INSERT INTO users VALUES (?1, 'n', ?1, ?1, 1, 'h', NULL, 0)", (user_id,))
        conn.execute("INSERT INTO vault VALUES (?, ?, x'00', '0000')", (user_id, key(user_id)))


def packed(*rows: tuple[int, str, int]) -> bytes:
    """Rows one by one, and their sums."""
    alike = [(kind, [key(user_id), amount, 738886]) for user_id, kind, amount in rows]
    sums: dict[bytes, int] = {}
    for user_id, kind, amount in rows:
        sums[key(user_id)] = sums.get(key(user_id), 0) + (amount if kind == "CREDIT" else -amount)
    return msgspec.msgpack.encode((alike, [*chain(*sums.items())]))


def begin(
    conn: sqlite3.Connection, matched: int | None = None, mark: int = 10, *, replaces_tail: bool = False
) -> Any:
    last_id = known_imports(conn)["last_id"]
    return import_begin(conn, "f.csv", last_id, matched, replaces_tail, [mark, 1, b"d"], COLUMNS, 5)


def add(conn: sqlite3.Connection, *rows: tuple[int, str, int]) -> None:
    import_id = begin(conn)["import_id"]
    import_batch(conn, import_id, [10, 0], 20, 2, b"d", packed(*rows), 0)
    import_end(conn, import_id, [20, len(rows)], [20, 2, b"d"], False, NO_ROWS, 0, 6)


def scores(conn: sqlite3.Connection) -> dict[int, int | None]:
    return dict(conn.execute("SELECT id, credit_score FROM users").fetchall())


def test_an_import_from_begin_to_end(conn: sqlite3.Connection) -> None:
    assert known_imports(conn) == {"last_id": 0, "imports": []}
    assert begin(conn) == {"import_id": 1, "rows_imported": 0}
    reply = import_batch(conn, 1, [10, 0], 300, 7, b"e", packed((1, "CREDIT", 5), (2, "DEBIT", 0)), 4)
    assert reply == {"rows_imported": 2}
    assert known_imports(conn) == {"last_id": 1, "imports": [[1, "f.csv", 300, 7, b"e", False, None, None]]}
    assert import_end(conn, 1, [300, 2], [310, 8, b"g"], False, packed((1, "DEBIT", 1)), 1, 99) == {
        "rows_imported": 1
    }
    assert known_imports(conn)["imports"] == [[1, "f.csv", 310, 8, b"g", True, None, None]]
    counts = "SELECT rows_imported, rows_rejected, started_at_ms, ended_at_ms FROM imports"
    assert conn.execute(counts).fetchone() == (3, 5, 5, 99)
    assert conn.execute("SELECT * FROM transactions WHERE id = 2").fetchone() == (
        2,
        key(2),
        "DEBIT",
        0,
        738886,
        1,
    )


def test_only_one_of_two_importers_goes_on(conn: sqlite3.Connection) -> None:
    assert begin(conn) == {"import_id": 1, "rows_imported": 0}
    stale = import_begin(conn, "f.csv", 0, None, False, [10, 1, b"d"], COLUMNS, 5)
    assert stale == {"refused": "imports-changed"}
    import_batch(conn, 1, [10, 0], 20, 2, b"d", packed((1, "CREDIT", 5)), 0)
    moved = {"refused": "import-moved"}
    assert begin(conn, matched=1, mark=10) == {"refused": "imports-changed"}
    assert import_batch(conn, 1, [10, 0], 20, 2, b"d", packed((1, "CREDIT", 5)), 0) == moved
    assert import_end(conn, 1, [10, 0], [20, 2, b"d"], False, packed((1, "CREDIT", 5)), 0, 9) == moved
    assert begin(conn, matched=1, mark=20) == {"import_id": 1, "rows_imported": 1}
    import_end(conn, 1, [20, 1], [20, 2, b"d"], False, NO_ROWS, 0, 9)
    assert import_batch(conn, 1, [20, 1], 30, 3, b"d", NO_ROWS, 0) == moved
    assert begin(conn, matched=1, mark=20) == {"import_id": 2, "rows_imported": 0}
    assert conn.execute("SELECT COUNT(*) FROM transactions").fetchone() == (1,)


def test_a_tail_is_taken_out_and_whoever_had_it_is_scored_again(conn: sqlite3.Connection) -> None:
    register(conn, 1, 2)
    begin(conn)
    import_batch(conn, 1, [10, 0], 20, 2, b"d", packed((1, "CREDIT", 25_000_00)), 0)
    import_end(conn, 1, [20, 1], [30, 2, b"e"], True, packed((2, "CREDIT", 40_000_00), (2, "DEBIT", 1)), 0, 9)
    assert known_imports(conn)["imports"] == [[1, "f.csv", 30, 2, b"e", True, 20, 2]]
    score_users(conn, [1, 2], *RULES)
    assert set_scored_through(conn, 0, 3)
    assert begin(conn, matched=1, mark=20, replaces_tail=True) == {"import_id": 2, "rows_imported": 0}
    assert scores(conn) == {1: 310, 2: None}
    import_batch(conn, 2, [20, 0], 40, 3, b"f", packed((1, "CREDIT", 15_000_00)), 0)  # takes the id 2 again
    assert touched_users(conn, None, 10) == {"after": 1, "through": 2, "user_ids": [1]}
    assert conn.execute("SELECT rows_imported FROM imports ORDER BY id").fetchall() == [(1,), (1,)]
    import_end(conn, 2, [40, 1], [40, 3, b"f"], False, NO_ROWS, 0, 9)
    assert begin(conn, matched=1, mark=20, replaces_tail=True) == {"import_id": 3, "rows_imported": 0}
    assert conn.execute("SELECT COUNT(*) FROM transactions").fetchone() == (2,)


def test_parts_of_a_batch_that_is_not_whole_are_taken_out(conn: sqlite3.Connection) -> None:
    register(conn, 1, 2)
    begin(conn)
    first = packed((1, "CREDIT", 25_000_00), (2, "CREDIT", 25_000_00))
    second = packed((1, "CREDIT", 15_000_00))
    import_batch(conn, 1, [10, 0], 20, 2, b"d", first, 0)
    import_batch(conn, 1, [20, 2], 20, 2, b"d", second, 0)
    add(conn, (2, "CREDIT", 15_000_00))  # another import, in between
    import_batch(conn, 1, [20, 3], 20, 2, b"d", second, 0)
    assert known_imports(conn)["imports"][0][:4] == [1, "f.csv", 20, 2]
    score_users(conn, [1, 2], *RULES)
    assert scores(conn) == {1: 330, 2: 320}
    assert set_scored_through(conn, 0, 5)
    assert begin(conn, matched=1, mark=20) == {"import_id": 1, "rows_imported": 2}
    assert scores(conn) == {1: None, 2: 320}
    assert conn.execute("SELECT id FROM transactions").fetchall() == [(1,), (2,), (4,)]
    assert touched_users(conn, None, 9)["after"] == 2
    for stands_at in ([20, 3], [20, 4], [10, 2]):  # whoever did not see that they were taken out
        assert import_batch(conn, 1, stands_at, 40, 3, b"e", second, 0) == {"refused": "import-moved"}
    import_batch(conn, 1, [20, 2], 20, 2, b"d", second, 0)
    import_batch(conn, 1, [20, 3], 40, 3, b"e", second, 0)
    assert begin(conn, matched=1, mark=40) == {"import_id": 1, "rows_imported": 4}
    score_users(conn, [1, 2], *RULES)
    assert scores(conn) == {1: 330, 2: 320}
    assert list(differing_balances(conn)) == []
    assert recompute_scores(conn, 0, 9, *RULES)["differing"] == []


def test_pending_borrowers_come_in_pages(conn: sqlite3.Connection) -> None:
    register(conn, 5, 3, 9, 7)
    assert pending_users(conn, 0, 3) == [3, 5, 7]
    assert pending_users(conn, 7, 3) == [9]
    assert score_users(conn, [5, 3], *RULES) == 2
    assert pending_users(conn, 0, 9) == [7, 9]


def test_touched_borrowers_come_in_pages_and_strangers_do_not(conn: sqlite3.Connection) -> None:
    register(conn, 1, 2, 3)
    add(conn, (1, "CREDIT", 1), (1, "CREDIT", 1), (8, "CREDIT", 1), (2, "CREDIT", 1), (9, "DEBIT", 1))
    first = touched_users(conn, None, 3)
    assert first == {"after": 0, "through": 3, "user_ids": [1]}
    assert touched_users(conn, 3, 3) == {"after": 3, "through": 5, "user_ids": [2]}
    assert touched_users(conn, 5, 3) == {"after": 5, "through": 5, "user_ids": []}
    assert set_scored_through(conn, 0, 5) is True
    assert set_scored_through(conn, 0, 3) is False
    assert touched_users(conn, None, 3)["after"] == 5


def test_rows_of_people_who_register_later_count(conn: sqlite3.Connection) -> None:
    add(conn, (4, "CREDIT", 25_000_00))
    set_scored_through(conn, 0, 1)
    register(conn, 4)
    score_users(conn, pending_users(conn, 0, 9), *RULES)
    assert scores(conn) == {4: 310}


def test_sums_beyond_64_bits(conn: sqlite3.Connection) -> None:
    register(conn, 1, 2)
    begin(conn)
    added, taken = [(1, "CREDIT", LARGEST)] * 5_000, [(1, "DEBIT", LARGEST)] * 5_000
    rows = 0
    for part in (added, added, taken, [*taken[1:], (1, "DEBIT", 1)]):
        import_batch(conn, 1, [10 + rows, rows], 10 + rows + len(part), 2, b"d", packed(*part), 0)
        rows += len(part)
    score_users(conn, [1, 2], 0, LARGEST - 1, 1, 0, 10)
    assert scores(conn) == {1: 1, 2: 0}
    score_users(conn, [1, 2], 0, LARGEST, 1, 0, 10)
    assert scores(conn) == {1: 0, 2: 0}


ROWS = st.tuples(st.integers(1, 6), st.sampled_from(["CREDIT", "DEBIT"]), st.integers(0, 10**8))


@settings(max_examples=50)
@given(st.lists(ROWS, max_size=40), st.sets(st.integers(1, 6)))
def test_scores_follow_from_the_balances(rows: list[tuple[int, str, int]], asked: set[int]) -> None:
    conn = connect()
    register(conn, 1, 2, 3, 4)
    add(conn, *rows)
    users = sorted(asked & {1, 2, 3, 4})
    score_users(conn, users, *RULES)
    expected: dict[int, int | None] = dict.fromkeys((1, 2, 3, 4))
    for user_id in users:
        balance = sum(
            paise if kind == "CREDIT" else -paise for owner, kind, paise in rows if owner == user_id
        )
        expected[user_id] = score(balance, ScoreRules(*RULES))
    assert scores(conn) == expected
    assert score_users(conn, users, *RULES) == 0
    conn.close()


def test_a_batch_is_scored_with_one_query_by_index(conn: sqlite3.Connection) -> None:
    register(conn, *range(1, 101))
    add(conn, *((user_id, "CREDIT", 1) for user_id in range(1, 101)))
    statements: list[str] = []
    conn.set_trace_callback(statements.append)
    score_users(conn, list(range(1, 101)), *RULES)
    conn.set_trace_callback(None)
    assert sum(" balances " in statement for statement in statements) == 1
    assert not any(" transactions " in statement for statement in statements)
    plans = [
        conn.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
        for statement in statements
        if "SELECT" in statement
    ]
    details = [step[3] for plan in plans for step in plan]
    assert any("SEARCH b USING PRIMARY KEY" in detail for detail in details)
    assert not any(detail.startswith(("SCAN b", "SCAN v")) for detail in details)


def test_recomputing_finds_what_was_changed_by_hand(conn: sqlite3.Connection) -> None:
    register(conn, 1, 2, 3, 4)
    add(conn, (1, "CREDIT", 25_000_00), (2, "CREDIT", 40_000_00))
    score_users(conn, [1, 2, 3], *RULES)
    set_scored_through(conn, 0, 2)
    assert recompute_scores(conn, 0, 2, *RULES) == {"last_id": 2, "checked": 2, "differing": []}
    assert recompute_scores(conn, 2, 9, *RULES) == {"last_id": 4, "checked": 1, "differing": []}
    assert recompute_scores(conn, 4, 9, *RULES) == {"last_id": None, "checked": 0, "differing": []}
    conn.execute("UPDATE users SET credit_score = 900 WHERE id = 2")
    assert recompute_scores(conn, 0, 9, *RULES)["differing"] == [[2, 900, 320]]


def test_who_waits_to_be_scored_again_is_not_compared(conn: sqlite3.Connection) -> None:
    register(conn, 1, 2)
    score_users(conn, [1, 2], *RULES)
    add(conn, (1, "CREDIT", 25_000_00))
    assert recompute_scores(conn, 0, 9, *RULES) == {"last_id": 2, "checked": 1, "differing": []}


def test_another_scale_makes_everybody_pending_again(conn: sqlite3.Connection) -> None:
    register(conn, 1, 2, 3)
    add(conn, (1, "CREDIT", 25_000_00), (2, "CREDIT", 40_000_00))
    score_users(conn, [1, 2], *RULES)
    set_scored_through(conn, 0, 2)
    assert use_score_rules(conn, *RULES)  # nobody knows which scale these scores were made by
    assert scores(conn) == {1: None, 2: None, 3: None}
    score_users(conn, [1, 2], *RULES)
    assert not use_score_rules(conn, *RULES)
    assert scores(conn) == {1: 310, 2: 320, 3: None}
    for position in range(len(RULES)):
        other = (*RULES[:position], RULES[position] + 1, *RULES[position + 1 :])
        assert use_score_rules(conn, *other), position
        assert pending_users(conn, -1, 9) == [1, 2, 3]
        score_users(conn, [1, 2], *other)
        assert not use_score_rules(conn, *other)
        assert recompute_scores(conn, 0, 9, *other) == {"last_id": 3, "checked": 2, "differing": []}
        assert use_score_rules(conn, *RULES)
