"""The billing run: bills what is due through the loans' own actors, in a window, and records itself in
billing_runs.

A run does early what the next message to each loan would do anyway; running it never, twice or a week late
gives the same ledger. It pages through the projected (next_billing, id): a loan that was billed meanwhile
answers that there is nothing to do. Loans that fail are tried again at the end, one at a time: an actor that
broke has been read again by then, and one loan that can't be read fails those it was read with no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from ledgerd.actors.messages import Accepted, Answer
from ledgerd.actors.registry import Registry
from ledgerd.clock import Clock, SandboxClock
from ledgerd.domain.calendar import format_day
from ledgerd.domain.commands import IssueBills
from ledgerd.ids import Ids, format_id
from ledgerd.metrics import Metrics
from ledgerd.observe import log
from ledgerd.scheduler.window import Window
from ledgerd.storage.ports import StorageFull, Store, StoreError

PAGE_LOANS = 20_000  # a page ends with a write, for which the run waits
WIDER = 10  # times as many loans are under way when nobody pays
AGAIN_MAX = 2  # how often what failed is tried again ..
AGAIN_LOANS_MAX = 10_000  # .. unless so many failed that it is not for the loans
NAMED_MAX = 100  # loans that failed and are named in the run and the log
ANSWER_WITHIN_S = 2.0  # how long a caller waits before hearing that the run goes on
PROGRESS_S = 0.2
STOPPING = "the service is stopping: what is due is billed after the next start"

Progress = Callable[[int, int], None]


class Stopped(StoreError):
    """A stop cut the run off, or came before it."""


class Run:
    """One run and how far it is. `failed_loans` are the first of those that failed."""

    def __init__(self, run_id: int, business_date: int, started_at_ms: int) -> None:
        self.run_id = run_id
        self.business_date = business_date
        self.started_at_ms = started_at_ms
        self.ended_at_ms: int | None = None
        self.due = self.billed = self.failed = 0
        self.heard = (
            0  # loans whose outcome is known; one that had been billed meanwhile counts in here alone
        )
        self.failed_loans: list[int] = []
        self.interrupted = False
        self.recorded: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def status(self) -> str:
        """As in billing_runs."""
        if self.ended_at_ms is None:
            return "running"
        return "interrupted" if self.interrupted else "completed"

    @property
    def row(self) -> list[Any]:
        """As the named reads give it; see storage.runs."""
        counts = [self.due, self.billed, self.failed, self.failed_loans]
        return [self.run_id, self.business_date, self.status, *counts, self.started_at_ms, self.ended_at_ms]


class Billing:
    """Starts runs, one at a time, and moves the sandbox's date, on which `score` runs too."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        clock: Clock,
        ids: Ids,
        window: int,
        metrics: Metrics,
        score: Callable[[], Awaitable[object]],
    ) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock
        self._ids = ids
        self._window = window
        self._metrics = metrics
        self._score = score
        self._closed = False
        self._one_at_a_time = asyncio.Lock()
        self._advancing = asyncio.Lock()
        self._latest: Run | None = None
        self._going: dict[int, tuple[Run, asyncio.Task[None]]] = {}  # by business date

    def latest(self) -> list[Any] | None:
        """Return the run that goes on, or the last one since the start; see http.services.BillingRuns."""
        return None if self._latest is None else self._latest.row

    async def start(self, through: int) -> tuple[list[Any], bool]:
        """Start a run that bills what fell due up to `through`, or join the one that does; see
        http.services.BillingRuns.
        """
        run, task = await self._begun(through)
        await asyncio.wait([task], timeout=ANSWER_WITHIN_S)
        if task.done():
            _check(task)
        return run.row, task.done()

    async def run(self, through: int, progress: Progress | None = None) -> list[Any]:
        """Run to the end and return the run's row; `progress(done, total)` is called now and then. A caller
        who goes away stops no run.
        """
        run, task = await self._begun(through)
        timeout_s = None if progress is None else PROGRESS_S
        while not task.done():
            await asyncio.wait([task], timeout=timeout_s)
            if progress is not None:
                progress(min(run.heard, run.due), run.due)
        _check(task)
        return run.row

    async def tonight(self) -> None:
        """What the nightly alarm does: bill up to today, however many nights were missed. A stop that cuts
        it off is no failure, nor is a full disk: that is told elsewhere, and the rest billed later.
        """
        with suppress(Stopped, StorageFull):
            await self.run(await self._clock.turn())

    async def catch_up(self, since: int) -> None:
        """What a start does: bill, unless all days after `since` and up to today had their run, and that left
        no loan out.
        """
        if (await self._store.read("last_completed_date") or since) < await self._clock.turn():
            await self.tonight()

    async def advance(self, *, days: int = 0, to: int = 0) -> list[list[Any]]:
        """Move the sandbox's date one day at a time, one caller after another; see
        http.services.BillingRuns.
        """
        clock = self._clock
        assert isinstance(clock, SandboxClock)
        rows = []
        async with self._advancing:
            last = to or clock.today() + days
            while clock.today() < last:
                self._refuse_when_closed()
                day = clock.today() + 1
                await self._store.write("save_clock", "sandbox", day)
                clock.set(day)
                rows.append(await self.run(day))
            with suppress(TimeoutError):  # a long import goes on by itself
                async with asyncio.timeout(ANSWER_WITHIN_S):
                    await self._score()  # once for all days: scores don't depend on the date
        return rows

    async def close(self) -> None:
        """End the runs that go on, and begin no more; their callers hear Stopped. They are kept as
        interrupted, and the next run does the rest.
        """
        self._closed = True
        tasks = [task for _, task in self._going.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _begun(self, through: int) -> tuple[Run, asyncio.Task[None]]:
        """Return the run that bills up to `through`, a new one unless one goes on; it can be looked up."""
        if through not in self._going:
            self._refuse_when_closed()
            run = Run(self._ids.new(), through, self._clock.now_ms())
            task = asyncio.get_running_loop().create_task(self._bill(run))
            self._going[through] = (run, task)
            task.add_done_callback(lambda _: self._going.pop(through, None))
        run, task = self._going[through]
        await asyncio.wait([task, run.recorded], return_when=asyncio.FIRST_COMPLETED)
        return run, task

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise Stopped(STOPPING)

    async def _bill(self, run: Run) -> None:
        # Before its turn comes: whoever waits for it can look it up.
        await self._store.write("begin_run", run.run_id, run.business_date, run.started_at_ms)
        run.recorded.set_result(None)
        try:
            async with self._one_at_a_time:
                self._latest = run
                await self._bill_due(run)
        except BaseException:
            run.interrupted = True
            raise
        finally:
            run.ended_at_ms = self._clock.now_ms()
            with suppress(StoreError):  # a store that has ended: the next start marks the run
                await self._save(run)
            self._log(run)

    async def _bill_due(self, run: Run) -> None:
        self._registry.room.check()
        await self._store.project_through(self._registry.committer.head_seq)
        run.due = await self._store.read("count_due", run.business_date)
        await self._bill_pages(run, self._window, self._window * WIDER)
        for _ in range(AGAIN_MAX):
            before = run.failed
            if not 0 < before <= AGAIN_LOANS_MAX:
                break
            run.failed, run.failed_loans = 0, []
            await self._store.project_through(self._registry.committer.head_seq)
            await self._bill_pages(run, 1, 1)  # they are what is still due
            if run.failed == before:
                break

    async def _bill_pages(self, run: Run, narrow: int, wide: int) -> None:
        window = Window(self._registry, IssueBills(run.business_date), narrow, wide, partial(self._hear, run))
        try:
            after = [0, 0]
            while page := await self._store.read("loans_due", run.business_date, *after, PAGE_LOANS):
                await window.put(loan_id for _, loan_id in page)
                after = page[-1]
                await self._save(run)
            await window.settle()
        finally:
            await window.stop()

    def _hear(self, run: Run, loan_id: int, outcome: Answer | Exception) -> None:
        """Count a loan in; its failure stops no other."""
        run.heard += 1
        if isinstance(outcome, Accepted):
            if outcome.count:
                run.billed += 1
                self._metrics.billing_bills_total.inc(outcome.count)
            return
        run.failed += 1
        if len(run.failed_loans) < NAMED_MAX:
            run.failed_loans.append(loan_id)
            log.warning(
                "loan not billed",
                loan_id=format_id(loan_id),
                run_id=format_id(run.run_id),
                error=f"{type(outcome).__name__}: {outcome}",
            )

    async def _save(self, run: Run) -> None:
        counts = (run.due, run.billed, run.failed, run.failed_loans)
        await self._store.write("save_run", run.run_id, *counts, run.status, run.ended_at_ms)

    def _log(self, run: Run) -> None:
        if run.due:
            tell = log.error if run.failed else log.info
            tell(
                "billing run",
                run_id=format_id(run.run_id),
                business_date=format_day(run.business_date),
                status=run.status,
                due=run.due,
                billed=run.billed,
                failed=run.failed,
                failed_loans=[format_id(loan_id) for loan_id in run.failed_loans],
            )


def _check(task: asyncio.Task[None]) -> None:
    """Raise what a run that has ended failed with; Stopped when it was cut off."""
    if task.cancelled():
        raise Stopped(STOPPING)
    task.result()
