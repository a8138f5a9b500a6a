"""The once index: wherever a key stands, in memory or in the table, it leads to its event; and its merges."""

from __future__ import annotations

import asyncio
import sqlite3
from random import Random

import pytest

from ledgerd.storage.journal import keys_after
from ledgerd.storage.once import Keys, candidates, indexed_seq, key_hash, merge, merge_keys
from ledgerd.storage.sqlite import transact
from tests.storage.books import Bare, Writer, key_of


def gathered(count: int, first_seq: int = 1) -> tuple[Keys, dict[bytes, int]]:
    keys, seqs = Keys(), {key_of(f"t{n}"): n for n in range(first_seq, first_seq + count)}
    for key, seq in seqs.items():
        keys.add(key, key_hash(key), seq)
    return keys, seqs


def owner(keys: Keys, connection: sqlite3.Connection, key: bytes) -> int | None:
    """As the journal asks: memory first, index second."""
    seq = keys.seq_of(key)
    return seq if seq is not None else next(iter(candidates(connection, [key_hash(key)])), None)


def table(bare: Bare) -> list[tuple[int, int]]:
    return bare.tables.execute("SELECT hash, seq FROM once").fetchall()


@pytest.mark.parametrize("count", [1, 7, 100, 1_000, 5_000])
@pytest.mark.parametrize("at_once", [1, 64, 100_000])
def test_a_key_leads_to_its_event_before_a_merge_within_it_and_after(
    bare: Bare, count: int, at_once: int
) -> None:
    keys, seqs = gathered(count)
    keys.turn()
    newer = key_of("newer")
    keys.add(newer, key_hash(newer), count + 1)
    seqs[newer] = count + 1
    chance, watermark = Random(count), None
    asked = chance.sample(sorted(seqs), min(count, 50))
    slices = []
    while watermark is None:
        assert keys.merging
        assert {key: owner(keys, bare.tables, key) for key in asked} == {key: seqs[key] for key in asked}
        rows, watermark = keys.take(at_once)
        transact(bare.tables, merge, rows, watermark)
        slices.append(rows)
        assert indexed_seq(bare.tables) == (watermark or 0)
    keys.drop()
    assert (watermark, keys.merging, keys.gathered) == (count, False, 1)
    assert {key: owner(keys, bare.tables, key) for key in asked} == {key: seqs[key] for key in asked}
    assert owner(keys, bare.tables, key_of("never")) is None
    in_order = [row for rows in slices for row in rows]
    assert in_order == sorted(in_order) == table(bare)
    assert len(in_order) == count


def test_only_what_was_dropped_may_be_turned_over() -> None:
    keys, _ = gathered(1)
    keys.turn()
    with pytest.raises(AssertionError, match="has ended"):
        keys.turn()


def test_a_reader_between_the_two_steps_of_a_turn_sees_each_key() -> None:
    keys, seqs = gathered(9)
    keys._old = keys._new
    assert {key: keys.seq_of(key) for key in seqs} == seqs


def test_a_merge_that_was_cut_off_is_done_again(bare: Bare) -> None:
    keys, seqs = gathered(500)
    keys.turn()
    rows, watermark = keys.take(100)
    assert watermark is None
    transact(bare.tables, merge, rows, watermark)
    transact(bare.tables, merge_keys, seqs.items(), 500)
    assert table(bare) == sorted((key_hash(key), seq) for key, seq in seqs.items())
    assert indexed_seq(bare.tables) == 500


def test_the_probe_finds_candidates_however_many(bare: Bare) -> None:
    seqs = {key_of(f"t{n}"): n for n in range(1_200)}
    merge_keys(bare.tables, seqs.items(), 1_200)
    hashes = [key_hash(key_of(f"t{n}")) for n in range(0, 2_400, 2)]
    assert sorted(candidates(bare.tables, hashes)) == list(range(0, 1_200, 2))
    assert candidates(bare.tables, []) == []
    assert candidates(bare.journal, [key_hash(key_of("t7")), key_hash(b"p:")], schema="tables") == [7]
    bare.tables.execute("INSERT INTO once VALUES (?, 9999)", (key_hash(key_of("t7")),))
    assert candidates(bare.tables, [key_hash(key_of("t7"))]) == [7, 9999]


def test_the_probe_sorts_and_scans_nothing_large(bare: Bare) -> None:
    said: list[str] = []
    bare.tables.set_trace_callback(said.append)
    candidates(bare.tables, [1, 2])
    bare.tables.set_trace_callback(None)
    plan = [row[3] for row in bare.tables.execute(f"EXPLAIN QUERY PLAN {said[0]}")]
    assert [line for line in plan if "once" in line] == ["SEARCH main.once USING PRIMARY KEY (hash=?)"]


def test_a_hash_fills_all_buckets_from_the_least_to_the_greatest() -> None:
    hashes = [key_hash(b"%d" % n) for n in range(2_000)]
    assert min(hashes) < -(2**62)
    assert max(hashes) > 2**62
    assert all(-(2**63) <= each < 2**63 for each in hashes)


@pytest.mark.parametrize("left", [3, 4, 5, 40])
async def test_a_start_indexes_what_memory_should_not_hold(bare: Bare, left: int) -> None:
    """As after a migration, which empties the index."""
    writer, before = Writer(1), bare.engine(index_keys=1_000)
    await before.start()
    await before.append(before.opened.epoch, [writer.lend(), *(writer.pay(f"t{n}") for n in range(left))])
    before.projector.cancel()
    await asyncio.gather(before.projector, return_exceptions=True)
    assert table(bare) == []
    engine = bare.engine(index_keys=2)
    await engine.start()
    try:
        assert len(table(bare)) == left // 4 * 4
        assert engine._keys.gathered == left % 4
        for key, seq in keys_after(bare.journal, 0):
            event = await engine.read("owner_of", key)
            assert event is not None
            assert (event.seq, event.once_key) == (seq, key)
        assert await engine.read("owner_of", key_of("never")) is None
    finally:
        engine.projector.cancel()
        await asyncio.gather(engine.projector, return_exceptions=True)


async def test_merges_follow_the_projections(bare: Bare) -> None:
    writer, engine = Writer(1), bare.engine(slice_events=5, index_keys=10)
    await engine.start()
    try:
        await engine.append(engine.opened.epoch, [writer.lend()])
        for batch in range(40):
            entries = [writer.pay(f"t{batch}-{n}") for n in range(5)]
            await engine.append(engine.opened.epoch, entries)
            await engine.project_through(engine._journal.head_seq)
            waiting = engine._keys.gathered + len(engine._keys._old.seqs)
            assert waiting <= 2 * 10 + 5
            verdicts = (await engine.append(engine.opened.epoch, [writer.ask(f"t{batch // 2}-0")])).exceptions
            assert [verdict.outcome for verdict in verdicts] == ["taken"]
        assert len(table(bare)) >= 200 - 25
    finally:
        engine.projector.cancel()
        await asyncio.gather(engine.projector, return_exceptions=True)
