"""A small house for the tests of billing: the real engine in memory, the real actors, a sandbox's clock.

Nothing in it is left to chance: two houses that live the same way have the same journal, to the last hash.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import date
from random import Random
from typing import Any

import msgspec

from ledgerd.actors.messages import Accepted
from ledgerd.actors.registry import ActorLimits, Registry
from ledgerd.clock import Clock, SandboxClock
from ledgerd.domain.commands import Disburse, Repay
from ledgerd.domain.events import BillIssued, Plan, Terms, decode_event
from ledgerd.domain.money import daily_rate
from ledgerd.ids import Ids
from ledgerd.metrics import Metrics
from ledgerd.scheduler.billing import Billing
from ledgerd.storage.engine import Engine
from ledgerd.storage.files import open_memory
from ledgerd.storage.journal import events_after
from tests.scheduler.mortal import Disk, Mortal
from tests.storage.books import add_borrower

AnyEngine = Engine | Mortal
START = date(2026, 1, 1).toordinal()
NOW_S = 1_800_000_000.0
BORROWER = 7
LIMITS = ActorLimits(
    mailbox=4096, in_flight=8192, resident_loans=100_000, resident_idle_s=600.0, tail_events=200_000
)


async def until(holds: Callable[[], object]) -> None:
    """Let the others run until something holds."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what runs is our own loop's, and has no event to tell
            await asyncio.sleep(0)


class House:
    """What lives in it. `loan_ids` are in the order in which they were lent."""

    def __init__(
        self, engine: AnyEngine, limits: ActorLimits = LIMITS, window: int = 100, clock: Clock | None = None
    ) -> None:
        self.engine = engine
        self.clock: Any = clock or SandboxClock(START, lambda: NOW_S)
        self.metrics = Metrics()
        self.broken: list[BaseException] = []
        self.registry = Registry(engine, engine.opened, self.clock, limits, self.metrics, self.broken.append)
        self.ids = Ids(lambda: NOW_S, Random(1).getrandbits)
        self.run_ids = Ids(lambda: NOW_S, Random(2).getrandbits)
        self.window = window
        self.scored_on: list[int] = []
        self.billing = self.new_billing()
        self.loan_ids: list[int] = []

    def new_billing(self) -> Billing:
        """Return the billing of a service that was started anew."""
        return Billing(
            self.engine, self.registry, self.clock, self.run_ids, self.window, self.metrics, self.score
        )

    async def score(self) -> None:
        """What scores on the days of the sandbox."""
        self.scored_on.append(self.clock.today())

    async def lend(
        self, count: int, *, every_days: int = 0, plan: Plan = "min_due", amount_paise: int = 5_000_00
    ) -> None:
        """Lend `count` loans today, or so many days apart."""
        for number in range(count):
            if number and every_days:
                await self.billing.advance(to=self.clock.today() + every_days)
            loan_id = self.ids.new()
            terms = Terms(
                amount_paise=amount_paise + number,
                apr_hundredths=14_00,
                daily_rate_thousandths=daily_rate(14_00),
                tenure=12,
                plan=plan,
                disbursed_on=self.clock.today(),
                cycle_days=30,
                due_days=15,
                min_due_hundredths=3_00,
            )
            answer = await self.registry.ask(
                loan_id, Disburse(BORROWER, terms, self.clock.now_ms()), new=True
            )
            assert isinstance(answer, Accepted)
            self.loan_ids.append(loan_id)

    async def pay(self, loan_id: int, amount_paise: int) -> None:
        payment_id = self.ids.new()
        command = Repay("c:1", f"t-{payment_id}", amount_paise, payment_id, self.clock.now_ms())
        assert isinstance(await self.registry.ask(loan_id, command), Accepted)

    async def journal(self) -> dict[int, list[tuple[Any, ...]]]:
        """Each loan's history, whatever was written between."""
        engine: Any = self.engine
        events = await engine._journal_db.run(lambda connection: list(events_after(connection, 0)))
        histories: dict[int, list[tuple[Any, ...]]] = {}
        for event in events:
            history = histories.setdefault(event.loan_id, [])
            history.append((event.version, event.kind, event.hash, event.body))
        return histories

    async def bills(self) -> list[list[BillIssued]]:
        """Each loan's bills, oldest first, in the order of `loan_ids`."""
        histories = await self.journal()
        events = [[decode_event(row[-1]) for row in histories[loan_id]] for loan_id in self.loan_ids]
        return [[event for event in each if isinstance(event, BillIssued)] for each in events]

    async def numbers(self) -> list[list[int]]:
        """Each loan's bill numbers."""
        return [[bill.number for bill in bills] for bills in await self.bills()]

    async def runs(self) -> list[dict[str, Any]]:
        """The rows of billing_runs, oldest first."""
        names = (
            *("run_id", "date", "status", "due", "billed", "failed", "failed_loans"),
            *("started_at_ms", "ended_at_ms"),
        )
        rows = await self.engine.read("runs_before", 2**63 - 1, 10_000)
        return [dict(zip(names, row, strict=True)) for row in reversed(rows)]


async def abandon(home: House, disk: Disk) -> None:
    """Leave a house as a kill does: nothing more reaches the disk."""
    await home.billing.close()
    home.registry.close()
    work = (*home.registry.committer._replies, *home.registry._loading)
    await asyncio.gather(*work, return_exceptions=True)
    await disk.drop()


@asynccontextmanager
async def house(window: int = 100, clock: Clock | None = None, **limits: int) -> AsyncIterator[House]:
    """Build a house with one borrower; `limits` are as in ActorLimits."""
    engine = await open_memory()
    made = House(engine, msgspec.structs.replace(LIMITS, **limits), window, clock)
    try:
        await add_borrower(engine, BORROWER)
        yield made
        assert not made.broken
    finally:
        await made.billing.close()
        made.registry.close()
        await engine.close()
