"""The journal: appends batches of entries, decides duplicates, and keeps the tail that is not projected yet.

All of it runs in the journal connection's turn, one batch at a time, so that "is this key taken?" and
"append" are one step. A key is looked for in the batch, among the keys in memory, and by one probe of the
once index for the whole batch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from ledgerd.storage.chain import GENESIS, batch_digest
from ledgerd.storage.once import Keys, candidates, key_hash
from ledgerd.storage.ports import Entry, NewEvent, StoredEvent, Verdict
from ledgerd.storage.precedence import Precedence
from ledgerd.storage.sqlite import is_disk_full
from ledgerd.storage.tail import Tail

# One statement for many rows: each that ends gives the interpreter's lock away, and may wait to have it back.
_ROWS_A_STATEMENT = 32
_INSERT_EVENTS = [
    "INSERT INTO events (seq, loan_id, version, kind, once_key, hash, body) VALUES "
    + ", ".join(["(?, ?, ?, ?, ?, ?, ?)"] * count)
    for count in range(_ROWS_A_STATEMENT + 1)
]
_SELECT_EVENT = "SELECT seq, loan_id, version, kind, once_key, hash, body FROM events"


# More than all entries of the batches that an owner has on their way at once.
STALE_RUNS_MAX = 10_000


class DiskFull(Exception):
    """There was no room for a batch. Nothing of it was written."""


class VersionGap(Exception):
    """An entry does not follow its loan's last event in the tail: a bug. Nothing was written."""


class Journal:
    """The append side of the journal file. Its connection sees the tables under the name `tables`."""

    def __init__(self, tail: Tail, keys: Keys, precedence: Precedence | None = None) -> None:
        self.tail = tail
        self.keys = keys
        self._precedence = precedence or Precedence()
        self.head_seq = 0
        self._digest = GENESIS
        self._resume_at: dict[int, int] = {}  # loan -> the base_version that ends its run of stale entries

    def recover(self, connection: sqlite3.Connection, projected_seq: int, indexed_seq: int) -> None:
        """Read where the journal ends, the events after the one watermark into the tail, and the keys after
        the other into memory.
        """
        self.head_seq = head_seq(connection)
        row = connection.execute("SELECT digest FROM batches ORDER BY last_seq DESC LIMIT 1").fetchone()
        self._digest = row[0] if row else GENESIS
        for event in events_after(connection, projected_seq):
            self.tail.add(event)
        for once_key, seq in keys_after(connection, indexed_seq):
            self.keys.add(once_key, key_hash(once_key), seq)

    def append(self, connection: sqlite3.Connection, entries: Sequence[Entry]) -> list[Verdict]:
        """Append what may be appended, durably, and return the verdicts of the rest.

        Raises DiskFull when there is no room for it: everything is then as before, but what was decided on
        these entries must not come any more. Raises sqlite3.Error when COMMIT fails otherwise: what became of
        the batch is then unknown, and the process must stop.
        """
        self._precedence.begin()
        try:
            return self._append(connection, entries)
        except sqlite3.OperationalError as error:
            if not is_disk_full(error):
                raise
            self._make_certain(connection)
            raise DiskFull from error
        finally:
            self._precedence.end()

    def _make_certain(self, connection: sqlite3.Connection) -> None:
        """See that the file is where it was before a batch that did not fit."""
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if head_seq(connection) != self.head_seq:
            raise sqlite3.OperationalError("a batch that the disk had no room for is there all the same")
        self._resume_at.clear()

    def _append(self, connection: sqlite3.Connection, entries: Sequence[Entry]) -> list[Verdict]:
        owners, hashes = self._owners(connection, entries)
        written: dict[int, int] = {}  # loan -> version, of this batch
        events: list[StoredEvent] = []
        verdicts: list[Verdict] = []
        for index, entry in enumerate(entries):
            owner = None if entry.once_key is None else owners.get(entry.once_key)
            resume_at = self._resume_at.get(entry.loan_id)
            if resume_at is not None:
                if entry.base_version != resume_at:
                    # With its owner, so that a storm of retries is decided again once, not once for each.
                    verdicts.append(Verdict(index, "stale", owner))
                    continue
                del self._resume_at[entry.loan_id]
            if owner is not None:
                verdicts.append(Verdict(index, "taken", owner))
                if entry.events:
                    self._begin_stale(entry)
                continue
            if entry.events:
                self._check_version(entry, written)
                events += self._rows(entry, first_seq=self.head_seq + len(events) + 1)
                written[entry.loan_id] = entry.base_version + len(entry.events)
                if entry.once_key is not None:
                    owners[entry.once_key] = events[-1]
        if events:
            self._commit(connection, events, hashes)
        return verdicts

    def _begin_stale(self, entry: Entry) -> None:
        """Drop what was decided on an entry that was not written, until its base_version comes again.

        It never does for a new loan whose key was taken, so only the latest runs are kept; what is forgotten
        is older than every batch that can be on its way.
        """
        self._resume_at[entry.loan_id] = entry.base_version
        if len(self._resume_at) > STALE_RUNS_MAX:
            del self._resume_at[next(iter(self._resume_at))]

    def _commit(
        self, connection: sqlite3.Connection, events: list[StoredEvent], hashes: dict[bytes, int]
    ) -> None:
        digest = batch_digest(self._digest, (event.hash for event in events))
        last_seq = events[-1].seq
        connection.execute("BEGIN")
        for start in range(0, last_seq - self.head_seq, _ROWS_A_STATEMENT):
            some = events[start : start + _ROWS_A_STATEMENT]
            connection.execute(_INSERT_EVENTS[len(some)], _values(some))
        connection.execute("INSERT INTO batches (last_seq, digest) VALUES (?, ?)", (last_seq, digest))
        self._precedence.end()  # the sync leaves the interpreter to others
        connection.execute("COMMIT")
        self._precedence.begin()
        self.head_seq, self._digest = last_seq, digest
        for event in events:
            self.tail.add(event)
            if event.once_key is not None:
                self.keys.add(event.once_key, hashes[event.once_key], event.seq)

    def _check_version(self, entry: Entry, written: dict[int, int]) -> None:
        last = written.get(entry.loan_id)
        if last is None:
            last = self.tail.last_version(entry.loan_id)
        if last is not None and last != entry.base_version:
            raise VersionGap(
                f"loan {entry.loan_id:016x} is at {last}, an entry was decided on {entry.base_version}"
            )

    def _rows(self, entry: Entry, first_seq: int) -> list[StoredEvent]:
        """Number the events of an entry; its once_key goes to the last, which is the one that answers."""
        rows = []
        last = len(entry.events) - 1
        new: NewEvent
        for offset, new in enumerate(entry.events):
            rows.append(
                StoredEvent(
                    seq=first_seq + offset,
                    loan_id=entry.loan_id,
                    version=entry.base_version + offset + 1,
                    kind=new.kind,
                    once_key=entry.once_key if offset == last else None,
                    hash=new.hash,
                    body=new.body,
                )
            )
        return rows

    def _owners(
        self, connection: sqlite3.Connection, entries: Sequence[Entry]
    ) -> tuple[dict[bytes, StoredEvent], dict[bytes, int]]:
        """Return the events that already have one of the batch's keys, and the hashes of the other keys.
        Memory first, index second: a merge moves them so.
        """
        found: list[int] = []
        hashes: dict[bytes, int] = {}
        for entry in entries:
            if entry.once_key is not None:
                seq = self.keys.seq_of(entry.once_key)
                if seq is not None:
                    found.append(seq)
                else:
                    hashes[entry.once_key] = key_hash(entry.once_key)
        found += candidates(connection, [*hashes.values()], schema="tables")
        events = [event_at(connection, seq) for seq in found]
        return {event.once_key: event for event in events if event.once_key is not None}, hashes


def _values(events: Sequence[StoredEvent]) -> list[object]:
    """Return the columns of all events. Not as `bytes`: Python 3.11's sqlite3 first looks for an adapter of
    each, for 0.4 us.
    """
    values: list[object] = []
    for event in events:
        key = event.once_key
        values += (
            event.seq,
            event.loan_id,
            event.version,
            event.kind,
            None if key is None else bytearray(key),
            bytearray(event.hash),
            bytearray(event.body),
        )
    return values


def event_at(connection: sqlite3.Connection, seq: int) -> StoredEvent:
    """Return one event of the journal; KeyError when the journal ends before it."""
    row = connection.execute(f"{_SELECT_EVENT} WHERE seq = ?", (seq,)).fetchone()
    if row is None:
        raise KeyError(seq)
    return StoredEvent(*row)


def events_after(connection: sqlite3.Connection, seq: int, limit: int = -1) -> Iterable[StoredEvent]:
    """Yield the events after `seq`, in order."""
    for row in connection.execute(f"{_SELECT_EVENT} WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit)):
        yield StoredEvent(*row)


def events_of(
    connection: sqlite3.Connection, loan_id: int, before_seq: int, rows: int
) -> tuple[list[StoredEvent], int]:
    """Look through up to `rows` events before `before_seq`: those of one loan, oldest first, and the first
    that was looked at (1: there are no more). The journal has no index of loans, which would cost each append
    a page.
    """
    first_seq = max(1, before_seq - rows)
    found = connection.execute(
        f"{_SELECT_EVENT} WHERE seq >= ? AND seq < ? AND loan_id = ? ORDER BY seq",
        (first_seq, before_seq, loan_id),
    )
    return [StoredEvent(*row) for row in found], first_seq


def keys_after(connection: sqlite3.Connection, seq: int, limit: int = -1) -> Iterable[tuple[bytes, int]]:
    """Yield the once_keys of the events after `seq`, in order, each with its event."""
    return connection.execute(
        "SELECT once_key, seq FROM events WHERE seq > ? AND once_key IS NOT NULL ORDER BY seq LIMIT ?",
        (seq, limit),
    )


def head_seq(connection: sqlite3.Connection) -> int:
    """Return the last sequence number; 0 for an empty journal."""
    seq: int = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]
    return seq
