"""How many loans a run has under way, and who waits for whom. Nothing is durable until it is let go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ledgerd.actors.messages import Accepted, Message
from ledgerd.domain.commands import IssueBills
from ledgerd.scheduler import window as window_module
from ledgerd.scheduler.window import Window
from ledgerd.storage.ports import StoreError
from tests.scheduler.house import START, House, house, until

DUE = START + 30


class Gate:
    """Lets so many entries reach the journal, one append after another, and holds the others back."""

    def __init__(self, home: House, monkeypatch: pytest.MonkeyPatch) -> None:
        self._append = home.engine.append
        self._go = asyncio.Semaphore(0)
        self.open = False
        monkeypatch.setattr(home.engine, "append", self)

    async def __call__(self, epoch: int, entries: Any) -> Any:
        if not self.open:
            await self._go.acquire()
        return await self._append(epoch, entries)

    def let_one_go(self) -> None:
        self._go.release()

    def let_all_go(self) -> None:
        self.open = True
        for _ in range(10):
            self._go.release()


class Bench:
    """A book that is due, and a window on it."""

    def __init__(self, home: House, gate: Gate, narrow: int, wide: int) -> None:
        self.home = home
        self.gate = gate
        self.outcomes: list[tuple[int, Any]] = []
        self.window = Window(
            home.registry, IssueBills(DUE), narrow, wide, lambda *outcome: self.outcomes.append(outcome)
        )

    @property
    def billed(self) -> list[int]:
        return [loan_id for loan_id, outcome in self.outcomes if isinstance(outcome, Accepted)]

    async def bill_all(self) -> None:
        await self.window.put(self.home.loan_ids)
        await self.window.settle()


@asynccontextmanager
async def bench(
    monkeypatch: pytest.MonkeyPatch, loans: int = 30, narrow: int = 3, wide: int = 12, **limits: int
) -> AsyncIterator[Bench]:
    async with house(**limits) as home:
        await home.lend(loans)
        home.clock.set(DUE)
        made = Bench(home, Gate(home, monkeypatch), narrow, wide)
        try:
            yield made
        finally:
            made.gate.let_all_go()
            await home.registry.drain()


async def turns() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def test_it_is_wide_when_nobody_else_asks(monkeypatch: pytest.MonkeyPatch):
    async with bench(monkeypatch) as on:
        billing = asyncio.ensure_future(on.bill_all())
        await turns()
        assert on.home.registry.in_flight == 12
        on.gate.let_all_go()
        await billing
        assert sorted(on.billed) == sorted(on.home.loan_ids)
        assert on.home.registry.in_flight == 0


async def test_it_is_narrow_while_somebody_pays(monkeypatch: pytest.MonkeyPatch):
    async with bench(monkeypatch) as on:
        paying = asyncio.ensure_future(on.home.pay(on.home.loan_ids[-1], 1_00))
        await turns()
        billing = asyncio.ensure_future(on.bill_all())
        await turns()
        assert on.home.registry.in_flight == 1 + 3
        on.gate.let_all_go()
        await asyncio.gather(paying, billing)
        assert sorted(on.billed) == sorted(on.home.loan_ids)


async def test_it_stays_narrow_until_it_was_quiet_for_a_while(monkeypatch: pytest.MonkeyPatch):
    async with bench(monkeypatch) as on:
        paying = asyncio.ensure_future(on.home.pay(on.home.loan_ids[-1], 1_00))
        await turns()
        assert on.window._size() == 3
        on.gate.let_all_go()
        await paying
        assert on.window._size() == 3
        monkeypatch.setattr(on.window, "_quiet_at_s", 0.0)  # the second has passed
        assert on.window._size() == 12


async def test_it_slides(monkeypatch: pytest.MonkeyPatch):
    """One answer makes room for one, whatever became of those that were put with it."""
    async with bench(monkeypatch, loans=6, wide=2) as on:
        first, second, *_ = on.home.loan_ids
        await on.home.engine.project_through(6)
        on.home.registry._actors.clear()
        load, slow = on.home.engine.load, asyncio.Event()

        async def loads(loan_ids: Any) -> Any:
            if first in loan_ids:
                await slow.wait()
            return await load(loan_ids)

        monkeypatch.setattr(on.home.engine, "load", loads)
        monkeypatch.setattr("ledgerd.actors.registry.LOAD_LOANS_MAX", 1)
        on.gate.open = True
        billing = asyncio.ensure_future(on.bill_all())
        await until(lambda: len(on.billed) == 5)
        assert first not in on.billed
        slow.set()
        await billing
        assert on.billed == [second, *on.home.loan_ids[2:], first]


async def test_a_loan_whose_mailbox_is_full_holds_nobody_up(monkeypatch: pytest.MonkeyPatch):
    async with bench(monkeypatch, loans=20, wide=4, mailbox=2) as on:
        hot = on.home.loan_ids[0]
        paying = [asyncio.ensure_future(on.home.pay(hot, 1_00)) for _ in range(2)]
        await turns()
        await on.window.put(on.home.loan_ids[:3])
        assert list(on.window._waiting) == [hot]
        with pytest.raises(window_module.Overloaded):
            on.home.registry.put(hot, Message(None, None, asyncio.get_running_loop().create_future()))
        billing = asyncio.ensure_future(on.window.put(on.home.loan_ids[3:]))
        await turns()
        assert on.home.registry.in_flight == 2 + 3  # narrow, and full
        on.gate.let_all_go()
        await asyncio.gather(billing, *paying)
        await on.window.settle()
        assert sorted(on.billed) == sorted(on.home.loan_ids)


async def test_it_waits_for_the_projections(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(window_module, "LAG_EVENTS_MAX", 5)
    async with bench(monkeypatch, wide=4) as on:
        on.gate.open = True
        projected, lags = on.home.engine.project_through, []

        async def project_through(seq: int) -> int:
            lags.append(on.home.registry.committer.lag_events)
            return await projected(seq)

        monkeypatch.setattr(on.home.engine, "project_through", project_through)
        await on.bill_all()
        assert lags
        assert min(lags) > 5
        assert len(on.billed) == 30


@pytest.mark.parametrize("loans", [5, 30])  # some that wait, and none
async def test_it_ends_with_the_journal_and_tells_of_nobody(monkeypatch: pytest.MonkeyPatch, loans: int):
    async with bench(monkeypatch, loans) as on:
        billing = asyncio.ensure_future(on.bill_all())
        await turns()
        monkeypatch.setattr(on.gate, "_append", None)
        on.gate.let_one_go()
        with pytest.raises(StoreError, match="the journal has ended"):
            await billing
        assert on.outcomes == []
        on.home.broken.clear()


async def test_a_journal_that_broke_before_leaves_nothing_to_wait_for(monkeypatch: pytest.MonkeyPatch):
    async with bench(monkeypatch) as on, asyncio.timeout(20):
        monkeypatch.setattr(on.gate, "_append", None)
        on.gate.open = True
        with pytest.raises(StoreError):
            await on.home.pay(on.home.loan_ids[0], 1_00)
        with pytest.raises(StoreError, match="the journal has ended"):
            await on.window.put(on.home.loan_ids)
        await on.window.stop()
        assert on.outcomes == []
        on.home.broken.clear()


async def test_a_window_that_is_stopped_tells_of_those_under_way(monkeypatch: pytest.MonkeyPatch):
    async with bench(monkeypatch) as on:
        billing = asyncio.ensure_future(on.bill_all())
        await turns()
        billing.cancel()
        await asyncio.gather(billing, return_exceptions=True)
        stopping = asyncio.ensure_future(on.window.stop())
        await turns()
        assert not stopping.done()
        on.gate.let_all_go()
        await stopping
        assert len(on.billed) == 12 == sum(map(len, await on.home.numbers()))
