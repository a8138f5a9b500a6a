"""An answer for whoever has waited too long, as on a store that stalls: the outcome is unknown.

What holds: no request waits for longer than `timeout_s` and a sweep, once it is here; what it asked for goes
on to its end, and the same sent again tells what became of it. A request sets no timer: it stands in one
list, oldest first, which is looked at once a second. Used by endpoint.py and express.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from itertools import takewhile
from typing import Any, Protocol, TypeVar

from ledgerd.observe import log

T = TypeVar("T")

SWEEP_S = 1.0


class Late(Exception):
    """There was no outcome in time; there may be one later."""


class Waiting(Protocol):
    """A request under way. `started_s` is of time.perf_counter()."""

    started_s: float

    def give_up(self, error: Late, /) -> None:
        """Have it answered now; called once."""
        ...


class UnderWay:
    """The requests under way. Whoever puts one into `waiting` takes it out again."""

    def __init__(self, timeout_s: float) -> None:
        self.waiting: dict[Waiting, None] = {}  # in the order in which they started
        self._timeout_s = timeout_s
        self._work: set[asyncio.Task[Any]] = set()

    async def outcome_of(self, work: Coroutine[Any, Any, T]) -> T:
        """Do the work in a task of its own and return its outcome; raises Late when that takes too long, and
        the work goes on. It ends with its waiter alone when that is cancelled.
        """
        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop.create_future())
        task = loop.create_task(work)
        self._work.add(task)
        task.add_done_callback(partial(self._done, waiter))
        self.waiting[waiter] = None
        try:
            outcome: T = await waiter.future
            return outcome
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            self.waiting.pop(waiter, None)

    def _done(self, waiter: _Waiter, task: asyncio.Task[Any]) -> None:
        self._work.discard(task)
        error = None if task.cancelled() else task.exception()
        if waiter.future.done():
            if error is not None:
                log.warning("a late request failed", error=f"{type(error).__name__}: {error}")
        elif task.cancelled():
            waiter.future.cancel()
        elif error is not None:
            waiter.future.set_exception(error)
        else:
            waiter.future.set_result(task.result())

    def sweep(self, now_s: float) -> None:
        """Give up what started `timeout_s` before `now_s` or earlier."""
        until_s = now_s - self._timeout_s
        for request in list(takewhile(lambda request: request.started_s <= until_s, self.waiting)):
            if request in self.waiting:
                del self.waiting[request]
                request.give_up(Late(f"no outcome within {self._timeout_s:g} s"))

    async def sweeping(self, _app: object) -> AsyncIterator[None]:
        """Sweep for as long as the application lives: for `cleanup_ctx`."""
        sweeper = asyncio.get_running_loop().create_task(self._sweep_for_ever())
        yield
        sweeper.cancel()

    async def _sweep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            try:
                self.sweep(time.perf_counter())
            except Exception as error:  # noqa: BLE001 - a bug, but the others are still to be answered
                log.error("sweep failed", exc_info=error)


class _Waiter:
    """Waits for the outcome of a task."""

    __slots__ = ("future", "started_s")

    def __init__(self, future: asyncio.Future[Any]) -> None:
        self.future = future
        self.started_s = time.perf_counter()

    def give_up(self, error: Late) -> None:
        """See `Waiting`."""
        if not self.future.done():
            self.future.set_exception(error)
