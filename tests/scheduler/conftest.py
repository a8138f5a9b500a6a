"""The store as the scheduler sees it: named reads and writes over a real SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledgerd.storage import transactions
from ledgerd.storage.migrate import migrate
from ledgerd.storage.vault import Vault

INDEX_KEY = bytes(range(32))
VAULT = Vault({1: b"s" * 32}, 1, INDEX_KEY, "aadhaar", lambda count: b"n" * count)


class SqliteStore:
    """Runs each write in a transaction of its own, and passes everything through MessagePack as the socket
    does.
    """

    def __init__(self, path: Path) -> None:
        self.conn = sqlite3.connect(path, isolation_level=None)
        migrate(self.conn, "tables")
        self.conn.execute("PRAGMA foreign_keys = ON")
        self.calls: list[str] = []
        self.written = asyncio.Event()

    async def read(self, name: str, *params: Any) -> Any:
        self.calls.append(name)
        return _crossed(transactions.READS[name](self.conn, *_crossed(list(params))))

    async def write(self, name: str, *params: Any) -> Any:
        self.calls.append(name)
        with self.conn:
            self.conn.execute("BEGIN IMMEDIATE")
            result = _crossed(transactions.WRITES[name](self.conn, *_crossed(list(params))))
        self.written.set()
        return result

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds, looking after each write."""
        async with asyncio.timeout(60):
            while not holds():
                self.written.clear()
                await self.written.wait()

    def register(self, user_id: int, identity: str, vault: Vault = VAULT) -> None:
        """Add a borrower who waits to be scored."""
        self.conn.execute(
            "INSERT INTO users VALUES (?1, 'Asha', ?1, ?1, 20000000, 'hash', NULL, 0)", (user_id,)
        )
        self.conn.execute(
            "INSERT INTO vault VALUES (?, ?, x'00', '0000')", (user_id, vault.identity_key(identity))
        )

    def scores(self) -> dict[int, int | None]:
        """Every borrower's score."""
        return dict(self.conn.execute("SELECT id, credit_score FROM users ORDER BY id").fetchall())

    def rows(self) -> list[tuple[bytes, str, int, int]]:
        """What was imported, in an order of its own."""
        query = "SELECT identity_key, kind, amount_paise, date FROM transactions ORDER BY 1, 2, 3, 4"
        return self.conn.execute(query).fetchall()

    def amounts(self) -> list[int]:
        """The imported amounts, in order of size."""
        query = "SELECT amount_paise FROM transactions ORDER BY 1"
        return [amount for (amount,) in self.conn.execute(query)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "tables.db")
    yield opened
    opened.conn.close()


def write(path: Path, data: str | bytes) -> None:
    """Replace a file's content."""
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def _crossed(value: Any) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value))
