"""The once index: which event has a once_key, for ever.

A random key in a large index dirties a page of its own, so keys are not indexed as they come. They gather in
memory, and are merged into the table `once` in the order of their hashes, slice by slice, many to a page. The
journal has them all the while: a start reads those after the watermark `indexed_seq` again.

The table holds 64 bits of each key's hash, not the key: a third of the pages, and whole numbers compare
faster. What it finds is a candidate; the event that it leads to says whose key it is.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Final

from ledgerd.storage.precedence import between

_BUCKETS: Final = 64
_SHIFT: Final = 64 - _BUCKETS.bit_length() + 1
_KEYS_A_STATEMENT: Final = 256
# An older start may have merged some of the keys before it was killed.
_INSERT: Final = "INSERT INTO once (hash, seq) VALUES (?, ?) ON CONFLICT DO NOTHING"


def key_hash(once_key: bytes) -> int:
    """Return the signed 64 bits that the index knows a key by."""
    return int.from_bytes(sha256(once_key).digest()[:8], "big", signed=True)


class _Generation:
    """Keys with their events; in buckets by hash, so that each is sorted when its turn comes."""

    def __init__(self) -> None:
        self.seqs: dict[bytes, int] = {}
        self.buckets: list[list[bytes]] = [[] for _ in range(_BUCKETS)]

    def rows(self, bucket: Sequence[bytes]) -> list[tuple[int, int]]:
        return sorted((key_hash(key), self.seqs[key]) for key in bucket)


class Keys:
    """The keys that are on disk in the journal and not in the index yet, in two generations like the tail's.

    `add` and `turn` run in the journal's turn, `take` and `drop` are the engine's; `seq_of` may run anywhere.
    """

    def __init__(self) -> None:
        self._new = _Generation()
        self._old = _Generation()

    def add(self, once_key: bytes, hash_: int, seq: int) -> None:
        """Note the key of an event that has just become durable."""
        self._new.seqs[once_key] = seq
        self._new.buckets[(hash_ >> _SHIFT) + _BUCKETS // 2].append(once_key)

    def seq_of(self, once_key: bytes) -> int | None:
        """Return the event that has the key, if it is here. New first: a turn moves keys from new to old."""
        return self._new.seqs.get(once_key) or self._old.seqs.get(once_key)

    @property
    def gathered(self) -> int:
        """How many keys wait for the next merge."""
        return len(self._new.seqs)

    @property
    def merging(self) -> bool:
        """Whether a merge is under way."""
        return bool(self._old.seqs)

    def turn(self) -> None:
        """Begin a merge of what was gathered."""
        assert not self._old.seqs, "the merge before has ended"
        # Old first: a reader between the two lines sees the keys twice, never not at all.
        self._old = self._new
        self._new = _Generation()

    def take(self, count: int) -> tuple[list[tuple[int, int]], int | None]:
        """Return the merge's next rows (hash, seq), about so many, in order; and with the last ones the
        watermark that they reach.
        """
        old, rows = self._old, list[tuple[int, int]]()
        while old.buckets and len(rows) < count:
            rows += old.rows(old.buckets.pop(0))
        return rows, None if old.buckets else max(old.seqs.values())

    def drop(self) -> None:
        """Forget the merge's keys, once all of them are in the index."""
        self._old = _Generation()


def merge(
    connection: sqlite3.Connection,
    rows: Sequence[tuple[int, int]],
    watermark: int | None,
    give_way: Callable[[], None] = lambda: None,
) -> None:
    """Index some keys, within the caller's transaction; all up to the watermark, if there is one, now are.
    `give_way` is called between rows.
    """
    connection.executemany(_INSERT, between(rows, give_way))
    if watermark is not None:
        connection.execute("UPDATE meta SET value = ? WHERE key = 'indexed_seq'", (watermark,))


def merge_keys(connection: sqlite3.Connection, keys: Iterable[tuple[bytes, int]], watermark: int) -> None:
    """Index keys that were never gathered."""
    merge(connection, sorted((key_hash(key), seq) for key, seq in keys), watermark)


def candidates(connection: sqlite3.Connection, hashes: Sequence[int], schema: str = "main") -> list[int]:
    """Return the events that may have a key of one of these hashes."""
    found: list[int] = []
    for start in range(0, len(hashes), _KEYS_A_STATEMENT):
        some = hashes[start : start + _KEYS_A_STATEMENT]
        found += [row[0] for row in connection.execute(_probe(schema, len(some)), some)]
    return found


@functools.cache
def _probe(schema: str, count: int) -> str:
    # A join: `IN (..)` first sorts its list into a table of its own, which costs as much as the look-ups.
    values = ", ".join(["(?)"] * count)
    return (
        f"WITH asked(hash) AS (VALUES {values})"
        f" SELECT seq FROM asked CROSS JOIN {schema}.once ON once.hash = asked.hash"
    )


def indexed_seq(connection: sqlite3.Connection) -> int:
    """Return the watermark: the keys of all events up to it are in the index."""
    row = connection.execute(
        "SELECT value FROM meta WHERE key = 'indexed_seq' AND typeof(value) = 'integer'"
    ).fetchone()
    if row is None:
        raise sqlite3.DatabaseError("the tables have lost the watermark of their index")
    seq: int = row[0]
    return seq
