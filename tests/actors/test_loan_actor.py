"""One loan's actor: duplicates, falling back, and what it does after a bug."""

from __future__ import annotations

import msgspec
import pytest

from ledgerd.actors import loan_actor
from ledgerd.actors.committer import BATCH_ENTRIES_EARLY, BATCHES_IN_FLIGHT
from ledgerd.actors.loan_actor import OWNERS_MAX, LoanActor
from ledgerd.actors.messages import Accepted, ActorFailed, Replayed, View
from ledgerd.domain.commands import IssueBills, Rejection
from ledgerd.storage.ports import StoredEvent
from tests.actors.laws import Laws
from tests.actors.world import BORROWER, METRICS, START, World, turns, virtual

CONFLICT = Rejection("transaction-id-conflict")


def opened(*amounts_paise: int) -> World:
    """A world with loans 1, 2 .. of these amounts."""
    world = World()
    for loan_id, amount_paise in enumerate(amounts_paise, 1):
        world.lend(loan_id, amount_paise)
    world.open()
    return world


async def warm(world: World, *loan_ids: int) -> None:
    for loan_id in loan_ids:
        world.ask(loan_id)
    await world.quiet()


def rows(world: World, kind: str = "paid") -> int:
    return sum(event.kind == kind for event in world.events())


# Duplicates --------------------------------------------------------------------------------------


@virtual
async def test_sixty_identical_payments_are_one():
    world = opened(100_000)
    same = [world.ask(1, world.repay("t", 100)) for _ in range(60)]
    await world.quiet()
    kinds = [type(asked.answer) for asked in same]
    assert kinds == [Accepted] + [Replayed] * 59
    assert len({asked.answer.event.payment_id for asked in same}) == 1
    assert rows(world) == 1
    assert len(world.store.load_sizes) == 1
    Laws(world).check()


@virtual
async def test_one_id_raced_on_two_loans_counts_on_one():
    world = opened(100_000, 100_000)
    await warm(world, 1, 2)
    first, second = world.ask(1, world.repay("t", 100)), world.ask(2, world.repay("t", 100))
    await world.quiet()
    assert isinstance(first.answer, Accepted)
    assert second.answer == CONFLICT
    assert rows(world) == 1
    Laws(world).check()


@virtual
async def test_two_callers_ids_are_their_own():
    world = opened(100_000)
    both = [world.ask(1, world.repay("t", 100, caller)) for caller in ("c:1", "b:7")]
    await world.quiet()
    assert [type(asked.answer) for asked in both] == [Accepted, Accepted]


@virtual
async def test_an_id_with_another_amount_conflicts_in_flight_in_memory_and_in_the_index():
    world = opened(100_000)
    world.ask(1, world.repay("t", 100))
    others = [world.ask(1, world.repay("t", 200))]
    await world.quiet()
    others.append(world.ask(1, world.repay("t", 200)))
    await world.quiet()
    world.store.project()
    others.append(world.ask(1, world.repay("t", 200)))
    await world.quiet()
    assert [asked.answer for asked in others] == [CONFLICT] * 3
    assert rows(world) == 1
    Laws(world).check()


@virtual
async def test_owners_are_learnt_up_to_a_limit():
    world = opened(100_000)
    actor = LoanActor(world.registry, 1)
    for number in range(1, 2 * OWNERS_MAX + 2):
        key = number.to_bytes(8, "big")
        actor.learn(StoredEvent(number, 2, number, "paid", key, b"", b""))
        assert key in actor._owners
        assert len(actor._owners) <= OWNERS_MAX


@pytest.mark.parametrize("most", [1, 2, 5])
@virtual
async def test_an_owner_that_was_forgotten_is_asked_for_again(monkeypatch: pytest.MonkeyPatch, most: int):
    monkeypatch.setattr(loan_actor, "OWNERS_MAX", most)
    world = World()
    world.lend(1, 100_000)
    world.lend(2, 100_000)
    for number in range(9):
        world.write(2, world.repay(f"t{number}", 100))
    world.open()
    await warm(world, 1)
    others = [world.ask(1, world.repay(f"t{number % 9}", 100)) for number in range(27)]
    own = world.ask(1, world.repay("own", 100))
    await world.quiet()
    assert [asked.answer for asked in others] == [CONFLICT] * 27
    assert isinstance(own.answer, Accepted)
    assert rows(world) == 10
    Laws(world).check()


@virtual
async def test_the_payment_that_closed_the_loan_is_replayed_not_refused():
    world = opened(100_000)
    closing = world.ask(1, world.repay("last", 100_000))
    await world.quiet()
    world.store.project()
    retries = [world.ask(1, world.repay("last", 100_000)) for _ in range(2)]
    other_amount, other_id = world.ask(1, world.repay("last", 99)), world.ask(1, world.repay("x", 99))
    await world.quiet()
    assert isinstance(closing.answer, Accepted)
    assert [asked.answer for asked in retries] == [Replayed(1, closing.answer.event)] * 2
    assert other_amount.answer == CONFLICT
    assert other_id.answer == Rejection("loan-closed")
    Laws(world).check()


@virtual
async def test_a_refused_payment_does_not_use_its_id_up():
    world = opened(100_000)
    too_much = world.ask(1, world.repay("t", 100_001))
    fits = world.ask(1, world.repay("t", 100_000))
    await world.quiet()
    assert too_much.answer == Rejection("amount-exceeds-payoff", payoff_paise=100_000)
    assert isinstance(fits.answer, Accepted)


@virtual
async def test_another_borrowers_loan_is_not_found_before_anything_is_looked_up():
    world = opened(100_000, 100_000)
    world.ask(2, world.repay("t", 100, "b:8"))
    await world.quiet()
    asked = world.ask(1, world.repay("t", 100, "b:8", borrower_id=8))
    look = world.ask(1, None, 8)
    await turns()
    assert asked.answer is None  # loan 1 is not read yet
    world.store.process_load()
    world.store.deliver()
    await turns()
    assert asked.answer == look.answer == Rejection("loan-not-found")
    assert not world.store.appends


# Ahead of the disk -------------------------------------------------------------------------------


@virtual
async def test_nothing_is_answered_before_what_it_was_decided_on_is_durable():
    world = opened(100_000)
    await warm(world, 1)
    asked = [
        world.ask(1, world.repay("t", 60_000)),
        world.ask(1, world.repay("t", 60_000)),
        world.ask(1, world.repay("u", 60_000)),  # refused only after the first
        world.ask(1),
        world.ask(1, IssueBills(START)),
    ]
    await turns()
    assert [each.answer for each in asked] == [None] * 5
    world.store.process_append()
    await turns()
    assert [each.answer for each in asked] == [None] * 5  # durable, but nobody heard
    world.store.deliver()
    await turns()
    first, again, refused, view, bills = (each.answer for each in asked)
    assert isinstance(first, Accepted)
    assert again == Replayed(1, first.event)
    assert refused == Rejection("amount-exceeds-payoff", payoff_paise=40_000)
    assert isinstance(view, View)
    assert (view.loan.principal_paise, view.version) == (40_000, 2)
    assert bills == Accepted(1, None, 0)


@virtual
async def test_payments_are_decided_ahead_and_go_to_disk_together():
    world = opened(100_000)
    await warm(world, 1)
    asked = [world.ask(1, world.repay(f"t{number}", 100)) for number in range(100)]
    await turns()
    early = [len(entries) for entries, _ in world.store.appends]
    assert early == [BATCH_ENTRIES_EARLY] * BATCHES_IN_FLIGHT
    world.store.process_append()
    world.store.deliver()
    await turns()
    assert [len(entries) for entries, _ in world.store.appends] == [*early[1:], 100 - sum(early)]
    await world.quiet()
    left = [each.answer.event.outstanding_principal_paise for each in asked]
    assert left == list(range(99_900, 89_999, -100))


@virtual
async def test_reads_and_refusals_write_nothing():
    world = opened(100_000)
    world.set_day(START + 100)
    head = world.disk.head_seq
    asked = [world.ask(1), world.ask(1, world.repay("t", 10**9)), world.ask(1, IssueBills(START))]
    await world.quiet()
    assert isinstance(asked[0].answer, View)
    assert len(asked[0].answer.issued) == 3
    assert world.disk.head_seq == head
    Laws(world).check()


# Falling back ------------------------------------------------------------------------------------


@virtual
async def test_what_was_decided_on_a_taken_payment_is_decided_again_in_order():
    world = World()
    world.lend(1, 100_000)
    world.lend(2, 100_000)
    world.write(2, world.repay("t", 60_000))
    world.store.project()
    world.open()
    await warm(world, 1)
    taken = world.ask(1, world.repay("t", 60_000))
    behind = [world.ask(1, world.repay("u", 60_000)), world.ask(1), world.ask(1, world.repay("v", 60_000))]
    await world.quiet()
    assert taken.answer == CONFLICT
    assert isinstance(behind[0].answer, Accepted)  # was refused, while "t" seemed to count
    assert isinstance(behind[1].answer, View)
    assert behind[1].answer.loan.principal_paise == 40_000
    assert behind[2].answer == Rejection("amount-exceeds-payoff", payoff_paise=40_000)
    Laws(world).check()


@virtual
async def test_a_new_loan_whose_key_is_taken_leaves_nothing_behind():
    world = World()
    world.write(1, world.disburse(100_000, "key"))
    world.open()
    same, other = world.disburse(100_000, "key"), world.disburse(200_000, "key")
    replayed, conflict = world.ask(2, same, new=True), world.ask(3, other, new=True)
    behind = world.ask(2)
    await world.quiet()
    assert isinstance(replayed.answer, Replayed)
    assert replayed.answer.loan_id == 1
    assert conflict.answer == Rejection("idempotency-key-conflict")
    assert behind.answer == Rejection("loan-not-found")
    assert world.registry.resident == 0
    Laws(world).check()


@virtual
async def test_a_storm_of_retries_is_decided_again_once_a_batch_not_once_a_payment():
    world = opened(10_000_000)
    first = [world.ask(1, world.repay(f"t{number}", 100)) for number in range(2_500)]
    await world.quiet()
    before = METRICS.registry.get_sample_value("ledgerd_fallbacks_total")
    retries = [world.ask(1, world.repay(f"t{number}", 100)) for number in range(2_500)]
    await world.quiet()
    assert [each.answer for each in retries] == [Replayed(1, each.answer.event) for each in first]
    assert METRICS.registry.get_sample_value("ledgerd_fallbacks_total") - before == 2


# Bugs --------------------------------------------------------------------------------------------


@virtual
async def test_a_bug_is_its_callers_alone():
    world = opened(100_000, 100_000)
    await warm(world, 1, 2)
    before, view = world.ask(1, world.repay("t", 100)), world.ask(1)
    bug = world.ask(1, world.bug("u"))
    after, elsewhere = world.ask(1, world.repay("v", 200)), world.ask(2, world.repay("w", 300))
    assert isinstance(bug.answer, ActorFailed)
    await world.quiet()
    assert isinstance(before.answer, Accepted)
    assert isinstance(view.answer, View)
    assert view.answer.loan.principal_paise == 99_900
    assert isinstance(after.answer, Accepted)
    assert after.answer.event.outstanding_principal_paise == 99_700
    assert isinstance(elsewhere.answer, Accepted)
    assert world.store.load_sizes == [2, 1]  # both, and the first again
    Laws(world).check()


@virtual
async def test_after_a_bug_the_state_is_that_of_the_disk():
    world = opened(100_000)
    await warm(world, 1)
    actor = world.registry._actors[1]
    actor.loan = msgspec.structs.replace(actor.loan, unpaid_bills=None)  # how it came to be, nobody knows
    bug = world.ask(1, world.repay("t", 100))
    after = world.ask(1, world.repay("t", 100))
    await world.quiet()
    assert isinstance(bug.answer, ActorFailed)
    assert isinstance(after.answer, Accepted)
    Laws(world).at_rest()


@virtual
async def test_what_waits_behind_a_bug_is_decided_even_if_all_before_it_were_replays():
    world = opened(100_000)
    world.ask(1, world.repay("t", 100))
    await world.quiet()
    retry = world.ask(1, world.repay("t", 100))
    bug = world.ask(1, world.bug("u"))
    after = world.ask(1, world.repay("v", 100))
    await world.quiet()
    assert isinstance(retry.answer, Replayed)
    assert isinstance(bug.answer, ActorFailed)
    assert isinstance(after.answer, Accepted)
    Laws(world).check()


@virtual
async def test_a_bug_while_deciding_again_drops_nothing():
    world = World()
    world.lend(1, 100_000)
    world.lend(2, 100_000)
    world.write(2, world.repay("t", 100))
    world.open()
    await warm(world, 1)
    asked = [
        world.ask(1, world.repay("t", 100_000)),  # seems to close the loan ..
        world.ask(1, world.bug("u")),  # .. so that this is refused; then it is a bug
        world.ask(1, world.repay("v", 100)),
        world.ask(1, None, BORROWER),
    ]
    await world.quiet()
    assert asked[0].answer == CONFLICT
    assert isinstance(asked[1].answer, ActorFailed)
    assert isinstance(asked[2].answer, Accepted)
    assert isinstance(asked[3].answer, View)
    assert asked[3].answer.loan.principal_paise == 99_900
    assert world.broken == []
    Laws(world).check()
