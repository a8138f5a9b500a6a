"""What each bank history comes to: the sum of its transactions, kept beside them.

What holds: a balance changes in the transaction in which its rows do, and `verify` sums all rows again. Rows
are appended and have no index, for one in an order other than a file's would make each row dirty a page of
its own. Used by storage/transactions.py and storage/verify.py.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from functools import cache
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

# The largest amounts, 9,224 times one person's, would overflow SQLite's integers: sums are kept in two parts.
_CRORE_PAISE: Final = 1_000_000_000
_SIGNED: Final = f"""
    SELECT id, identity_key, signed_paise / {_CRORE_PAISE} AS crores, signed_paise % {_CRORE_PAISE} AS paise
    FROM (
        SELECT id, identity_key, IIF(kind = 'CREDIT', amount_paise, -amount_paise) AS signed_paise
        FROM transactions WHERE id BETWEEN ? AND ? AND (?3 IS NULL OR import_id = ?3)
    )
"""
_ROWS_A_STATEMENT: Final = 64
_SUM_VALUES: Final = 2  # identity key, paise
_OF_USERS: Final = """
    SELECT v.user_id, b.crores, b.paise FROM vault v CROSS JOIN balances b ON b.identity_key = v.identity_key
    WHERE v.user_id IN (SELECT value FROM json_each(?))
"""


def add_sums(conn: sqlite3.Connection, sums: list[Any], last_id: int) -> None:
    """Add what new transactions, up to `last_id`, come to: a flat list of identity key, paise, and so on."""
    for group in groups_of(sums, _SUM_VALUES):
        conn.execute(_add_statement(len(group) // _SUM_VALUES), (last_id, *group))


def groups_of(flat: list[Any], values: int) -> Iterator[list[Any]]:
    """Cut a flat list of so many values a row into what one statement writes, which halves its cost."""
    size = _ROWS_A_STATEMENT * values
    return (flat[start : start + size] for start in range(0, len(flat), size))


@cache
def _add_statement(sums: int) -> str:
    values = ", ".join(
        f"(?{first}, ?{first + 1} / {_CRORE_PAISE}, ?{first + 1} % {_CRORE_PAISE}, ?1)"
        for first in range(2, sums * _SUM_VALUES + 2, _SUM_VALUES)
    )
    return (
        f"INSERT INTO balances (identity_key, crores, paise, last_id) VALUES {values}"
        " ON CONFLICT (identity_key) DO UPDATE"
        " SET crores = crores + excluded.crores, paise = paise + excluded.paise, last_id = excluded.last_id"
    )


def subtract_rows(conn: sqlite3.Connection, first_id: int, last_id: int, import_id: int) -> None:
    """Take an import's transactions from `first_id` on out of the balances; the rows are deleted next."""
    sums = conn.execute(
        f"SELECT SUM(crores), SUM(paise), {first_id - 1}, identity_key FROM ({_SIGNED}) GROUP BY 4",
        (first_id, last_id, import_id),
    )
    conn.executemany(
        "UPDATE balances SET crores = crores - ?, paise = paise - ?, last_id = ? WHERE identity_key = ?", sums
    )


def balances_of(conn: sqlite3.Connection, user_ids: list[int]) -> dict[int, int]:
    """Credits less debits, in paise, of each of these borrowers: one query, by index."""
    balances = dict.fromkeys(user_ids, 0)
    for user_id, crores, paise in conn.execute(_OF_USERS, (json.dumps(user_ids),)):
        balances[user_id] = crores * _CRORE_PAISE + paise
    return balances


def differing_balances(conn: sqlite3.Connection) -> Iterator[tuple[bytes, int, int]]:
    """Sum all transactions again: (identity key, balance as kept, as summed), in paise, where they differ."""
    kept = conn.execute("SELECT identity_key, 0, crores, paise FROM balances ORDER BY identity_key")
    summed = conn.execute(
        f"SELECT identity_key, 1, SUM(crores), SUM(paise) FROM ({_SIGNED}) GROUP BY 1 ORDER BY 1",
        (0, 2**63 - 1, None),
    )
    for key, found in groupby(merge(kept, summed), itemgetter(0)):
        balances = [0, 0]
        for _, which, crores, paise in found:
            balances[which] = crores * _CRORE_PAISE + paise
        if balances[0] != balances[1]:
            yield key, *balances
