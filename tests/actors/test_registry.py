"""The registry: limits, coming and going of loans, and stopping."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import msgspec
import pytest

from ledgerd.actors.messages import Accepted, Overloaded, Replayed, View
from ledgerd.actors.registry import FORGOTTEN_A_TURN
from ledgerd.domain.commands import IssueBills, Rejection
from ledgerd.metrics import Trace
from ledgerd.storage.ports import StoreError
from ledgerd.storage.room import Room
from tests.actors.laws import Laws
from tests.actors.world import METRICS, START, WIDE, VirtualLoop, World, turns, virtual

OVERLOADED = {"outcome": "overloaded"}


def opened(loans: int, **limits: float) -> World:
    """A world with loans 1, 2 .."""
    world = World(msgspec.structs.replace(WIDE, **limits))
    for loan_id in range(1, loans + 1):
        world.lend(loan_id)
    world.open()
    return world


async def warm(world: World, *loan_ids: int) -> None:
    for loan_id in loan_ids:
        world.ask(loan_id)
        await world.quiet()


def resident(world: World) -> list[int]:
    return list(world.registry._actors)


# Limits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cold", [True, False])
@virtual
async def test_a_full_mailbox_takes_nothing_more(cold: bool):
    world = opened(2, mailbox=3)
    if not cold:
        await warm(world, 1, 2)
    for number in range(3):
        world.ask(1, world.repay(f"t{number}", 100))
    with pytest.raises(Overloaded, match="mailbox"):
        world.ask(1, world.repay("t3", 100))
    actor = world.registry._actors[1]
    assert len(actor.mailbox) + len(actor.pending) == world.registry.in_flight == 3
    world.ask(2)
    await world.quiet()
    assert not world.waiting
    assert sum(event.kind == "paid" for event in world.events()) == 3
    world.ask(1, world.repay("t3", 100))
    await world.quiet()
    Laws(world).check()


@virtual
async def test_so_much_in_flight_and_no_more():
    world = opened(3, in_flight=2)
    world.ask(1), world.ask(2)
    with pytest.raises(Overloaded, match="in flight"):
        world.ask(3)
    assert resident(world) == [1, 2]
    await world.quiet()
    world.ask(3)


@virtual
async def test_without_room_on_the_disk_what_counted_is_replayed_and_nothing_else_counts():
    free = [10]
    world = opened(1)
    world.registry.room = Room(10, lambda: free[0])
    world.ask(1, world.repay("t1", 100))
    await world.quiet()
    free[0] = 9
    assert world.registry.room.look()
    again = world.ask(1, world.repay("t1", 100))
    new = world.ask(1, world.repay("t2", 100))
    too_much = world.ask(1, world.repay("t3", 10**9))
    applied = world.ask(2, world.disburse(100, "key"), new=True)
    world.clock.set(START + 30)
    due = world.ask(1, IssueBills(START + 30))
    seen = world.ask(1)
    await world.quiet()
    assert isinstance(again.answer, Replayed)
    assert new.answer == applied.answer == due.answer == Rejection("storage-full")
    assert isinstance(too_much.answer, Rejection)
    assert too_much.answer.code == "amount-exceeds-payoff"
    assert isinstance(seen.answer, View)
    assert len(world.events()) == 2
    free[0] = 10
    assert world.registry.room.look()
    later = world.ask(1, world.repay("t2", 100))
    await world.quiet()
    assert isinstance(later.answer, Accepted)


@virtual
async def test_room_for_many_is_looked_at_before_any_is_put():
    world = opened(2, mailbox=3, in_flight=5)
    check_room = world.registry.check_room
    check_room([1, 2, 1, 2, 1])
    with pytest.raises(Overloaded, match="mailbox"):
        check_room([1, 1, 1, 1])
    with pytest.raises(Overloaded, match="in flight"):
        check_room([1, 2, 3, 4, 5, 6])
    world.ask(1, world.repay("t", 100))
    check_room([1, 1, 2, 2])
    with pytest.raises(Overloaded, match="mailbox"):
        check_room([1, 1, 1])
    with pytest.raises(Overloaded, match="in flight"):
        check_room([1, 1, 2, 2, 2])
    await world.quiet()
    check_room([1, 1, 1])
    check_room([])
    assert resident(world) == [1]


@virtual
async def test_when_all_that_may_be_resident_are_busy_another_has_to_wait():
    world = opened(3, resident_loans=2)
    await warm(world, 1)
    world.ask(1, world.repay("t", 100))
    world.ask(2)
    with pytest.raises(Overloaded, match="busy"):
        world.ask(3)
    assert world.registry.in_flight == 2
    assert resident(world) == [1, 2]
    world.ask(1)  # who is there is still heard
    await world.quiet()
    world.ask(3)
    await world.quiet()
    Laws(world).check()


# Coming and going --------------------------------------------------------------------------------


@virtual
async def test_the_idle_loan_that_was_asked_least_recently_makes_room():
    world = opened(5, resident_loans=3)
    await warm(world, 1, 2, 3)
    await warm(world, 1)
    world.ask(2, world.repay("t", 100))  # busy, and older than 1
    await warm(world, 4)
    assert resident(world) == [1, 2, 4]
    world.ask(2, world.repay("u", 100))
    await turns()
    world.ask(5)
    assert resident(world) == [4, 2, 5]


@virtual
async def test_loans_that_nobody_asks_for_are_forgotten():
    world = opened(3, resident_idle_s=100.0)
    await warm(world, 1, 2, 3)
    await asyncio.sleep(60)
    world.ask(1)
    busy = world.ask(2, world.repay("t", 100))
    await turns()
    await asyncio.sleep(70)
    assert resident(world) == [1, 2]
    await asyncio.sleep(1_000)
    assert resident(world) == [2]  # still waits for the disk
    assert busy.answer is None
    await world.quiet()
    await asyncio.sleep(200)
    assert resident(world) == []
    world.registry.close()


@virtual
async def test_many_idle_loans_are_forgotten_a_few_a_turn():
    many = 2 * FORGOTTEN_A_TURN + 200
    world = opened(0, resident_idle_s=100.0)
    for loan_id in range(1, many + 1):
        world.ask(loan_id, world.disburse(100, None), new=True)
    await world.quiet()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.now_s += 200.0
    left = [world.registry.resident]
    while left[-1]:
        await turns(1)
        left.append(world.registry.resident)
    assert left[0] == many
    assert max(before - after for before, after in pairwise(left)) == FORGOTTEN_A_TURN


@virtual
async def test_a_thousand_cold_loans_are_read_in_two_goes():
    world = opened(1_000)
    asked = [world.ask(loan_id) for loan_id in range(1, 1_001)]
    await turns()
    assert world.store.load_sizes == [500, 500]
    await world.quiet()
    assert all(isinstance(each.answer, View) for each in asked)
    assert world.store.load_sizes == [500, 500]


@virtual
async def test_a_loan_that_does_not_exist_takes_no_room():
    world = opened(1, resident_loans=1)
    for command in (None, world.repay("t", 100), IssueBills(START)):
        asked = world.ask(99, command)
        await world.quiet()
        assert asked.answer in (Rejection("loan-not-found"), Accepted(99, None, 0))
        assert resident(world) == []


@virtual
async def test_a_failed_load_fails_its_messages_and_is_forgotten():
    world = opened(1)
    world.store.load_failure = OSError("bad sector")
    failed = [world.ask(1), world.ask(1, world.repay("t", 100))]
    await world.quiet()
    assert all(isinstance(each.answer, StoreError) for each in failed)
    assert resident(world) == []
    world.store.load_failure = None
    again = world.ask(1, world.repay("t", 100))
    await world.quiet()
    assert isinstance(again.answer, Accepted)
    assert world.broken == []


@virtual
async def test_a_loan_that_is_only_billed_is_forgotten_at_once():
    world = opened(2)
    world.set_day(START + 30)
    billed, idle = (
        world.ask(1, IssueBills(START + 30), transient=True),
        world.ask(2, IssueBills(START), transient=True),
    )
    await world.quiet()
    assert (billed.answer.count, idle.answer.count) == (1, 0)
    assert resident(world) == []


@pytest.mark.parametrize("when", ["while it loads", "while it commits", "before"])
@virtual
async def test_a_billed_loan_that_somebody_else_asks_for_stays(when: str):
    world = opened(1)
    world.set_day(START + 30)
    if when == "before":
        await warm(world, 1)
    billed = world.ask(1, IssueBills(START + 30), transient=True)
    if when == "while it commits":
        await turns()
        world.store.process_load()
        world.store.deliver()
        await turns()
    if when != "before":
        world.ask(1)
    await world.quiet()
    assert billed.answer.count == 1
    assert resident(world) == [1]


# What is counted ---------------------------------------------------------------------------------


def counted(name: str, **labels: str) -> float:
    return METRICS.registry.get_sample_value(name, labels) or 0.0


@virtual
async def test_comings_and_goings_are_counted():
    def now() -> list[float]:
        gone = [counted("ledgerd_passivations_total", reason=why) for why in ("idle", "room", "done")]
        return [counted("ledgerd_activations_total"), *gone]

    before = now()
    world = opened(3, resident_loans=2, resident_idle_s=100.0)
    await warm(world, 1, 2, 3)
    world.ask(99)  # does not exist, and takes another's place
    await world.quiet()
    world.ask(50, world.disburse(100, None), new=True)  # is not read
    await world.quiet()
    await asyncio.sleep(1_000)
    assert resident(world) == []
    assert [after - then for after, then in zip(now(), before, strict=True)] == [4, 2, 2, 1]
    world.registry.close()


@virtual
async def test_the_deepest_mailbox_is_found_wherever_it_is():
    world = opened(4)
    await warm(world, 1, 2, 3)
    assert world.registry.deepest == 0
    for number in range(3):
        world.ask(2, world.repay(f"t{number}", 100))
    world.ask(1, world.repay("one", 100))
    world.ask(4, world.repay("cold", 100))
    assert (world.registry.in_flight, world.registry.deepest) == (5, 3)
    for number in range(4):
        world.ask(4, world.repay(f"u{number}", 100))
    assert world.registry.deepest == 5
    await world.quiet()
    assert world.registry.deepest == 0


@pytest.mark.parametrize(
    ("limit", "limits"),
    [
        ("mailbox", {"mailbox": 1}),
        ("in_flight", {"in_flight": 1}),
        ("resident_loans", {"resident_loans": 1}),
        ("tail_events", {"tail_events": 0}),
    ],
)
@virtual
async def test_who_is_refused_at_a_limit_is_counted_under_its_name(limit: str, limits: dict[str, int]):
    world = opened(2, **limits)
    if limit != "tail_events":
        world.ask(1)
    before = [
        counted("ledgerd_overloaded_total", limit=limit),
        counted("ledgerd_payments_total", **OVERLOADED),
    ]
    with pytest.raises(Overloaded):
        world.ask(2 if limit == "resident_loans" else 1, world.repay("t", 100))
    after = [
        counted("ledgerd_overloaded_total", limit=limit),
        counted("ledgerd_payments_total", **OVERLOADED),
    ]
    assert after == [each + 1 for each in before]


# What is timed -----------------------------------------------------------------------------------


@virtual
async def test_a_trace_is_stamped_as_its_payment_goes():
    world = opened(1)
    cold, warm, started_s = Trace(1.0), Trace(1.0), METRICS.now_s()
    world.ask(1, world.repay("t", 100), trace=cold)
    await world.quiet()
    world.ask(1, world.repay("u", 100), trace=warm)
    assert (warm.received_s, warm.durable_s) == (0.0, 0.0)  # decided at once, and not on disk
    await world.quiet()
    assert started_s < cold.received_s < cold.decided_s < cold.durable_s < warm.decided_s < warm.durable_s
    assert warm.received_s == 0.0


@virtual
async def test_all_of_a_batch_share_the_stamp_of_its_acknowledgement():
    world = opened(3)
    await warm(world, 1, 2, 3)
    traces = [Trace(1.0) for _ in range(3)]
    for loan_id, trace in enumerate(traces, 1):
        world.ask(loan_id, world.repay(f"t{loan_id}", 100), trace=trace)
    await world.quiet()
    assert {trace.durable_s for trace in traces} == {world.registry.committer.acknowledged_s}


@virtual
async def test_deciding_again_belongs_to_the_commit():
    world = opened(1)
    world.ask(1, world.repay("t", 100))
    await world.quiet()
    again, behind = Trace(1.0), Trace(1.0)
    asked = [
        world.ask(1, world.repay("t", 100), trace=again),
        world.ask(1, world.repay("u", 100), trace=behind),
    ]
    decided = again.decided_s, behind.decided_s
    await world.quiet()
    assert [type(each.answer) for each in asked] == [Replayed, Accepted]
    assert (again.decided_s, behind.decided_s) == decided
    assert decided[0] < again.durable_s < behind.durable_s


# Who asks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns_later", [0, 3])
@virtual
async def test_a_caller_that_goes_away_has_paid_all_the_same(turns_later: int):
    world = opened(1)
    gone = world.ask(1, world.repay("t", 100))
    await turns(turns_later)
    gone.future.cancel()
    await world.quiet()
    retry = world.ask(1, world.repay("t", 100))
    await world.quiet()
    assert isinstance(gone.answer, Accepted)  # which nobody heard
    assert retry.answer == Replayed(1, gone.answer.event)
    assert world.registry.in_flight == 0


@virtual
async def test_a_long_mailbox_does_not_keep_others_waiting():
    world = opened(2)
    await warm(world, 2)
    crowd = [world.ask(1, world.repay(f"t{number}", 1)) for number in range(4_000)]
    await turns(2)
    world.store.process_load()
    world.store.deliver()
    await turns(2)
    other = world.ask(2, world.repay("other", 100))
    for _ in range(10):
        world.store.all_steps()
        await asyncio.sleep(0)
    assert isinstance(other.answer, Accepted)
    assert len(world.waiting) > 3_000
    await world.quiet()
    assert all(isinstance(each.answer, Accepted) for each in crowd)


# Stopping ----------------------------------------------------------------------------------------


@virtual
async def test_drain_waits_until_all_is_answered():
    world = opened(2)
    await warm(world, 1)
    asked = [world.ask(1, world.repay("t", 100)), world.ask(2), world.ask(1, world.bug("u"))]
    draining = asyncio.ensure_future(world.registry.drain())
    for _ in range(20):
        await turns()
        assert draining.done() == (not world.waiting)
        if world.store.loads:
            world.store.process_load()
        elif world.store.appends:
            world.store.process_append()
        elif world.store.replies:
            world.store.deliver()
    assert draining.done()
    assert all(each.times == 1 for each in asked)
    await world.registry.drain()
