"""Random schedules for the actors: who asks what, when the disk takes a step, when the date moves, when the
store dies. `run_seed` plays one and holds its world to the laws.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any

import msgspec
import pytest

from ledgerd.actors import committer, registry
from ledgerd.actors.messages import Accepted, Overloaded, View
from ledgerd.actors.registry import ActorLimits
from ledgerd.domain.commands import Command, IssueBills, Rejection, Repay
from ledgerd.storage.ports import StoreError
from tests.actors.laws import Laws
from tests.actors.world import BORROWER, METRICS, World, run, turns

STRANGER = 8
MISSING = 99


class Schedule:
    """One world and the chance that plays in it."""

    def __init__(self, seed: int) -> None:
        self.random = chance = Random(seed)
        self.loans = list(range(1, chance.choice((1, 2, 3, 6)) + 1))
        self.some = list(self.loans)  # there from the start
        self.newest = MISSING
        self.ids = [f"t{number}" for number in range(chance.choice((2, 5, 30)))]
        self.amounts = chance.choice(((100, 200), (1, 20_700, 50_000), (100, 30_000, 999_999)))
        self.overtakes = chance.random() < 0.1  # replies may overtake each other
        self.disk_speed = chance.choice((0.2, 0.6, 1.5))
        self.limits = ActorLimits(
            mailbox=chance.choice((3, 30, 100)),
            in_flight=chance.choice((10, 1_000, 1_000, 1_000)),
            resident_loans=chance.choice((1, 4, 8, 100)),
            resident_idle_s=60.0,
            tail_events=chance.choice((10, 1_000)),
        )
        self.kinds = chance.choices(
            (
                *(self.pay, self.retry, self.look, self.bill),
                *(self.lend_again, self.lend_elsewhere, self.err, self.close_and_err),
            ),
            (50, 15, 10, 8, 6, 1, 2, 4),
            k=200,
        )
        self.world = World(self.limits)
        self.overloads: Counter[str] = Counter()

    async def play(self) -> None:
        """History, then some steps at random, then rest."""
        world, chance = self.world, self.random
        for loan_id in self.loans:
            world.lend(loan_id, chance.choice((500, 100_000)), chance.choice((BORROWER, BORROWER, STRANGER)))
        for _ in range(chance.randrange(4)):
            self.write_old_payment()
        if chance.random() < 0.7:
            world.store.project()
        world.open()
        steps = (self.ask, self.disk, self.turn, self.project, self.day, self.wait, self.hang_up, self.die)
        weights = (50, 40 * self.disk_speed, 20, chance.choice((0.3, 4)), 2, 1, 1, 0.2)
        for step in chance.choices(steps, weights, k=chance.randrange(20, 110)):
            await step()
            assert world.registry.resident <= self.limits.resident_loans
        await world.quiet()
        await self.see_all_again()

    # What is asked -------------------------------------------------------------------------------

    async def ask(self) -> None:
        for _ in range(self.random.choice((1, 1, 1, 4))):
            self.random.choice(self.kinds)()

    def send(
        self, loan_id: int, command: Command | None, borrower_id: int | None = None, **how: bool
    ) -> None:
        """Ask; when a limit refuses it, see that the limit is reached."""
        world, limits = self.world, self.limits
        waiting = len(world.waiting)
        there = sum(asked.loan_id == loan_id for asked in world.waiting)
        assert world.registry.in_flight == waiting
        overload = ""
        try:
            world.ask(loan_id, command, borrower_id, **how)
        except Overloaded as refused:
            overload = str(refused)
            self.overloads[overload] += 1
        actors = world.registry._actors.values()
        reached = {
            "too much in flight": waiting >= limits.in_flight,
            "the loan's mailbox is full": there >= limits.mailbox,
            "projections lag behind": world.registry.committer.lag_events >= limits.tail_events,
            "as many loans are busy as may be resident": len(actors) == limits.resident_loans
            and not any(actor.idle for actor in actors),
            "": waiting < limits.in_flight and there < limits.mailbox,
        }
        assert reached[overload]

    def loan(self) -> int:
        return self.random.choice(self.some) if self.random.random() < 0.9 else self.newest

    def amount(self, loan_id: int) -> int:
        """Small, too large, or exactly what closes the loan as the disk has it."""
        loan = self.world.disk.load(loan_id).loan if self.random.random() < 0.04 else None
        payoff = loan.payoff_paise(self.world.clock.today()) if loan else 0
        return payoff or self.random.choice(self.amounts)

    def pay(self) -> None:
        chance, loan_id = self.random, self.loan()
        payer = chance.choice((None, None, None, None, BORROWER, BORROWER, STRANGER))
        caller = "c:1" if payer is None else f"b:{payer}"
        bill = chance.choice((None, None, None, None, None, None, 1, 2))
        amount = self.amount(loan_id)
        self.send(loan_id, self.world.repay(chance.choice(self.ids), amount, caller, payer, bill))

    def retry(self) -> None:
        """Send an earlier payment again, its outcome known or not."""
        if self.world.asked:
            asked = self.random.choice(self.world.asked)
            if isinstance(asked.command, Repay):
                again = msgspec.structs.replace(asked.command, payment_id=self.world.serial())
                self.send(asked.loan_id, again)

    def err(self) -> None:
        self.send(self.loan(), self.world.bug(self.random.choice(self.ids)))

    def close_and_err(self) -> None:
        """Close a loan, and send what is a bug only if that payment did not count, with more behind it."""
        loan_id = self.random.choice(self.some)
        loan = self.world.disk.load(loan_id).loan
        assert loan is not None
        payoff = loan.payoff_paise(self.world.clock.today())
        counted = [a.command for a in self.world.asked if isinstance(a.answer, Accepted) and a.answer.count]
        taken = [command.transaction_id for command in counted if isinstance(command, Repay)]
        if not taken or not payoff:
            return
        self.send(loan_id, self.world.repay(self.random.choice(taken), payoff))
        for _ in range(2):
            self.send(loan_id, self.world.bug(f"u{self.world.serial()}"))
            self.send(loan_id, self.world.repay(f"u{self.world.serial()}", 100))

    def look(self) -> None:
        self.send(self.loan(), None, self.random.choice((None, BORROWER)))

    def bill(self) -> None:
        through = self.world.clock.today() - self.random.choice((0, 0, 10))
        self.send(self.loan(), IssueBills(through), transient=self.random.random() < 0.8)

    def lend_again(self) -> None:
        """Apply for a loan of a new id, under a key that may be another's."""
        chance, loan_id = self.random, len(self.loans) + 1
        command = self.world.disburse(
            chance.choice((500, 100_000)), chance.choice((None, None, "k0", "k1")), BORROWER
        )
        self.send(loan_id, command, new=True)
        if self.world.asked and self.world.asked[-1].command is command:
            self.loans.append(loan_id)
            self.newest = loan_id

    def lend_elsewhere(self) -> None:
        """A bug: lend under the id of a loan that is there already."""
        self.send(self.random.choice(self.loans), self.world.disburse(500, None))

    def write_old_payment(self) -> None:
        world = self.world
        command = world.repay(self.random.choice(self.ids), self.random.choice((1, 100)))
        world.store.project()
        used = world.disk.connection.execute("SELECT 1 FROM events WHERE once_key = ?", (command.once_key,))
        if not used.fetchone():
            world.write(self.random.choice(self.loans), command)

    async def see_all_again(self) -> None:
        """Nothing holds anything back any more: each loan shows itself, and is then forgotten."""
        world = self.world
        if world.registry.committer.lag_events >= self.limits.tail_events:
            with pytest.raises(Overloaded):
                world.ask(self.loans[0])
            await asyncio.sleep(1.0)
        for loan_id in self.loans:
            asked = world.ask(loan_id)
            for _ in range(10):
                world.store.all_steps()
                await asyncio.sleep(0)
            assert isinstance(asked.answer, View | Rejection)

    # What happens --------------------------------------------------------------------------------

    async def disk(self) -> None:
        store, chance = self.world.store, self.random
        steps = [step for step, ready in self.disk_steps().items() if ready]
        if not steps:
            return
        step = chance.choice(steps)
        if step == "process append":
            store.process_append()
        elif step == "process load":
            store.load_failure = StoreError("not now") if chance.random() < 0.03 else None
            store.process_load(chance.randrange(len(store.loads)))
            store.load_failure = None
        else:
            ready = range(len(store.replies)) if self.overtakes else store.next_replies()
            store.deliver(chance.choice(ready))
        await turns(chance.randrange(4))

    def disk_steps(self) -> dict[str, Any]:
        store = self.world.store
        return {"process append": store.appends, "process load": store.loads, "deliver": store.replies}

    async def turn(self) -> None:
        await turns(self.random.choice((1, 2, 5)))

    async def project(self) -> None:
        self.world.store.project()

    async def day(self) -> None:
        self.world.set_day(self.world.clock.today() + self.random.choice((1, 14, 30, 46)))

    async def wait(self) -> None:
        """Long enough for idle loans to be forgotten."""
        await asyncio.sleep(self.random.choice((1.0, 100.0)))

    async def hang_up(self) -> None:
        if self.world.waiting:
            asked = self.random.choice(self.world.waiting)
            assert asked.future is not None
            asked.future.cancel()

    async def die(self) -> None:
        self.world.restart(self.random.randrange(3))
        await turns(self.random.choice((0, 3)))


def run_seed(seed: int) -> Counter[str]:
    """Play one schedule and return what it saw; raises (AssertionError, mostly) when a law is broken."""

    async def play() -> Counter[str]:
        fallbacks = _fallbacks()
        schedule = Schedule(seed)
        world = schedule.world
        try:
            await schedule.play()
            laws = Laws(world)
            laws.check()
            assert len(set(world.broken_by)) == len(world.broken_by), "a journal breaks once"
            assert len(world.registries) - 1 not in world.broken_by, world.broken
            await asyncio.sleep(200.0)
            assert world.registry.resident == 0
        finally:
            world.close()
        laws.counts.update(schedule.overloads)
        laws.counts.update(messages=len(world.asked), fallbacks=_fallbacks() - fallbacks)
        return laws.counts

    with pytest.MonkeyPatch.context() as patch:
        chance = Random(f"limits of {seed}")
        patch.setattr(registry, "MESSAGES_A_TURN", chance.choice((1, 3, 64)))
        patch.setattr(registry, "LOAD_LOANS_MAX", chance.choice((1, 2, 500)))
        patch.setattr(committer, "BATCH_ENTRIES_MAX", chance.choice((1, 4, 2_000)))
        patch.setattr(committer, "BATCHES_IN_FLIGHT", chance.choice((1, 2, 2, 4)))
        patch.setattr(committer, "BATCH_ENTRIES_EARLY", chance.choice((1, 3, 16, 2_000)))
        counts: Counter[str] = run(play())
    return counts


def _fallbacks() -> int:
    return int(next(iter(METRICS.fallbacks_total.collect())).samples[0].value)
