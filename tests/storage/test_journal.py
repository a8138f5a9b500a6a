"""The journal's own: what a batch looks like on disk, recovery, the probe. Whole lives of it are in
test_engine_schedules.py, what it answers in test_contract.py.
"""

from __future__ import annotations

import sqlite3

import pytest

from ledgerd.storage.chain import GENESIS, batch_digest
from ledgerd.storage.journal import Journal, VersionGap, event_at, events_after, head_seq, keys_after
from ledgerd.storage.once import Keys, key_hash
from ledgerd.storage.ports import Entry, StoredEvent
from ledgerd.storage.tail import Tail
from tests.storage.books import Bare, Writer, key_of, stored


def rows(bare: Bare, table: str) -> list[tuple[object, ...]]:
    return bare.journal.execute(f"SELECT * FROM {table}").fetchall()


def recovered(bare: Bare, projected_seq: int = 0, indexed_seq: int = 0) -> Journal:
    journal = Journal(Tail(), Keys())
    journal.recover(bare.journal, projected_seq, indexed_seq)
    return journal


def test_a_batch_is_its_events_and_one_digest_over_all_before(bare: Bare) -> None:
    journal, writer = recovered(bare), Writer(1)
    batches = [[writer.lend(), writer.pay("t1"), writer.pay("t2")], [writer.pay("t3")]]
    for batch in batches:
        assert journal.append(bare.journal, batch) == []
    events = stored([entry for batch in batches for entry in batch])
    assert list(events_after(bare.journal, 0)) == events
    first = batch_digest(GENESIS, [event.hash for event in events[:3]])
    assert rows(bare, "batches") == [(3, first), (4, batch_digest(first, [events[3].hash]))]
    assert (journal.head_seq, head_seq(bare.journal)) == (4, 4)


def test_a_batch_of_nothing_but_questions_and_refusals_writes_nothing(bare: Bare) -> None:
    journal, writer = recovered(bare), Writer(1)
    journal.append(bare.journal, [writer.lend(), writer.pay("t")])
    before = [rows(bare, table) for table in ("events", "batches")]
    changes = bare.journal.total_changes
    for batch in ([], [writer.ask("u")], [writer.ask("t"), writer.pay("t")]):
        journal.append(bare.journal, batch)
    assert [rows(bare, table) for table in ("events", "batches")] == before
    assert bare.journal.total_changes == changes


def test_a_commit_is_one_transaction(bare: Bare) -> None:
    journal, writer = recovered(bare), Writer(1)
    said: list[str] = []
    bare.journal.set_trace_callback(said.append)
    journal.append(bare.journal, [writer.lend(), writer.pay("t1"), writer.pay("t2")])
    bare.journal.set_trace_callback(None)
    words = [sql.split()[0] for sql in said]
    # One probe for both keys, one statement for all rows and one for their digest, and one sync.
    assert words == ["WITH", "BEGIN", "INSERT", "INSERT", "COMMIT"]


@pytest.mark.parametrize("projected_seq", [0, 1, 4])
@pytest.mark.parametrize("indexed_seq", [0, 2, 4])
def test_it_goes_on_where_it_ended(bare: Bare, projected_seq: int, indexed_seq: int) -> None:
    whole, writer = recovered(bare), Writer(1)
    entries = [writer.lend(), writer.pay("t1"), writer.pay("t2")]
    whole.append(bare.journal, entries)
    whole.append(bare.journal, [more := writer.pay("t3")])
    events = stored([*entries, more])
    again = recovered(bare, projected_seq, indexed_seq)
    assert again.head_seq == 4
    assert again.tail.of_loan(1) == events[projected_seq:]
    owned = {event.once_key: event.seq for event in events if event.once_key is not None}
    assert {key: again.keys.seq_of(key) for key in owned} == {
        key: seq if seq > indexed_seq else None for key, seq in owned.items()
    }
    assert again.append(bare.journal, [writer.pay("t4")]) == []
    digests = [row[1] for row in rows(bare, "batches")]
    hashes = [event.hash for event in events_after(bare.journal, 0)]
    first = batch_digest(GENESIS, hashes[:3])
    assert digests == [
        first,
        second := batch_digest(first, hashes[3:4]),
        batch_digest(second, hashes[4:]),
    ]


def test_a_failed_insert_is_not_acknowledged(bare: Bare) -> None:
    """The process ends then; whoever opens the files next finds them as they were."""
    journal, writer = recovered(bare), Writer(1)
    journal.append(bare.journal, [writer.lend()])
    bare.journal.execute(
        "CREATE TEMP TRIGGER full BEFORE INSERT ON batches BEGIN SELECT RAISE(FAIL, 'full'); END"
    )
    with pytest.raises(sqlite3.Error, match="full"):
        journal.append(bare.journal, [writer.pay("t")])
    assert (journal.head_seq, len(journal.tail)) == (1, 1)
    bare.journal.execute("ROLLBACK")
    assert head_seq(bare.journal) == 1


@pytest.mark.parametrize("base_version", [0, 1, 3])
def test_an_entry_that_does_not_follow_is_refused_with_its_whole_batch(bare: Bare, base_version: int) -> None:
    journal, writer, other = recovered(bare), Writer(1), Writer(2)
    journal.append(bare.journal, [writer.lend(), writer.pay("t")])
    entry = writer.pay("u")
    stray = Entry(1, base_version, entry.once_key, entry.events)
    with pytest.raises(VersionGap, match=f"loan {1:016x} is at 2, .* on {base_version}"):
        journal.append(bare.journal, [other.lend(), stray])
    assert (journal.head_seq, head_seq(bare.journal)) == (2, 2)
    assert journal.tail.of_loan(2) == []


def test_another_key_of_the_same_hash_is_not_taken(bare: Bare) -> None:
    """The index knows 64 bits of a key's hash. The event says whose key it is."""
    journal, writer = recovered(bare), Writer(1)
    journal.append(bare.journal, [writer.lend(), writer.pay("t1"), writer.pay("t2")])
    bare.tables.executemany("INSERT INTO once VALUES (?, ?)", [(key_hash(key_of("t3")), n) for n in (2, 3)])
    again = recovered(bare, 3, 3)
    assert again.append(bare.journal, [writer.pay("t3")]) == []
    bare.tables.execute("INSERT INTO once VALUES (?, 4)", (key_hash(key_of("t3")),))
    once_more = recovered(bare, 4, 4)
    [verdict] = once_more.append(bare.journal, [writer.ask("t3")])
    assert (verdict.outcome, verdict.owner and verdict.owner.seq) == ("taken", 4)


def test_the_keys_after(bare: Bare) -> None:
    journal, writer = recovered(bare), Writer(1)
    assert list(keys_after(bare.journal, 0)) == []
    journal.append(bare.journal, [writer.lend(), writer.pay("t1"), writer.pay("t2")])
    assert list(keys_after(bare.journal, 0)) == [(key_of("t1"), 2), (key_of("t2"), 3)]
    assert list(keys_after(bare.journal, 0, limit=1)) == [(key_of("t1"), 2)]
    assert list(keys_after(bare.journal, 2)) == [(key_of("t2"), 3)]


def test_one_event_and_the_events_after(bare: Bare) -> None:
    journal, writer = recovered(bare), Writer(1)
    assert (list(events_after(bare.journal, 0)), head_seq(bare.journal)) == ([], 0)
    journal.append(bare.journal, entries := [writer.lend(), writer.pay("t1"), writer.pay("t2")])
    events: list[StoredEvent] = stored(entries)
    assert [event_at(bare.journal, seq) for seq in (1, 2, 3)] == events
    assert list(events_after(bare.journal, 1, limit=1)) == events[1:2]
    with pytest.raises(KeyError):
        event_at(bare.journal, 4)


def test_runs_that_never_end_are_forgotten_oldest_first(bare: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ledgerd.storage.journal.STALE_RUNS_MAX", 3)
    journal = recovered(bare)
    assert journal.append(bare.journal, [Writer(1).lend(idempotency_key="k")]) == []
    for loan_id in range(2, 9):  # a retry of the application, each under a new loan's id
        [verdict] = journal.append(bare.journal, [Writer(loan_id).lend(idempotency_key="k")])
        assert verdict.outcome == "taken"
    assert list(journal._resume_at) == [6, 7, 8]
