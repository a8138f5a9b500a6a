"""The store's ceiling pays what it says, on a book that is made once."""

import sqlite3

import pytest

from bench.peers.sqlite_raw import payments_per_s

SIZES = {"loans": 10, "batch": 7, "earlier": 25, "seconds": 0.02}


def counted(path):
    connection = sqlite3.connect(path)
    try:
        (rows,) = connection.execute("SELECT count(*) FROM payments").fetchone()
        (ids,) = connection.execute("SELECT count(DISTINCT once_key) FROM payments").fetchone()
        (paise,) = connection.execute("SELECT sum(received_paise) FROM loans").fetchone()
        (lent,) = connection.execute("SELECT sum(principal_paise + received_paise) FROM loans").fetchone()
    finally:
        connection.close()
    assert (ids, paise, lent) == (rows, 100 * rows, 10 * 10**11)
    return rows


def test_payments_are_added_to_the_book_by_whole_batches(tmp_path):
    assert payments_per_s(tmp_path, **SIZES) > 0
    (path,) = tmp_path.glob("*.db")
    first = counted(path)
    assert first > 25
    assert (first - 25) % 7 == 0
    assert payments_per_s(tmp_path, **SIZES) > 0
    assert list(tmp_path.glob("*.db")) == [path]
    assert counted(path) > first


def test_a_book_without_earlier_payments(tmp_path):
    assert payments_per_s(tmp_path, **{**SIZES, "earlier": 0}) > 0


def test_a_loan_that_misses_a_payment_is_no_result(tmp_path):
    payments_per_s(tmp_path, **SIZES)
    (path,) = tmp_path.glob("*.db")
    connection = sqlite3.connect(path)
    connection.execute("UPDATE loans SET received_paise = received_paise - 100 WHERE id = 3")
    connection.commit()
    connection.close()
    with pytest.raises(Exception, match="non-zero exit status"):
        payments_per_s(tmp_path, **SIZES)
