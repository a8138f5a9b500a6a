"""An answer for whoever has waited too long, as on a store that stalls: the outcome is unknown.

What holds: no request waits for longer than `timeout_s` and a sweep, once it is here; what it asked for goes
on, and the same sent again tells what became of it. A request sets no timer and takes no task for that: it
stands in one list, oldest first, which is looked at once a second. Used by endpoint.py and express.py.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import takewhile
from typing import Protocol

SWEEP_S = 1.0


class Late(Exception):
    """There was no outcome in time; there may be one later."""


class Waiting(Protocol):
    """A request under way. `started_s` is of time.perf_counter()."""

    started_s: float

    def give_up(self, error: Late, /) -> None:
        """Have it answered now; called once, and must not raise."""
        ...


class UnderWay:
    """The requests under way. Whoever puts one into `waiting` takes it out again."""

    def __init__(self, timeout_s: float) -> None:
        self.waiting: dict[Waiting, None] = {}  # in the order in which they started
        self._timeout_s = timeout_s

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
            self.sweep(time.perf_counter())


class Handling:
    """A request that a task works on, which is cancelled when it is given up."""

    __slots__ = ("_task", "_under_way", "late", "started_s")

    def __init__(self, under_way: UnderWay) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._under_way = under_way
        self.late: Late | None = None
        self.started_s = 0.0

    def begin(self) -> None:
        """From now on time counts."""
        self.started_s = time.perf_counter()
        self._under_way.waiting[self] = None

    def end(self) -> None:
        """Time counts no longer."""
        self._under_way.waiting.pop(self, None)

    def give_up(self, error: Late) -> None:
        """See `Waiting`."""
        self.late = error
        self._task.cancel()

    def was_late(self) -> Late | None:
        """Return why the task was cancelled, and let it go on; None when it was somebody else's doing."""
        if self.late is not None:
            self._task.uncancel()
        return self.late
