"""The records of the nightly runs, and the clock that a database belongs to."""

from __future__ import annotations

import sqlite3

import pytest

from ledgerd.storage.ports import StoreError
from ledgerd.storage.runs import (
    begin_run,
    interrupt_runs,
    last_completed_date,
    read_clock,
    run_by_id,
    runs_before,
    save_clock,
    save_run,
)
from tests.storage.books import Bare

DAY = 739_100


@pytest.fixture
def conn(bare: Bare) -> sqlite3.Connection:
    return bare.tables


def test_a_run_from_begin_to_end(conn: sqlite3.Connection) -> None:
    assert run_by_id(conn, 1) is None
    begin_run(conn, 1, DAY, 5_000)
    assert run_by_id(conn, 1) == [1, DAY, "running", 0, 0, 0, [], 5_000, None]
    save_run(conn, 1, 30, 20, 1, [2**62], "running", None)
    assert run_by_id(conn, 1) == [1, DAY, "running", 30, 20, 1, [2**62], 5_000, None]
    save_run(conn, 1, 30, 28, 2, [2**62, 5], "completed", 9_000)
    assert run_by_id(conn, 1) == [1, DAY, "completed", 30, 28, 2, [2**62, 5], 5_000, 9_000]


def test_runs_that_were_cut_off_are_closed_at_the_next_start(conn: sqlite3.Connection) -> None:
    begin_run(conn, 1, DAY, 5_000)
    save_run(conn, 1, 3, 3, 0, [], "completed", 6_000)
    begin_run(conn, 2, DAY + 1, 7_000)
    interrupt_runs(conn, 8_000)
    begin_run(conn, 3, DAY + 1, 8_000)
    assert [run_by_id(conn, run_id) for run_id in (1, 2, 3)] == [
        [1, DAY, "completed", 3, 3, 0, [], 5_000, 6_000],
        [2, DAY + 1, "interrupted", 0, 0, 0, [], 7_000, 8_000],
        [3, DAY + 1, "running", 0, 0, 0, [], 8_000, None],
    ]


def test_saving_one_run_leaves_the_others(conn: sqlite3.Connection) -> None:
    begin_run(conn, 1, DAY, 1)
    save_run(conn, 1, 1, 1, 0, [], "completed", 2)
    before = run_by_id(conn, 1)
    begin_run(conn, 2, DAY, 3)
    save_run(conn, 2, 9, 9, 9, [7], "completed", 4)
    assert run_by_id(conn, 1) == before


def test_runs_are_listed_newest_first(conn: sqlite3.Connection) -> None:
    for run_id in (4, 1, 3):
        begin_run(conn, run_id, DAY, run_id)
    assert [run[0] for run in runs_before(conn, 99, 10)] == [4, 3, 1]
    assert runs_before(conn, 99, 10)[0] == run_by_id(conn, 4)
    assert [run[0] for run in runs_before(conn, 4, 1)] == [3]
    assert runs_before(conn, 1, 10) == []


def test_the_last_completed_date_is_of_completed_runs_alone(conn: sqlite3.Connection) -> None:
    assert last_completed_date(conn) is None
    for run_id, (day, status) in enumerate(
        [(DAY, "completed"), (DAY - 5, "completed"), (DAY + 1, "running")]
    ):
        begin_run(conn, run_id, day, 1)
        save_run(conn, run_id, 0, 0, 0, [], status, 2)
    assert last_completed_date(conn) == DAY
    interrupt_runs(conn, 3)  # the one of DAY + 1
    assert last_completed_date(conn) == DAY


def test_a_date_whose_run_left_a_loan_out_is_not_done(conn: sqlite3.Connection) -> None:
    for run_id, (day, failed) in enumerate([(DAY, 0), (DAY + 1, 1)]):
        begin_run(conn, run_id, day, 1)
        save_run(conn, run_id, 9, 9 - failed, failed, [5] * failed, "completed", 2)
    assert last_completed_date(conn) == DAY


def test_a_status_that_there_is_not_is_refused(conn: sqlite3.Connection) -> None:
    begin_run(conn, 1, DAY, 1)
    with pytest.raises(sqlite3.IntegrityError):
        save_run(conn, 1, 0, 0, 0, [], "done", 2)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM meta WHERE key = 'clock_kind'",
        "DELETE FROM meta WHERE key = 'business_date'",
        "UPDATE meta SET value = 'sundial' WHERE key = 'clock_kind'",
        "UPDATE meta SET value = 'today' WHERE key = 'business_date'",
    ],
)
def test_a_damaged_clock_is_refused(conn: sqlite3.Connection, sql: str) -> None:
    save_clock(conn, "sandbox", DAY)
    conn.execute(sql)
    with pytest.raises(
        StoreError, match=r"the clock of this database is damaged .* restore it from a backup"
    ):
        read_clock(conn)


def test_a_database_belongs_to_a_clock(conn: sqlite3.Connection) -> None:
    assert read_clock(conn) is None
    save_clock(conn, "sandbox", DAY)
    assert read_clock(conn) == ["sandbox", DAY]
    save_clock(conn, "sandbox", DAY + 3)
    assert read_clock(conn) == ["sandbox", DAY + 3]
    save_clock(conn, "sandbox", DAY)  # written late: the date never goes back
    assert read_clock(conn) == ["sandbox", DAY + 3]
    assert dict(conn.execute("SELECT key, value FROM meta").fetchall())["projected_seq"] == 0
