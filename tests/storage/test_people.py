from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from ledgerd.storage import people

TABLES = Path(people.__file__).parent / "migrations" / "tables" / "0001_tables.sql"
NOW_S = 1_800_000_000


@pytest.fixture
def conn(tmp_path):
    conn = sqlite3.connect(tmp_path / "tables.db", isolation_level=None)
    conn.executescript(TABLES.read_text())
    conn.execute("PRAGMA foreign_keys=ON")
    yield conn
    conn.close()


def add_user(conn, user_id=1, email="asha@example.com", identity_key=b"k" * 16):
    return people.register_user(
        conn, user_id, "Asha", email, email.casefold(), 600_000_00, "hash", 5, identity_key, b"sealed", "0124"
    )


def count(conn, table) -> int:
    return conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


# Users ----------------------------------------------------------------------


def test_a_user_is_registered_with_a_vault_row(conn):
    assert add_user(conn) == {}
    assert people.user_by_id(conn, 1) == {
        "name": "Asha",
        "email": "asha@example.com",
        "annual_income_paise": 600_000_00,
        "credit_score": None,
        "sealed_identity": b"sealed",
    }
    assert people.is_registered(conn, 1) is True
    assert conn.execute("SELECT user_id, identity_key, last_four FROM vault").fetchall() == [
        (1, b"k" * 16, "0124")
    ]


def test_a_score_is_shown_once_known(conn):
    add_user(conn)
    conn.execute("UPDATE users SET credit_score = 670")
    assert people.user_by_id(conn, 1)["credit_score"] == 670


@pytest.mark.parametrize(
    ("email", "identity_key"),
    [
        ("ASHA@Example.com", b"n" * 16),
        ("new@example.com", b"k" * 16),
        ("asha@example.com", b"k" * 16),
    ],
)
def test_an_email_or_identity_that_is_taken_is_refused_and_nothing_is_written(conn, email, identity_key):
    add_user(conn)
    assert add_user(conn, 2, email, identity_key) == {"refused": "already-registered"}
    assert (count(conn, "users"), count(conn, "vault")) == (1, 1)


def test_another_person_registers(conn):
    add_user(conn)
    assert add_user(conn, 2, "ravi@example.com", b"n" * 16) == {}


def test_a_user_is_found_for_login_by_identity_or_email(conn):
    add_user(conn)
    found = {"user_id": 1, "password_hash": "hash"}
    assert people.user_for_login(conn, b"k" * 16, None) == found
    assert people.user_for_login(conn, None, "asha@example.com") == found
    assert people.user_for_login(conn, b"n" * 16, None) is None
    assert people.user_for_login(conn, None, "n@example.com") is None
    assert people.user_for_login(conn, b"n" * 16, "asha@example.com") is None  # the identity decides


def test_without_a_vault_row_nobody_is_registered(conn):
    add_user(conn)
    conn.execute("DELETE FROM vault")
    assert people.user_by_id(conn, 1) is None
    assert people.is_registered(conn, 1) is False
    assert people.user_for_login(conn, None, "asha@example.com") is None


def test_a_database_belongs_to_one_vault_key(conn):
    assert people.bind_vault(conn, b"a" * 16) == {}
    assert people.bind_vault(conn, b"a" * 16) == {}
    assert people.bind_vault(conn, b"b" * 16) == {"refused": "other-vault"}
    assert people.bind_vault(conn, b"a" * 16) == {}


def test_looking_somebody_up_reads_indexes_alone(conn):
    asked: list[str] = []
    conn.set_trace_callback(asked.append)
    people.user_for_login(conn, b"k" * 16, None)
    people.user_for_login(conn, None, "asha@example.com")
    people.user_by_id(conn, 1)
    people.is_registered(conn, 1)
    conn.set_trace_callback(None)
    assert len(asked) == 4
    for statement in asked:
        plan = " ".join(row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {statement}"))
        assert "SCAN" not in plan, (statement, plan)


# Clients ----------------------------------------------------------------------


def test_a_client_is_found_by_its_id(conn):
    people.create_client(conn, 9, "till", b"h" * 32, "payments:write ops", 5)
    assert people.client_by_id(conn, 9) == {
        "name": "till",
        "secret_hash": b"h" * 32,
        "scopes": "payments:write ops",
    }
    assert people.client_by_id(conn, 10) is None


# Refresh tokens ----------------------------------------------------------------------


def login(conn, token=b"t1", login_id=77, expires_at_s=NOW_S + 1000):
    people.store_refresh_token(conn, token, login_id, 1, expires_at_s, NOW_S)


def exchange(conn, token, new, now_s=NOW_S):
    return people.exchange_refresh_token(conn, token, new, now_s, now_s + 1000, now_s + 960)


@pytest.fixture
def asha(conn):
    add_user(conn)
    return conn


def test_a_refresh_token_is_exchanged_for_its_successor(asha):
    login(asha)
    assert exchange(asha, b"t1", b"t2") == {"login_id": 77, "user_id": 1}
    assert exchange(asha, b"t2", b"t3", NOW_S + 999) == {"login_id": 77, "user_id": 1}


def test_a_token_nobody_issued_is_unknown(asha):
    login(asha)
    assert exchange(asha, b"tx", b"t2") == {"refused": "unknown"}
    assert people.revoked_logins(asha, NOW_S) == []


def test_a_token_expires_at_its_second(asha):
    login(asha)
    assert exchange(asha, b"t1", b"t2", NOW_S + 1000) == {"refused": "expired", "login_id": 77}
    assert exchange(asha, b"t1", b"t2", NOW_S + 999) == {"login_id": 77, "user_id": 1}


def test_a_second_use_ends_the_whole_login(asha):
    login(asha)
    login(asha, b"other", login_id=78)
    exchange(asha, b"t1", b"t2")
    assert exchange(asha, b"t1", b"t3") == {"refused": "reused", "login_id": 77}
    assert people.revoked_logins(asha, NOW_S) == [[77, NOW_S + 960]]
    for token in (b"t1", b"t2", b"t3"):
        assert exchange(asha, token, b"t4") == {"refused": "unknown"}
    assert exchange(asha, b"other", b"other2") == {"login_id": 78, "user_id": 1}


def test_a_second_use_is_seen_after_the_token_would_have_expired(asha):
    login(asha)
    exchange(asha, b"t1", b"t2", NOW_S + 900)
    assert exchange(asha, b"t1", b"t3", NOW_S + 1200) == {"refused": "reused", "login_id": 77}
    assert exchange(asha, b"t2", b"t3", NOW_S + 1200) == {"refused": "unknown"}


def test_an_ended_login_refreshes_no_more(asha):
    login(asha)
    people.revoke_login(asha, 77, NOW_S + 960, NOW_S)
    assert exchange(asha, b"t1", b"t2") == {"refused": "unknown"}
    # nor does a token that was written by somebody who had not heard of it
    login(asha, b"late")
    assert exchange(asha, b"late", b"t2") == {"refused": "unknown"}


def test_an_ended_login_refreshes_no_more_when_its_end_is_forgotten(asha):
    login(asha)
    people.revoke_login(asha, 77, NOW_S + 10, NOW_S)
    login(asha, b"other", login_id=78)
    assert exchange(asha, b"other", b"other2", NOW_S + 11) == {"login_id": 78, "user_id": 1}
    assert count(asha, "revoked_logins") == 0
    assert exchange(asha, b"t1", b"t2", NOW_S + 11) == {"refused": "unknown"}


def test_ending_a_login_twice_keeps_the_later_end(conn):
    people.revoke_login(conn, 77, NOW_S + 960, NOW_S)
    people.revoke_login(conn, 77, NOW_S + 100, NOW_S)
    assert people.revoked_logins(conn, NOW_S) == [[77, NOW_S + 960]]


def test_ended_logins_are_listed_while_their_tokens_live(conn):
    people.revoke_login(conn, 77, NOW_S + 960, NOW_S)
    people.revoke_login(conn, 78, NOW_S + 961, NOW_S)
    assert people.revoked_logins(conn, NOW_S + 960) == [[78, NOW_S + 961]]


def test_dead_rows_go_as_new_ones_come(asha):
    for number in range(100):
        login(asha, f"old{number}".encode(), login_id=number, expires_at_s=NOW_S)
        people.revoke_login(asha, 1000 + number, NOW_S + 10, NOW_S)
    for number in range(100):
        people.store_refresh_token(asha, f"new{number}".encode(), 500 + number, 1, NOW_S + 99, NOW_S + 20)
    assert count(asha, "refresh_tokens") == 100
    assert count(asha, "revoked_logins") == 0


def test_every_function_of_the_module_is_reached_by_its_own_name():
    named = people.READS | people.WRITES
    assert all(function.__name__ == name for name, function in named.items())
    assert not people.READS.keys() & people.WRITES.keys()
