"""Named reads and writes of the bank history: imports with their watermarks, and the scores that follow from
it.

What holds: rows, their balances and the watermark are written together; a batch is refused unless the import
stands where the batch begins, so that two importers never count a row twice. A batch may come in parts: only
the last one moves the watermark, and when an import goes on the parts of a batch that is not whole are taken
out. `meta.scored_through` is the last transaction whose borrower has been scored again since. Called by name
through the store: scheduler/importer.py, scheduler/scoring.py, `verify`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from functools import cache
from typing import Any, Final

import msgspec

from ledgerd.domain.scoring import ScoreRules, score
from ledgerd.domain.transactions import Kind
from ledgerd.storage.balances import add_sums, balances_of, groups_of, subtract_rows

_ROW_VALUES: Final = 3  # identity key, amount in paise, day number
# No bytes: for each of them sqlite3 would look in vain for an adapter, which costs more than to bind it.
_Flat = list[bytearray | int]
_rows_decoder: Final = msgspec.msgpack.Decoder(tuple[list[tuple[Kind, _Flat]], _Flat])


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


def latest_imports(conn: sqlite3.Connection, limit: int) -> list[list[Any]]:
    """Return up to `limit` imports, newest first: [file name, rows imported, rows rejected, started_at_ms,
    ended_at_ms or None].
    """
    rows = conn.execute(
        "SELECT file_name, rows_imported, rows_rejected, started_at_ms, ended_at_ms FROM imports"
        " ORDER BY id DESC LIMIT ?",
        (limit,),
    )
    return [list(row) for row in rows]


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
    to be read again. `seen_last_id` is last_id of known_imports. Returns {"import_id", "rows_imported"}, or
    {"refused": "imports-changed"} when another import has begun or gone on since then.
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
            _take_parts_out(conn, matched_id)
            (rows_imported,) = conn.execute(
                "UPDATE imports SET file_name = ? WHERE id = ? RETURNING rows_imported",
                (file_name, matched_id),
            ).fetchone()
            return {"import_id": matched_id, "rows_imported": rows_imported}
        if replaces_tail:
            _take_tail_out(conn, matched_id)
    cursor = conn.execute(
        "INSERT INTO imports (file_name, bytes_done, lines_done, digest, header, rows_imported,"
        " rows_rejected, started_at_ms) VALUES (?, ?, ?, ?, ?, 0, 0, ?)",
        (file_name, bytes_done, lines_done, digest, header, now_ms),
    )
    return {"import_id": cursor.lastrowid, "rows_imported": 0}


def import_batch(
    conn: sqlite3.Connection,
    import_id: int,
    stands_at: list[int],
    bytes_done: int,
    lines_done: int,
    digest: bytes,
    rows: bytes,
    rejected_count: int,
) -> dict[str, Any]:
    """Add rows and move the watermark, if the import stands at `stands_at` = [bytes, rows]. Each part of a
    batch but the last leaves the watermark where it is.

    `rows` is MessagePack: [[[kind, rows of it], ..], sums]. Rows are a flat list of identity key, amount in
    paise, day number, again and again; sums are as in `add_sums`. Returns {"rows_imported"}, or {"refused":
    "import-moved"} when somebody else has gone on with this import.
    """
    if not _stands_at(conn, import_id, stands_at):
        return {"refused": "import-moved"}
    first_id = _last_transaction_id(conn) + 1
    inserted = _insert(conn, import_id, rows)
    header = (
        "json_remove(header, '$.parts_from')"
        if bytes_done > stands_at[0]
        else f"json_set(header, '$.parts_from', COALESCE(json_extract(header, '$.parts_from'), {first_id}))"
    )
    conn.execute(
        f"UPDATE imports SET header = {header}, bytes_done = ?, lines_done = ?, digest = ?,"
        " rows_imported = rows_imported + ?, rows_rejected = rows_rejected + ? WHERE id = ?",
        (bytes_done, lines_done, digest, inserted, rejected_count, import_id),
    )
    return {"rows_imported": inserted}


def import_end(
    conn: sqlite3.Connection,
    import_id: int,
    stands_at: list[int],
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
    if not _stands_at(conn, import_id, stands_at):
        return {"refused": "import-moved"}
    from_lines, header = conn.execute(
        "SELECT lines_done, header FROM imports WHERE id = ?", (import_id,)
    ).fetchone()
    bytes_done, lines_done, digest = mark
    reply = import_batch(conn, import_id, stands_at, bytes_done, lines_done, digest, rows, rejected_count)
    last_id = _last_transaction_id(conn)
    tail = {
        "bytes": stands_at[0],
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
    balances = balances_of(conn, user_ids)
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
    balances = balances_of(conn, compared)
    expected = {user_id: score(balances[user_id], rules) for user_id in compared}
    differing = [
        [user_id, stored[user_id], expected[user_id]]
        for user_id in compared
        if stored[user_id] != expected[user_id]
    ]
    return {"last_id": max(stored, default=None), "checked": len(compared), "differing": differing}


def _insert(conn: sqlite3.Connection, import_id: int, rows: bytes) -> int:
    """Append rows, and add them to the balances."""
    alike, sums = _rows_decoder.decode(rows)
    before_id = _last_transaction_id(conn)
    for kind, flat in alike:
        for group in groups_of(flat, _ROW_VALUES):
            conn.execute(_insert_statement(kind, len(group) // _ROW_VALUES), (import_id, *group))
    last_id = _last_transaction_id(conn)
    add_sums(conn, sums, last_id)
    return last_id - before_id


@cache
def _insert_statement(kind: Kind, rows: int) -> str:
    values = ", ".join(
        f"(?{first}, '{kind}', ?{first + 1}, ?{first + 2}, ?1)"
        for first in range(2, rows * _ROW_VALUES + 2, _ROW_VALUES)
    )
    return f"INSERT INTO transactions (identity_key, kind, amount_paise, date, import_id) VALUES {values}"


def _take_tail_out(conn: sqlite3.Connection, import_id: int) -> None:
    """Delete what an ended import read from a record that was not whole."""
    decoded = _header(conn, import_id)
    tail = decoded["tail"]
    _take_out(conn, import_id, tail["first_id"], tail["last_id"])
    tail["last_id"] = tail["first_id"] - 1
    conn.execute("UPDATE imports SET header = ? WHERE id = ?", (json.dumps(decoded), import_id))


def _take_parts_out(conn: sqlite3.Connection, import_id: int) -> None:
    """Delete the parts of a batch that was cut off: they come again."""
    decoded = _header(conn, import_id)
    first_id = decoded.pop("parts_from", None)
    if first_id is not None:
        _take_out(conn, import_id, first_id, _last_transaction_id(conn))
        conn.execute("UPDATE imports SET header = ? WHERE id = ?", (json.dumps(decoded), import_id))


def _take_out(conn: sqlite3.Connection, import_id: int, first_id: int, last_id: int) -> None:
    """Delete an import's rows from `first_id` to `last_id`; whose they were becomes pending."""
    rows = (first_id, last_id, import_id)
    conn.execute(
        "UPDATE users SET credit_score = NULL WHERE id IN (SELECT v.user_id FROM transactions t"
        " JOIN vault v ON v.identity_key = t.identity_key WHERE t.id BETWEEN ? AND ? AND t.import_id = ?)",
        rows,
    )
    subtract_rows(conn, *rows)
    these = "id BETWEEN ? AND ? AND import_id = ?"
    deleted = conn.execute(f"DELETE FROM transactions WHERE {these}", rows).rowcount
    # The ids may come again: what then has them is not scored yet.
    _set_scored_through(conn, min(_scored_through(conn), first_id - 1))
    conn.execute("UPDATE imports SET rows_imported = rows_imported - ? WHERE id = ?", (deleted, import_id))


def _header(conn: sqlite3.Connection, import_id: int) -> dict[str, Any]:
    (header,) = conn.execute("SELECT header FROM imports WHERE id = ?", (import_id,)).fetchone()
    decoded: dict[str, Any] = json.loads(header)
    return decoded


def _stands_at(conn: sqlite3.Connection, import_id: int, stands_at: list[int]) -> bool:
    row = conn.execute(
        "SELECT bytes_done, rows_imported FROM imports WHERE id = ? AND ended_at_ms IS NULL", (import_id,)
    ).fetchone()
    return row is not None and list(row) == stands_at


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
    "latest_imports": latest_imports,
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
