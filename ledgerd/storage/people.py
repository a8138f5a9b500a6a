"""The named reads and writes of people: users with their vault rows, clients, refresh tokens, ended logins.

Each is a plain function over one connection; the engine gives every write a transaction of its own. A refusal
is a value, `{"refused": code}`. Times are whole seconds (`_s`) or milliseconds (`_ms`) since the epoch. Used
through the seam by http/accounts.py and the command line.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

# Each write about tokens takes a few dead rows with it, so that the tables never need a sweep.
SWEPT_AT_ONCE = 16


def register_user(
    conn: sqlite3.Connection,
    user_id: int,
    name: str,
    email: str,
    email_key: str,
    annual_income_paise: int,
    password_hash: str,
    registered_at_ms: int,
    identity_key: bytes,
    sealed_identity: bytes,
    last_four: str,
) -> dict[str, str]:
    """Add user and vault row: {}, or {"refused": "already-registered"} for a taken identity or email."""
    if is_taken(conn, identity_key, email_key):
        return {"refused": "already-registered"}
    conn.execute(
        "INSERT INTO users (id, name, email, email_key, annual_income_paise, password_hash, registered_at_ms)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (user_id, name, email, email_key, annual_income_paise, password_hash, registered_at_ms),
    )
    conn.execute(
        "INSERT INTO vault (user_id, identity_key, ciphertext, last_four) VALUES (?, ?, ?, ?)",
        (user_id, identity_key, sealed_identity, last_four),
    )
    return {}


def is_taken(conn: sqlite3.Connection, identity_key: bytes, email_key: str) -> bool:
    """Return whether somebody is registered with this identity or this email."""
    row = conn.execute(
        "SELECT 1 FROM users WHERE email_key = ? UNION ALL SELECT 1 FROM vault WHERE identity_key = ?",
        (email_key, identity_key),
    ).fetchone()
    return row is not None


def user_by_id(conn: sqlite3.Connection, user_id: int) -> dict[str, Any] | None:
    """Return the user whom the vault knows under this id, or None.

    {"name", "email", "annual_income_paise", "credit_score" (None while pending), "sealed_identity"}
    """
    row = conn.execute(
        "SELECT name, email, annual_income_paise, credit_score, ciphertext"
        " FROM users JOIN vault ON vault.user_id = users.id WHERE users.id = ?",
        (user_id,),
    ).fetchone()
    fields = ("name", "email", "annual_income_paise", "credit_score", "sealed_identity")
    return row and dict(zip(fields, row, strict=True))


def is_registered(conn: sqlite3.Connection, user_id: int) -> bool:
    """Return whether the vault knows this user."""
    return conn.execute("SELECT 1 FROM vault WHERE user_id = ?", (user_id,)).fetchone() is not None


def unknown_of(conn: sqlite3.Connection, user_ids: Iterable[int]) -> list[int]:
    """Return those of these ids that nobody has, in order."""
    known = "SELECT 1 FROM users WHERE id = ?"
    return [user_id for user_id in sorted(user_ids) if conn.execute(known, (user_id,)).fetchone() is None]


def user_for_login(
    conn: sqlite3.Connection, identity_key: bytes | None, email_key: str | None
) -> dict[str, Any] | None:
    """Return {"user_id", "password_hash"} for the identity or, when it is None, the email; or None."""
    column, key = ("email_key", email_key) if identity_key is None else ("identity_key", identity_key)
    row = conn.execute(
        f"SELECT id, password_hash FROM users JOIN vault ON user_id = id WHERE {column} = ?",
        (key,),
    ).fetchone()
    return row and {"user_id": row[0], "password_hash": row[1]}


def users_by_last_four(conn: sqlite3.Connection, last_four: str, limit: int) -> list[list[Any]]:
    """Return up to `limit` [user id, name] of those whose identity ends so, by id."""
    rows = conn.execute(
        "SELECT users.id, name FROM vault JOIN users ON users.id = user_id WHERE last_four = ?"
        " ORDER BY user_id LIMIT ?",
        (last_four, limit),
    )
    return [list(row) for row in rows]


def client_ids(conn: sqlite3.Connection, limit: int) -> list[int]:
    """Return the ids of up to `limit` clients, the newest first."""
    rows = conn.execute("SELECT id FROM clients ORDER BY id DESC LIMIT ?", (limit,))
    return [row[0] for row in rows]


def bind_vault(conn: sqlite3.Connection, fingerprint: bytes) -> dict[str, str]:
    """Tie the database to a vault key at first: {}; later {"refused": "other-vault"} for any other key.

    With a new key in the place of a lost one nobody would be found by number, and all could register twice.
    """
    conn.execute(
        "INSERT INTO meta (key, value) VALUES ('vault_fingerprint', ?) ON CONFLICT DO NOTHING", (fingerprint,)
    )
    bound = conn.execute("SELECT value FROM meta WHERE key = 'vault_fingerprint'").fetchone()
    return {} if bound == (fingerprint,) else {"refused": "other-vault"}


def create_client(
    conn: sqlite3.Connection, client_id: int, name: str, secret_hash: bytes, scopes: str, created_at_ms: int
) -> None:
    """Add a client; `scopes` are separated by one space."""
    conn.execute(
        "INSERT INTO clients (id, name, secret_hash, scopes, created_at_ms) VALUES (?, ?, ?, ?, ?)",
        (client_id, name, secret_hash, scopes, created_at_ms),
    )


def client_by_id(conn: sqlite3.Connection, client_id: int) -> dict[str, Any] | None:
    """Return {"name", "secret_hash", "scopes"}, or None."""
    row = conn.execute("SELECT name, secret_hash, scopes FROM clients WHERE id = ?", (client_id,)).fetchone()
    return row and {"name": row[0], "secret_hash": row[1], "scopes": row[2]}


def store_refresh_token(
    conn: sqlite3.Connection, token_hash: bytes, login_id: int, user_id: int, expires_at_s: int, now_s: int
) -> None:
    """Keep the first refresh token of a new login."""
    _sweep(conn, now_s)
    conn.execute(
        "INSERT INTO refresh_tokens (token_hash, login_id, user_id, expires_at_s) VALUES (?, ?, ?, ?)",
        (token_hash, login_id, user_id, expires_at_s),
    )


def exchange_refresh_token(
    conn: sqlite3.Connection,
    token_hash: bytes,
    new_hash: bytes,
    now_s: int,
    new_expires_at_s: int,
    revocation_expires_at_s: int,
) -> dict[str, Any]:
    """Use a refresh token up and keep its successor: {"login_id", "user_id"}.

    Refusals: {"refused": "unknown"} (also when its login has ended); {"refused": "expired", "login_id"};
    {"refused": "reused", "login_id"} for one used before, which ends the whole login in this same write.
    """
    row = conn.execute(
        "SELECT login_id, user_id, expires_at_s, used_at_s FROM refresh_tokens WHERE token_hash = ?"
        " AND NOT EXISTS (SELECT 1 FROM revoked_logins WHERE login_id = refresh_tokens.login_id)",
        (token_hash,),
    ).fetchone()
    if row is None:
        return {"refused": "unknown"}
    login_id, user_id, expires_at_s, used_at_s = row
    if used_at_s is not None:
        revoke_login(conn, login_id, revocation_expires_at_s, now_s)
        return {"refused": "reused", "login_id": login_id}
    if expires_at_s <= now_s:
        return {"refused": "expired", "login_id": login_id}
    conn.execute("UPDATE refresh_tokens SET used_at_s = ? WHERE token_hash = ?", (now_s, token_hash))
    store_refresh_token(conn, new_hash, login_id, user_id, new_expires_at_s, now_s)
    return {"login_id": login_id, "user_id": user_id}


def revoke_login(conn: sqlite3.Connection, login_id: int, expires_at_s: int, now_s: int) -> None:
    """End a login: its refresh tokens go, and its access tokens stand as revoked until `expires_at_s`."""
    _sweep(conn, now_s)
    conn.execute("DELETE FROM refresh_tokens WHERE login_id = ?", (login_id,))
    conn.execute(
        "INSERT INTO revoked_logins (login_id, expires_at_s) VALUES (?, ?)"
        " ON CONFLICT DO UPDATE SET expires_at_s = max(expires_at_s, excluded.expires_at_s)",
        (login_id, expires_at_s),
    )


def revoked_logins(conn: sqlite3.Connection, now_s: int) -> list[list[int]]:
    """Return [login_id, expires_at_s] of every ended login that may still have living access tokens."""
    rows = conn.execute("SELECT login_id, expires_at_s FROM revoked_logins WHERE expires_at_s > ?", (now_s,))
    return [list(row) for row in rows]


def _sweep(conn: sqlite3.Connection, now_s: int) -> None:
    conn.execute(
        "DELETE FROM refresh_tokens WHERE token_hash IN"
        " (SELECT token_hash FROM refresh_tokens WHERE expires_at_s <= ? ORDER BY expires_at_s LIMIT ?)",
        (now_s, SWEPT_AT_ONCE),
    )
    # Login ids are ordered by time, so the first rows are the ones that end first, or nearly so.
    conn.execute(
        "DELETE FROM revoked_logins WHERE expires_at_s <= ? AND login_id IN"
        " (SELECT login_id FROM revoked_logins ORDER BY login_id LIMIT ?)",
        (now_s, SWEPT_AT_ONCE),
    )


READS: dict[str, Callable[..., Any]] = {
    "user_by_id": user_by_id,
    "is_registered": is_registered,
    "is_taken": is_taken,
    "user_for_login": user_for_login,
    "users_by_last_four": users_by_last_four,
    "client_by_id": client_by_id,
    "client_ids": client_ids,
    "revoked_logins": revoked_logins,
}
WRITES: dict[str, Callable[..., Any]] = {
    "register_user": register_user,
    "bind_vault": bind_vault,
    "create_client": create_client,
    "store_refresh_token": store_refresh_token,
    "exchange_refresh_token": exchange_refresh_token,
    "revoke_login": revoke_login,
}
