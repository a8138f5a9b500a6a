"""One life of the service: callers, an operator, and everything that goes wrong, all from one seed.

The world is a process of its own that outlives the others. It sends calls and hears answers, kills and starts
the service, and moves the clock on the wall; it knows nothing but what anybody outside can know, and writes
all of it down.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import partial
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

from ledgerd.actors.registry import ActorLimits
from tests.simulation.disk import Disk, Habits
from tests.simulation.machine import Machine
from tests.simulation.service import BUSY, UNKNOWN, Answer, Front, Sizes, Store

DAY_S = 86_400
INDIA_S = 19_800
START_S = 1_767_200_000.0  # in the evening of the last day of 2025
WITHIN_S = 20_000.0  # virtual: everything has its answer by then
NETWORK_S = 0.01
SETTLED_S = 5.0
APPLIED = 201


@dataclass(eq=False)
class Call:
    """One call and its answer, with the machine's steps and the dates between which both lie.

    A new date is shown when it is on disk, so that the wall is ahead of it for a moment: the earliest is what
    was heard before, and once all is quiet what the wall says.
    """

    kind: str
    args: dict[str, Any]
    sent_at: int
    earliest_day: int
    answered_at: int = 0
    latest_day: int = 0
    answer: Answer = UNKNOWN

    @property
    def status(self) -> int:
        return self.answer[0]

    @property
    def body(self) -> dict[str, Any]:
        return self.answer[1]

    @property
    def day(self) -> int:
        """The business date that the answer says it is; 0 when it says none."""
        if self.status == APPLIED and self.kind == "pay":
            return date.fromisoformat(self.body["paid_on"]).toordinal()
        if self.status == APPLIED and self.kind == "apply":
            return int(self.body["disbursed_on"])
        return int(self.body.get("today", 0))


class Wall:
    """The clock on the wall, which people and networks set forward and back."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._offset_s = 0.0
        self.highest_day = self.day()

    def time_s(self) -> float:
        return START_S + self._machine.now_s + self._offset_s

    def day(self) -> int:
        """The date in India, as a day number."""
        return 719_163 + int(self.time_s() + INDIA_S) // DAY_S

    def move(self, seconds: float) -> None:
        self._offset_s += seconds
        self.highest_day = max(self.highest_day, self.day())


class Mix:
    """What a seed does how often."""

    def __init__(self, chance: Random) -> None:
        pick = chance.choice
        self.clients = pick([1, 3, 8])
        self.calls = pick([6, 12, 25])
        self.think_s = pick([0.0, 0.01, 0.2])
        self.loans = pick([1, 2, 5])
        self.events = pick([0, 5, 12])
        self.every_s = pick([0.02, 0.2, 1.0])
        self.impatient = pick([0.0, 0.1])
        self.again = pick([0.0, 0.2, 0.5])
        self.kinds = {kind: pick([0, 1, 3]) for kind in ("kill both", "kill front", "kill store", "stop")}
        self.kinds |= {"forward": pick([1, 4]), "back": pick([0, 2]), "fill": pick([0, 1])}
        self.calls_of = {kind: pick([0, 1, 3]) for kind in ("view", "page", "look_up", "apply")} | {"pay": 6}
        limits = ActorLimits(
            mailbox=pick([2, 8, 4_096]),
            in_flight=pick([3, 64, 8_192]),
            resident_loans=pick([1, 2, 1_000]),
            resident_idle_s=pick([0.02, 5.0, 600.0]),
            tail_events=pick([5, 50, 200_000]),
        )
        self.sizes = Sizes(
            limits=limits,
            slice_events=pick([1, 3, 2_000]),
            index_keys=pick([1, 3, 100_000]),
            window=pick([1, 100]),
        )


class Life:
    """See the module. `live` returns when all is over; `calls` is then the whole of what was said."""

    def __init__(self, seed: int, folder: Path) -> None:
        chance = Random(seed)
        self.counts: Counter[str] = Counter()
        self.machine = Machine(chance)
        self.world = self.machine.process("world")
        self.wall = Wall(self.machine)
        self.mix = Mix(chance)
        self.disk = Disk(self.machine, folder, Habits(self.machine, faulty=self.mix.events > 0), self.counts)
        self.calls: list[Call] = []
        self.heard_day = self.wall.day()
        self._is_settled = False
        self.loans: list[tuple[int, int]] = []  # id, borrower
        self.payoffs: dict[int, int] = {}
        self.front: Front
        self.store: Store
        self._waiting: dict[asyncio.Future[Answer], None] = {}
        self._over = False
        self.disk.on_power_cut = self._cut_power
        self._trace = sha256(str(seed).encode())

    @property
    def trace(self) -> str:
        """What tells two runs of a seed apart."""
        return self._trace.hexdigest()

    def note(self, *what: object) -> None:
        self._trace.update(repr((self.machine.steps, round(self.machine.now_s, 9), *what)).encode())

    def live(self) -> None:
        try:
            self._live()
        finally:
            for process in [*self.machine.processes]:
                process.kill()

    def _live(self) -> None:
        machine, mix = self.machine, self.mix
        first_day = self.wall.day()
        self.start()
        clients = [self.world.begin(self._client()) for _ in range(mix.clients)]
        operator = self.world.begin(self._operate())
        self._until(lambda: operator.done() and all(each.done() for each in clients))
        # Faults have ended: now everything must be answered.
        self.disk.quiet = True
        settling = self.world.begin(self._settle())
        self._until(settling.done)
        for task in (*clients, operator, settling):
            task.result()
        self._over = True
        self.front.stop()
        self._until(lambda: len(machine.processes) == 1)
        self.counts["days"] += self.wall.highest_day - first_day
        self.counts["steps"] += machine.steps
        self.counts["seconds"] += int(machine.now_s - 1_000)
        if machine.errors:
            raise machine.errors[0]

    def _until(self, done: Callable[[], bool]) -> None:
        self.machine.run_until(done, WITHIN_S)

    # The service's processes -------------------------------------------------------------------------

    def start(self) -> None:
        """What systemd does, once whoever had the files is gone."""
        if any(each.name == "store" for each in self.machine.processes):
            self.world.receive(self.start, 0.05)
            return
        self.counts["starts"] += 1
        self.note("start")
        self.store = Store(self.machine.process("store"), self.disk, self.mix.sizes)
        front = self.machine.process("front")
        self.front = Front(front, self.store, self.mix.sizes, self.wall.time_s, lambda: self.disk.free_bytes)
        front.on_end.append(self._front_ended)

    def _front_ended(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for future in waiting:
            self.world.receive(partial(self._deliver, future, UNKNOWN), 0.001)
        if not self._over:
            self.world.receive(self.start, 0.1)

    def kill(self, *names: str) -> None:
        """SIGKILL."""
        self.note("kill", *names)
        for process in [each for each in self.machine.processes if each.name in names]:
            self.counts[f"killed {process.name}"] += 1
            process.kill()

    def _cut_power(self) -> None:
        self.counts["power cuts"] += 1
        self.machine.kill_at_step[self.machine.steps + 1] = lambda: self.kill("front", "store")

    async def _operate(self) -> None:
        chance, mix = self.machine.chance, self.mix
        kinds, weights = list(mix.kinds), list(mix.kinds.values())
        for _ in range(mix.events):
            await asyncio.sleep(mix.every_s * chance.random() * 2)
            kind = chance.choices(kinds, weights)[0]
            self.note(kind)
            if kind == "forward":
                self.wall.move(chance.choice([3_600, DAY_S, 3 * DAY_S, 17 * DAY_S, 40 * DAY_S]))
                await asyncio.sleep(self.machine.delay_s(0.5))
                self.front.ring()
            elif kind == "back":
                self.wall.move(-chance.choice([5, 3_600, DAY_S, 2 * DAY_S]))
            elif kind == "fill":
                self.counts["disk nearly full"] += 1
                self.disk.free_bytes = 0
                await asyncio.sleep(self.machine.delay_s(5.0))
                self.disk.free_bytes = 1
            elif kind == "stop":
                self.counts["stops"] += 1
                self.front.stop()
            else:
                names = ("front", "store") if kind == "kill both" else (kind.removeprefix("kill "),)
                step = self.machine.steps + chance.randint(1, 400)
                self.machine.kill_at_step[step] = partial(self.kill, *names)

    # Callers -----------------------------------------------------------------------------------------

    async def call(self, kind: str, **args: Any) -> Call:
        """Call once, and write down what came of it."""
        machine = self.machine
        wall_day = self.wall.day()
        earliest_day = wall_day if self._is_settled else min(wall_day, self.heard_day)
        call = Call(kind, args, machine.steps, earliest_day)
        self.calls.append(call)
        self.counts["calls"] += 1
        front = self.front
        if front.process.killed:
            await asyncio.sleep(0.05)
            call.answer = BUSY  # nobody listens
        else:
            future: asyncio.Future[Answer] = self.world.create_future()
            self._waiting[future] = None
            front.process.receive(lambda: self._arrive(front, future, kind, args), machine.delay_s(NETWORK_S))
            if machine.chance.random() < self.mix.impatient:
                await asyncio.wait([future], timeout=machine.delay_s(0.05))
                call.answer = future.result() if future.done() else UNKNOWN
                if not future.done():
                    self.counts["hung up"] += 1
            else:
                call.answer = await future
        call.answered_at, call.latest_day = machine.steps, self.wall.highest_day
        self.heard_day = max(self.heard_day, call.day)
        self.note(kind, args, call.answer)
        self.counts[f"{kind} {call.status} {call.body.get('problem', '')}".strip()] += 1
        return call

    def _arrive(self, front: Front, future: asyncio.Future[Answer], kind: str, args: dict[str, Any]) -> None:
        task = front.process.create_task(front.answer(kind, args))
        task.add_done_callback(lambda task: self._answered(future, task))

    def _answered(self, future: asyncio.Future[Answer], task: asyncio.Task[Answer]) -> None:
        if not task.cancelled() and future in self._waiting:
            answer = UNKNOWN if task.exception() else task.result()
            if task.exception() is not None:
                self.machine.errors.append(task.exception())
            del self._waiting[future]
            self.world.receive(lambda: self._deliver(future, answer), self.machine.delay_s(NETWORK_S))

    def _deliver(self, future: asyncio.Future[Answer], answer: Answer) -> None:
        if not future.done():
            future.set_result(answer)

    async def insist(self, kind: str, **args: Any) -> Call:
        """Call until the answer is a definite one, each time after a longer wait."""
        wait_s = 0.02
        while True:
            call = await self.call(kind, **args)
            if call.status not in (BUSY[0], UNKNOWN[0]):
                return call
            await asyncio.sleep(wait_s * self.machine.chance.random())
            wait_s = min(2 * wait_s, 4.0)

    async def _client(self) -> None:
        chance, mix = self.machine.chance, self.mix
        kinds, weights = list(mix.calls_of), list(mix.calls_of.values())
        for _ in range(mix.calls):
            await asyncio.sleep(mix.think_s * chance.random())
            kind = "apply" if len(self.loans) < mix.loans else chance.choices(kinds, weights)[0]
            await getattr(self, f"_{kind}")()

    async def _apply(self) -> None:
        chance = self.machine.chance
        borrower_id = chance.randint(1, 3)
        if len(self.loans) >= 8:
            return
        key = chance.choice([f"k{chance.randint(1, 4)}", f"n{self.machine.steps}"])
        terms = (chance.choice([100, 90_000, 500_000]), 1_400, 38, chance.randint(1, 3))
        plan = chance.choice(["min_due", "equal_emi"])
        made = await self.insist("apply", borrower_id=borrower_id, key=key, terms=(*terms, plan))
        if made.status in (200, 201):
            loan = (made.body["loan_id"], borrower_id)
            if loan not in self.loans:
                self.loans.append(loan)

    async def _pay(self) -> None:
        chance = self.machine.chance
        loan_id, owner = chance.choice(self.loans)
        args: dict[str, Any] = {
            "caller": chance.choice(["c:1", "c:2"]),
            "borrower_id": None,
            "loan_id": loan_id,
            "transaction_id": chance.choice([f"t{chance.randint(1, 6)}", f"n{self.machine.steps}"]),
            "amount_paise": chance.choice([1, 700, 2_500, chance.randint(1, 90_000), 10**9]),
            "for_bill": chance.choice([None, None, None, 1, 2]),
        }
        if chance.random() < 0.3:
            borrower_id = chance.choice([owner, owner, 9])
            args |= {"caller": f"u:{borrower_id}", "borrower_id": borrower_id}
        if chance.random() < 0.3 and loan_id in self.payoffs:
            args["amount_paise"] = self.payoffs[loan_id]
        if chance.random() < self.mix.again:  # the same at once, and perhaps not quite the same
            others = [dict(args) for _ in range(chance.choice([1, 2, 6]))]
            if chance.random() < 0.3:
                others[0]["amount_paise"] += 1
            if chance.random() < 0.2:
                others[-1]["loan_id"] = chance.choice(self.loans)[0]
            await asyncio.gather(*(self.insist("pay", **each) for each in [args, *others]))
            return
        paid = await self.insist("pay", **args)
        if "payoff" in paid.body:
            self.payoffs[loan_id] = round(float(paid.body["payoff"]) * 100)

    async def _view(self) -> None:
        loan_id, owner = self.machine.chance.choice(self.loans)
        await self.call("view", borrower_id=self.machine.chance.choice([None, owner, 9]), loan_id=loan_id)

    async def _page(self) -> None:
        await self.call("page", loan_id=self.machine.chance.choice(self.loans)[0], limit=100)

    async def _look_up(self) -> None:
        caller, number = self.machine.chance.choice(["c:1", "c:2"]), self.machine.chance.randint(1, 6)
        await self.call("look_up", caller=caller, transaction_id=f"t{number}")

    async def _settle(self) -> None:
        """Find out what became of everything, as anybody could."""
        for loan_id, _ in self.loans[:1]:  # whoever asks first after midnight turns the date
            await self.insist("view", borrower_id=None, loan_id=loan_id)
            await asyncio.sleep(SETTLED_S)
        self._is_settled = True
        asked = {(c.args["caller"], c.args["transaction_id"]) for c in self.calls if c.kind == "pay"}
        for caller, transaction_id in sorted(asked):
            await self.insist("look_up", caller=caller, transaction_id=transaction_id)
        for loan_id, _ in self.loans:
            await self.insist("view", borrower_id=None, loan_id=loan_id)
            await self.insist("page", loan_id=loan_id, limit=1_000)
