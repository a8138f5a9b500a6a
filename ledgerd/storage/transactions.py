"""Named reads and writes of the bank history: imports with their watermarks, and the scores that follow from
it.

What holds: rows, balances and watermark of a batch are written together; a batch is refused unless the import
stands where the batch begins, so that two importers never count a row twice. Rows are appended, and have no
index: `balances` has the sum of each bank history's rows. `meta.scored_through` is the last transaction whose
borrower has been scored again since. Called by name through the store: scheduler/importer.py,
scheduler/scoring.py, `verify`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from functools import cache
from heapq import merge
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import msgspec

from ledgerd.domain.scoring import ScoreRules, score

# The largest amounts, 9,224 times one person's, would overflow SQLite's integers: sums are kept in two parts.
_CRORE_PAISE: Final = 1_000_000_000
_SIGNED: Final = f"""
    SELECT id, identity_key, signed_paise / {_CRORE_PAISE} AS crores, signed_paise % {_CRORE_PAISE} AS paise
    FROM (
        SELECT id, identity_key, IIF(kind = 'CREDIT', amount_paise, -amount_paise) AS signed_paise
        FROM transactions WHERE id BETWEEN ? AND ?
    )
"""
# A batch's rows come in order of their keys, so that each page of balances is visited once.
_ADD_TO_BALANCES: Final = f"""
    INSERT INTO balances (identity_key, crores, paise, last_id)
    SELECT identity_key, crores, paise, id FROM ({_SIGNED}) WHERE true
    ON CONFLICT (identity_key) DO UPDATE
    SET crores = crores + excluded.crores, paise = paise + excluded.paise, last_id = excluded.last_id
"""
_BALANCES: Final = """
    SELECT v.user_id, b.crores, b.paise FROM vault v CROSS JOIN balances b ON b.identity_key = v.identity_key
    WHERE v.user_id IN (SELECT value FROM json_each(?))
"""
_ROW_VALUES: Final = 4
_rows_decoder: Final = msgspec.msgpack.Decoder(list[list[Any]])


def known_imports(conn: sqlite3.Connection) -> dict[str, Any]:
    """Every import: {"last_id", "imports": [[id, file_name, bytes_done, lines_done, digest, has_ended,
    tail_bytes, tail_lines]]}. The last two are where its last record began, if no newline ended that; else
    None.
    """
    imports = []
    rows = conn.execute(
        "SELECT id, file_name, bytes_done, lines_done, digest, ended_at_ms IS NOT NULL, header FROM imports"
    )
    for import_id, file_name, bytes_done, lines_done, digest, has_ended, header in rows:
        tail = json.loads(header)["tail"] or {"bytes": None, "lines": None}
        imports.append(
            [
                import_id,
                file_name,
                bytes_done,
                lines_done,
                digest,
                bool(has_ended),
                tail["bytes"],
                tail["lines"],
            ]
        )
    return {"last_id": _last_import_id(conn), "imports": imports}


def import_begin(
    conn: sqlite3.Connection,
    file_name: str,
    seen_last_id: int,
    matched_id: int | None,
    replaces_tail: bool,
    mark: list[Any],
    columns: dict[str, int],
    now_ms: int,
) -> dict[str, Any]:
    """Take over the import `matched_id` if it was cut off, or begin a new one at `mark` = [bytes, lines,
    digest].

    `replaces_tail`: the matched import's last rows came from a record that was not whole; they are taken out,
    to be read again. `seen_last_id` is last_id of known_imports. Returns {"import_id"}, or {"refused":
    "imports-changed"} when another import has begun or gone on since then.
    """
    if _last_import_id(conn) != seen_last_id:
        return {"refused": "imports-changed"}
    bytes_done, lines_done, digest = mark
    header = json.dumps({"columns": columns, "tail": None})
    if matched_id is not None:
        done, ended_at_ms = conn.execute(
            "SELECT bytes_done, ended_at_ms FROM imports WHERE id = ?", (matched_id,)
        ).fetchone()
        if ended_at_ms is None:
            if done != bytes_done:
                return {"refused": "imports-changed"}
            conn.execute("UPDATE imports SET file_name = ? WHERE id = ?", (file_name, matched_id))
            return {"import_id": matched_id}
        if replaces_tail:
            _take_tail_out(conn, matched_id)
    cursor = conn.execute(
        "INSERT INTO imports (file_name, bytes_done, lines_done, digest, header, rows_imported,"
        " rows_rejected, started_at_ms) VALUES (?, ?, ?, ?, ?, 0, 0, ?)",
        (file_name, bytes_done, lines_done, digest, header, now_ms),
    )
    return {"import_id": cursor.lastrowid}


def import_batch(
    conn: sqlite3.Connection,
    import_id: int,
    from_bytes: int,
    bytes_done: int,
    lines_done: int,
    digest: bytes,
    rows: bytes,
    rejected_count: int,
) -> dict[str, Any]:
    """Add rows and move the watermark, if it stands at `from_bytes`.

    `rows` is MessagePack: groups of rows, each group a flat list of identity key, kind, amount in paise, day
    number, again and again. Returns {"rows_imported"}, or {"refused": "import-moved"} when somebody else has
    gone on with this import.
    """
    if not _stands_at(conn, import_id, from_bytes):
        return {"refused": "import-moved"}
    inserted = _insert(conn, import_id, rows)
    conn.execute(
        "UPDATE imports SET bytes_done = ?, lines_done = ?, digest = ?, rows_imported = rows_imported + ?,"
        " rows_rejected = rows_rejected + ? WHERE id = ?",
        (bytes_done, lines_done, digest, inserted, rejected_count, import_id),
    )
    return {"rows_imported": inserted}


def import_end(
    conn: sqlite3.Connection,
    import_id: int,
    from_bytes: int,
    mark: list[Any],
    has_tail: bool,
    rows: bytes,
    rejected_count: int,
    now_ms: int,
) -> dict[str, Any]:
    """End an import at `mark` = [bytes, lines, digest], as import_batch does with a last batch.

    `has_tail`: no newline ended the last record, of which `rows` come; where it began is kept with them, so
    that it can be read again when the file has grown.
    """
    if not _stands_at(conn, import_id, from_bytes):
        return {"refused": "import-moved"}
    from_lines, header = conn.execute(
        "SELECT lines_done, header FROM imports WHERE id = ?", (import_id,)
    ).fetchone()
    bytes_done, lines_done, digest = mark
    reply = import_batch(conn, import_id, from_bytes, bytes_done, lines_done, digest, rows, rejected_count)
    last_id = _last_transaction_id(conn)
    tail = {
        "bytes": from_bytes,
        "lines": from_lines,
        "first_id": last_id - reply["rows_imported"] + 1,
        "last_id": last_id,
    }
    conn.execute(
        "UPDATE imports SET header = ?, ended_at_ms = ? WHERE id = ?",
        (json.dumps(json.loads(header) | {"tail": tail if has_tail else None}), now_ms, import_id),
    )
    return reply


def pending_users(conn: sqlite3.Connection, after: int, limit: int) -> list[int]:
    """The next borrowers after that id who have no score yet."""
    query = "SELECT id FROM users WHERE credit_score IS NULL AND id > ? ORDER BY id LIMIT ?"
    return [user_id for (user_id,) in conn.execute(query, (after, limit))]


def touched_users(conn: sqlite3.Connection, after: int | None, limit: int) -> dict[str, Any]:
    """The registered borrowers of the next `limit` transactions after that id (None: after scored_through).

    Returns {"after", "through", "user_ids"}; nothing is left when both are the same.
    """
    start = _scored_through(conn) if after is None else after
    last_id = _last_transaction_id(conn)
    through = max(start, min(start + limit, last_id))
    users = conn.execute(
        "SELECT DISTINCT v.user_id FROM transactions t CROSS JOIN vault v ON v.identity_key = t.identity_key"
        " WHERE t.id > ? AND t.id <= ?",
        (start, through),
    )
    return {"after": start, "through": through, "user_ids": [user_id for (user_id,) in users]}


def score_users(
    conn: sqlite3.Connection,
    user_ids: list[int],
    base_paise: int,
    step_paise: int,
    step_points: int,
    min_score: int,
    max_score: int,
) -> int:
    """Set the score of these borrowers from all their transactions; return how many scores changed."""
    rules = ScoreRules(base_paise, step_paise, step_points, min_score, max_score)
    balances = _balances(conn, user_ids)
    scores = [(score(balances[user_id], rules), user_id) for user_id in user_ids]
    return conn.executemany(
        "UPDATE users SET credit_score = ?1 WHERE id = ?2 AND credit_score IS NOT ?1", scores
    ).rowcount


def use_score_rules(
    conn: sqlite3.Connection,
    base_paise: int,
    step_paise: int,
    step_points: int,
    min_score: int,
    max_score: int,
) -> bool:
    """Make everybody pending again when the scale is another one than the scores were made by; True then."""
    scale = json.dumps([base_paise, step_paise, step_points, min_score, max_score])
    known = conn.execute("SELECT value FROM meta WHERE key = 'score_rules'").fetchone()
    if known == (scale,):
        return False
    conn.execute("UPDATE users SET credit_score = NULL WHERE credit_score IS NOT NULL")
    conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('score_rules', ?)", (scale,))
    return True


def set_scored_through(conn: sqlite3.Connection, after: int, through: int) -> bool:
    """Note that who was touched by transactions after..through has been scored; False when `after` no longer
    stands.
    """
    if _scored_through(conn) != after:
        return False
    _set_scored_through(conn, through)
    return True


def recompute_scores(
    conn: sqlite3.Connection,
    after: int,
    limit: int,
    base_paise: int,
    step_paise: int,
    step_points: int,
    min_score: int,
    max_score: int,
) -> dict[str, Any]:
    """Score the next borrowers after that id again, and compare: {"last_id", "checked", "differing"}.

    "differing" is [[user_id, stored, recomputed]]; last_id is None when nobody is left. Who waits to be
    scored, at first or again, is not compared.
    """
    rules = ScoreRules(base_paise, step_paise, step_points, min_score, max_score)
    stored = dict(
        conn.execute(
            "SELECT id, credit_score FROM users WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
        ).fetchall()
    )
    waiting = conn.execute(
        "SELECT v.user_id FROM vault v CROSS JOIN balances b ON b.identity_key = v.identity_key"
        " WHERE v.user_id IN (SELECT value FROM json_each(?)) AND b.last_id > ?",
        (json.dumps(list(stored)), _scored_through(conn)),
    )
    skipped = {user_id for (user_id,) in waiting} | {
        user_id for user_id, known in stored.items() if known is None
    }
    compared = [user_id for user_id in stored if user_id not in skipped]
    balances = _balances(conn, compared)
    expected = {user_id: score(balances[user_id], rules) for user_id in compared}
    differing = [
        [user_id, stored[user_id], expected[user_id]]
        for user_id in compared
        if stored[user_id] != expected[user_id]
    ]
    return {"last_id": max(stored, default=None), "checked": len(compared), "differing": differing}


def differing_balances(conn: sqlite3.Connection) -> Iterator[tuple[bytes, int, int]]:
    """Sum all transactions again: (identity key, balance as kept, as summed), in paise, where they differ."""
    kept = conn.execute("SELECT identity_key, 0, crores, paise FROM balances ORDER BY identity_key")
    summed = conn.execute(
        f"SELECT identity_key, 1, SUM(crores), SUM(paise) FROM ({_SIGNED}) GROUP BY 1 ORDER BY 1",
        (0, _last_transaction_id(conn)),
    )
    for key, found in groupby(merge(kept, summed), itemgetter(0)):
        balances = [0, 0]
        for _, which, crores, paise in found:
            balances[which] = crores * _CRORE_PAISE + paise
        if balances[0] != balances[1]:
            yield key, *balances


def _balances(conn: sqlite3.Connection, user_ids: list[int]) -> dict[int, int]:
    """Credits less debits, in paise, of each of these borrowers: one query, by index."""
    balances = dict.fromkeys(user_ids, 0)
    for user_id, crores, paise in conn.execute(_BALANCES, (json.dumps(user_ids),)):
        balances[user_id] = crores * _CRORE_PAISE + paise
    return balances


def _insert(conn: sqlite3.Connection, import_id: int, rows: bytes) -> int:
    """Append rows, each group by one statement, which halves what a row costs; add them to the balances."""
    groups = _rows_decoder.decode(rows)
    before_id = _last_transaction_id(conn)
    for group in groups:
        conn.execute(_insert_statement(len(group) // _ROW_VALUES), (import_id, *group))
    last_id = _last_transaction_id(conn)
    conn.execute(_ADD_TO_BALANCES, (before_id + 1, last_id))
    return last_id - before_id


@cache
def _insert_statement(rows: int) -> str:
    values = ", ".join(
        f"(?{first}, ?{first + 1}, ?{first + 2}, ?{first + 3}, ?1)"
        for first in range(2, rows * _ROW_VALUES + 2, _ROW_VALUES)
    )
    return f"INSERT INTO transactions (identity_key, kind, amount_paise, date, import_id) VALUES {values}"


def _take_tail_out(conn: sqlite3.Connection, import_id: int) -> None:
    """Delete what an ended import read from a record that was not whole; whose it was becomes pending."""
    (header,) = conn.execute("SELECT header FROM imports WHERE id = ?", (import_id,)).fetchone()
    decoded = json.loads(header)
    tail = decoded["tail"]
    rows = (tail["first_id"], tail["last_id"])
    conn.execute(
        "UPDATE users SET credit_score = NULL WHERE id IN (SELECT v.user_id FROM transactions t"
        " JOIN vault v ON v.identity_key = t.identity_key WHERE t.id BETWEEN ? AND ?)",
        rows,
    )
    conn.executemany(
        "UPDATE balances SET crores = crores - ?, paise = paise - ?, last_id = ? WHERE identity_key = ?",
        [
            (crores, paise, tail["first_id"] - 1, key)
            for _, key, crores, paise in conn.execute(_SIGNED, rows).fetchall()
        ],
    )
    deleted = conn.execute("DELETE FROM transactions WHERE id BETWEEN ? AND ?", rows).rowcount
    # The ids may come again: what then has them is not scored yet.
    _set_scored_through(conn, min(_scored_through(conn), tail["first_id"] - 1))
    tail["last_id"] = tail["first_id"] - 1
    conn.execute(
        "UPDATE imports SET header = ?, rows_imported = rows_imported - ? WHERE id = ?",
        (json.dumps(decoded), deleted, import_id),
    )


def _stands_at(conn: sqlite3.Connection, import_id: int, from_bytes: int) -> bool:
    row = conn.execute(
        "SELECT bytes_done FROM imports WHERE id = ? AND ended_at_ms IS NULL", (import_id,)
    ).fetchone()
    return row is not None and row[0] == from_bytes


def _last_import_id(conn: sqlite3.Connection) -> int:
    last_id: int = conn.execute("SELECT COALESCE(MAX(id), 0) FROM imports").fetchone()[0]
    return last_id


def _last_transaction_id(conn: sqlite3.Connection) -> int:
    last_id: int = conn.execute("SELECT COALESCE(MAX(id), 0) FROM transactions").fetchone()[0]
    return last_id


def _scored_through(conn: sqlite3.Connection) -> int:
    row = conn.execute("SELECT value FROM meta WHERE key = 'scored_through'").fetchone()
    return 0 if row is None else int(row[0])


def _set_scored_through(conn: sqlite3.Connection, transaction_id: int) -> None:
    conn.execute("INSERT OR REPLACE INTO meta (key, value) VALUES ('scored_through', ?)", (transaction_id,))


READS: Final[dict[str, Callable[..., Any]]] = {
    "known_imports": known_imports,
    "pending_users": pending_users,
    "touched_users": touched_users,
    "recompute_scores": recompute_scores,
}
WRITES: Final[dict[str, Callable[..., Any]]] = {
    "import_begin": import_begin,
    "import_batch": import_batch,
    "import_end": import_end,
    "score_users": score_users,
    "use_score_rules": use_score_rules,
    "set_scored_through": set_scored_through,
}
