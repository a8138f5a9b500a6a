"""The billing run: bills what is due through the loans' own actors, in a window, and records itself in
billing_runs.

A run does early what the next message to each loan would do anyway; running it never, twice or a week late
gives the same ledger. It pages through the projected (next_billing, id): a loan that was billed meanwhile
answers that there is nothing to do.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from ledgerd.actors.messages import Accepted, Overloaded
from ledgerd.actors.registry import Registry
from ledgerd.clock import Clock, SandboxClock
from ledgerd.domain.calendar import format_day
from ledgerd.domain.commands import IssueBills
from ledgerd.ids import Ids, format_id
from ledgerd.observe import Metrics, log
from ledgerd.storage.ports import Store, StoreError

PAGE_LOANS = 1_000
LAG_EVENTS_MAX = 20_000  # further behind, the run waits for the projections
ANSWER_WITHIN_S = 2.0  # how long a caller waits before hearing that the run goes on
BUSY_PAUSE_S = 0.05
STOPPING = "the service is stopping: what is due is billed after the next start"


class Run:
    """One run and how far it is."""

    def __init__(self, run_id: int, business_date: int, started_at_ms: int) -> None:
        self.run_id = run_id
        self.business_date = business_date
        self.started_at_ms = started_at_ms
        self.ended_at_ms: int | None = None
        self.due = self.billed = self.failed = 0
        self.interrupted = False

    @property
    def status(self) -> str:
        """As in billing_runs."""
        if self.ended_at_ms is None:
            return "running"
        return "interrupted" if self.interrupted else "completed"

    @property
    def row(self) -> list[Any]:
        """As a row of billing_runs, in the table's order."""
        counts = [self.due, self.billed, self.failed]
        return [self.run_id, self.business_date, self.status, *counts, self.started_at_ms, self.ended_at_ms]


class Billing:
    """Starts runs, one at a time, and moves the sandbox's date."""

    def __init__(
        self, store: Store, registry: Registry, clock: Clock, ids: Ids, window: int, metrics: Metrics
    ) -> None:
        self._store = store
        self._registry = registry
        self._clock = clock
        self._ids = ids
        self._window = window
        self._metrics = metrics
        self._closed = False
        self._one_at_a_time = asyncio.Lock()
        self._advancing = asyncio.Lock()
        self._going: dict[int, tuple[Run, asyncio.Task[None]]] = {}  # by business date

    async def start(self, through: int) -> tuple[list[Any], bool]:
        """Start a run that bills what fell due up to `through`, or join the one that does; see
        http.services.BillingRuns.
        """
        going = self._going.get(through)
        if going is None:
            going = await self._begin(through)
        run, task = going
        await asyncio.wait([task], timeout=ANSWER_WITHIN_S)
        if task.done():
            _check(task)
        return run.row, task.done()

    async def run(self, through: int) -> list[Any]:
        """Run to the end and return the run's row. A caller who goes away stops no run."""
        going = self._going.get(through) or await self._begin(through)
        run, task = going
        await asyncio.wait([task])
        _check(task)
        return run.row

    async def tonight(self) -> None:
        """What the nightly alarm does: bill up to today, however many nights were missed."""
        await self.run(self._clock.today())

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
        return rows

    async def close(self) -> None:
        """End the runs that go on, and begin no more; their callers hear StoreError. They are kept as
        interrupted, and the next run does the rest.
        """
        self._closed = True
        tasks = [task for _, task in self._going.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _begin(self, through: int) -> tuple[Run, asyncio.Task[None]]:
        self._refuse_when_closed()
        run = Run(self._ids.new(), through, self._clock.now_ms())
        task = asyncio.get_running_loop().create_task(self._bill(run))
        self._going[through] = (run, task)
        task.add_done_callback(lambda _: self._going.pop(through, None))
        return run, task

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise StoreError(STOPPING)

    async def _bill(self, run: Run) -> None:
        # Before its turn comes: whoever waits for it can look it up.
        await self._store.write("begin_run", run.run_id, run.business_date, run.started_at_ms)
        try:
            async with self._one_at_a_time:
                await self._bill_due(run)
        except BaseException:
            run.interrupted = True
            raise
        finally:
            run.ended_at_ms = self._clock.now_ms()
            with suppress(StoreError):  # a store that has ended: the next start marks the run
                await self._save(run)
        if run.due:
            log.info(
                "billing run",
                run_id=format_id(run.run_id),
                business_date=format_day(run.business_date),
                due=run.due,
                billed=run.billed,
                failed=run.failed,
            )

    async def _bill_due(self, run: Run) -> None:
        await self._store.project_through(self._registry.committer.head_seq)
        after = [0, 0]
        while page := await self._store.read("loans_due", run.business_date, *after, PAGE_LOANS):
            run.due += len(page)
            await self._bill_page([loan_id for _, loan_id in page], run)
            after = page[-1]
            await self._save(run)

    async def _bill_page(self, loan_ids: list[int], run: Run) -> None:
        committer = self._registry.committer
        for start in range(0, len(loan_ids), self._window):
            if committer.lag_events > LAG_EVENTS_MAX:
                await self._store.project_through(committer.head_seq)
            some = loan_ids[start : start + self._window]
            for loan_id, bills in zip(
                some, await asyncio.gather(*(self._bill_loan(i, run) for i in some)), strict=True
            ):
                if bills is None:
                    run.failed += 1
                    log.error("loan not billed", loan_id=format_id(loan_id), run_id=format_id(run.run_id))
                elif bills:
                    run.billed += 1
                    self._metrics.billing_bills_total.inc(bills)

    async def _bill_loan(self, loan_id: int, run: Run) -> int | None:
        """Return how many bills were issued; None when the loan failed, which stops no other."""
        while True:
            try:
                answer = await self._registry.ask(loan_id, IssueBills(run.business_date), transient=True)
            except Overloaded:
                await asyncio.sleep(BUSY_PAUSE_S)
            except Exception as error:  # noqa: BLE001 - one loan's failure stops no other
                log.error("loan failed", loan_id=format_id(loan_id), error=f"{type(error).__name__}: {error}")
                return None
            else:
                return answer.count if isinstance(answer, Accepted) else None

    async def _save(self, run: Run) -> None:
        await self._store.write(
            "save_run", run.run_id, run.due, run.billed, run.failed, run.status, run.ended_at_ms
        )


def _check(task: asyncio.Task[None]) -> None:
    """Raise what a run that has ended failed with; StoreError when it was cut off."""
    if task.cancelled():
        raise StoreError(STOPPING)
    task.result()
