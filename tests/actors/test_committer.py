"""The committer: how batches grow, and what happens when the journal breaks."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from ledgerd.actors.committer import BATCH_ENTRIES_EARLY, BATCH_ENTRIES_MAX
from ledgerd.actors.messages import Accepted, Overloaded, View
from ledgerd.domain.commands import IssueBills
from ledgerd.storage.ports import AppendReply, StoreError, Verdict
from tests.actors.world import METRICS, START, WIDE, World, turns, virtual


async def opened(loans: int) -> World:
    """A world with loans 1, 2 .., all of them in memory."""
    world = World()
    for loan_id in range(1, loans + 1):
        world.lend(loan_id)
    world.open()
    for loan_id in range(1, loans + 1):
        world.ask(loan_id)
    await world.quiet()
    return world


def sizes(world: World) -> list[int]:
    return [len(entries) for entries, _ in world.store.appends]


@virtual
async def test_what_comes_in_one_turn_goes_together_and_the_next_batch_grows_meanwhile():
    world = await opened(30)
    for loan_id in range(1, 11):
        world.ask(loan_id, world.repay(f"t{loan_id}", 100))
    await turns()
    world.ask(11, world.repay("t11", 100))
    await turns()
    for loan_id in range(12, 31):
        world.ask(loan_id, world.repay(f"t{loan_id}", 100))
        await turns()
    assert sizes(world) == [10, 1]  # two are on their way, the rest waits
    world.store.process_append()
    world.store.deliver()
    await turns()
    assert sizes(world) == [1, 19]
    await world.quiet()
    assert not world.waiting


@virtual
async def test_a_batch_as_large_as_what_is_on_its_way_goes_within_the_turn():
    world = await opened(4 * BATCH_ENTRIES_EARLY)
    for loan_id in range(1, 3 * BATCH_ENTRIES_EARLY + 1):
        world.ask(loan_id, world.repay(f"t{loan_id}", 100))
    assert sizes(world) == [BATCH_ENTRIES_EARLY, BATCH_ENTRIES_EARLY]  # the disk works; the rest waits
    world.store.process_append()
    world.store.deliver()
    await turns()
    assert sizes(world) == [BATCH_ENTRIES_EARLY, BATCH_ENTRIES_EARLY]
    for loan_id in range(3 * BATCH_ENTRIES_EARLY + 1, 4 * BATCH_ENTRIES_EARLY + 1):
        world.ask(loan_id, world.repay(f"t{loan_id}", 100))
    world.store.process_append()
    world.store.deliver()
    await turns()
    assert sizes(world) == [BATCH_ENTRIES_EARLY, BATCH_ENTRIES_EARLY]
    await world.quiet()
    assert not world.waiting


@virtual
async def test_a_batch_has_a_greatest_size():
    world = await opened(1)
    early = BATCH_ENTRIES_EARLY
    for number in range(BATCH_ENTRIES_MAX + 500):
        world.ask(1, world.repay(f"t{number}", 1))
    assert sizes(world) == [early, early]
    world.store.process_append()
    world.store.deliver()
    await turns()
    assert sizes(world) == [early, BATCH_ENTRIES_MAX]
    await world.quiet()
    assert [event.version for event in world.events()] == list(range(1, BATCH_ENTRIES_MAX + 502))


@virtual
async def test_it_counts_commits_and_events():
    world = await opened(2)
    world.set_day(START + 30)
    count = METRICS.registry.get_sample_value
    before = [count("ledgerd_commits_total"), count("ledgerd_committed_events_total")]
    both = [world.ask(1, IssueBills(START + 30)), world.ask(2, world.repay("t", 100))]
    await world.quiet()
    assert [each.answer.count for each in both] == [1, 2]
    after = [count("ledgerd_commits_total"), count("ledgerd_committed_events_total")]
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 3]
    assert world.registry.committer.head_seq == world.disk.head_seq
    assert world.registry.committer.lag_events == 5
    world.store.project()
    world.ask(1, world.repay("u", 100))
    await world.quiet()
    assert world.registry.committer.lag_events == 1


# Broken ------------------------------------------------------------------------------------------


@virtual
async def test_a_broken_journal_fails_all_that_waits_and_says_so_once():
    world = await opened(4)
    known = [world.ask(1, world.repay("t", 100)), world.ask(1, world.repay("t", 100)), world.ask(1)]
    await turns()
    second = [world.ask(2, world.repay("u", 100)), world.ask(1, world.repay("v", 100))]
    await turns()
    queued = world.ask(3, world.repay("w", 100))
    bug, behind_bug = world.ask(2, world.bug("x")), world.ask(2)
    cold = world.ask(99)
    world.store.append_failure = OSError("no space left")
    world.store.process_append()
    world.store.append_failure = None
    world.store.process_append()  # that one is fine, but what it follows is not known
    await world.quiet()
    for asked in (*known, *second, queued, behind_bug, cold):
        assert isinstance(asked.answer, StoreError), asked
        assert asked.times == 1
    assert bug.times == 1
    assert [type(error) for error in world.broken] == [OSError]
    assert world.registry.in_flight == 0
    await world.registry.drain()
    with pytest.raises(StoreError):
        world.ask(4)
    assert sizes(world) == []  # nothing is sent any more


@virtual
async def test_a_batch_that_can_not_be_sent_breaks_it_too(monkeypatch):
    world = await opened(BATCH_ENTRIES_EARLY)

    def unsendable(*_):
        raise OverflowError("too large for the wire")

    monkeypatch.setattr(world.store, "append", unsendable)
    loan_ids = range(1, BATCH_ENTRIES_EARLY + 1)
    asked = [world.ask(loan_id, world.repay(f"t{loan_id}", 100)) for loan_id in loan_ids]
    monkeypatch.undo()
    with pytest.raises(StoreError):  # a later batch must not reach the journal without it
        world.ask(1, world.repay("u", 100))
    await world.quiet()
    assert all(isinstance(each.answer, StoreError) for each in asked)
    assert [type(error) for error in world.broken] == [OverflowError]
    assert sizes(world) == []


@virtual
async def test_a_reply_that_makes_no_sense_stops_the_service_too():
    world = await opened(1)
    asked = world.ask(1, world.repay("t", 100))
    await turns()
    _, future = world.store.appends.popleft()
    future.set_result(AppendReply(1, 0, (Verdict(7, "taken"),)))
    await world.quiet()
    assert isinstance(asked.answer, StoreError)
    assert len(world.broken) == 1


# Projections that lag ----------------------------------------------------------------------------


@virtual
async def test_while_projections_lag_nothing_is_taken_until_they_have_caught_up():
    world = World(msgspec.structs.replace(WIDE, tail_events=4))
    world.lend(1)
    world.open()
    for number in range(3):
        asked = world.ask(1, world.repay(f"t{number}", 100))
        await world.quiet()
        assert isinstance(asked.answer, Accepted)
    for _ in range(2):
        with pytest.raises(Overloaded, match="projections lag"):
            world.ask(1)
    assert world.registry.in_flight == 0
    await asyncio.sleep(1.0)
    assert world.disk.projected_seq == world.disk.head_seq
    view = world.ask(1)
    await world.quiet()
    assert isinstance(view.answer, View)


@virtual
async def test_a_batch_that_the_disk_had_no_room_for_is_unknown_and_the_service_goes_on():
    world = await opened(3)
    first = world.ask(1, world.repay("t1", 100))
    await turns()
    on_top = world.ask(1, world.repay("t2", 100))  # in a second batch, decided on the first
    beside = world.ask(2, world.repay("t3", 100))
    await turns()
    queued = world.ask(1, world.repay("t4", 100))
    await turns()
    assert sizes(world) == [1, 2]
    world.store.lose_append()
    await world.quiet()
    for lost in (first, on_top, beside, queued):
        assert isinstance(lost.answer, StoreError)
        assert "the outcome is unknown" in str(lost.answer)
    assert not world.broken
    again = [
        world.ask(each.loan_id, world.repay(f"t{number}", 100))
        for number, each in enumerate((first, on_top, beside, queued), 1)
    ]
    await world.quiet()
    assert all(isinstance(each.answer, Accepted) for each in again)
    assert [event.version for event in world.events() if event.loan_id == 1] == [1, 2, 3, 4]


@virtual
async def test_what_is_durable_is_answered_though_a_later_batch_is_lost():
    world = await opened(1)
    durable = world.ask(1, world.repay("t1", 100))
    await turns()
    world.store.process_append()
    lost = world.ask(1, world.repay("t2", 100))
    await turns()
    world.store.lose_append()
    await world.quiet()
    assert isinstance(durable.answer, Accepted)
    assert isinstance(lost.answer, StoreError)
    seen = world.ask(1)
    await world.quiet()
    assert isinstance(seen.answer, View)
    assert seen.answer.version == 2
