"""A machine in virtual time: processes with an event loop each, one step of one of them at a time.

Which process goes on when several could is for the seed to say, and so is how long a message between them
takes. Within a process asyncio's order holds: what is ready runs first in, first out. A process can be killed
between any two steps, that is at any await; nothing of it runs any more, but for what lets its coroutines go.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

STEPS_MAX = 100_000  # of a whole life: more, and something turns in a circle
LAST_WORDS_MAX = 20


class Deadlock(AssertionError):
    """Nothing can happen any more, and something is still waited for."""


class Machine:
    """The processes that live, and what time it is for all of them."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.now_s = 1_000.0
        self.steps = 0
        self.processes: list[Process] = []
        self.errors: list[BaseException] = []  # that nobody looked at, in processes that lived
        self.kill_at_step: dict[int, Callable[[], None]] = {}

    def process(self, name: str) -> Process:
        """Start a process."""
        process = Process(self, name)
        self.processes.append(process)
        return process

    def run_until(self, done: Callable[[], bool], within_s: float) -> None:
        """Go on until `done()`; Deadlock when that can't come, or takes longer than `within_s`."""
        deadline_s = self.now_s + within_s
        while not done():
            self.step()
            if self.now_s > deadline_s or self.steps > STEPS_MAX:
                raise Deadlock(f"after {self.now_s - 1_000:.3f} s and {self.steps} steps")

    def step(self) -> None:
        """Let one process run one callback: one that is ready, else the first whose timer is due."""
        self.steps += 1
        if self.kill_at_step and (kill := self.kill_at_step.pop(self.steps, None)) is not None:
            kill()
            return
        ready = [each for each in self.processes if each.is_ready()]
        if ready:
            chosen = ready[0] if len(ready) == 1 else self.chance.choice(ready)
        else:
            waiting = [each for each in self.processes if each.next_timer_s() is not None]
            if not waiting:
                raise Deadlock("every process waits for ever")
            chosen = min(waiting, key=lambda each: each.next_timer_s() or 0.0)
            self.now_s = max(self.now_s, chosen.next_timer_s() or 0.0)
        chosen.step()

    def delay_s(self, most_s: float) -> float:
        """Draw how long something takes: mostly no time worth naming, at times the whole."""
        kind = self.chance.random()
        if kind < 0.5:
            return 0.0
        return most_s * (self.chance.random() if kind > 0.9 else 0.1 * self.chance.random())


class Process(asyncio.BaseEventLoop):
    """An event loop that the machine steps. `killed` is final."""

    _ready: Any  # of BaseEventLoop
    _scheduled: list[Any]

    def __init__(self, machine: Machine, name: str) -> None:
        super().__init__()
        self.machine = machine
        self.name = name
        self.killed = False
        self.on_end: list[Callable[[], None]] = []  # called once, when it is killed or has ended
        self._selector = self  # what BaseEventLoop asks for events
        self.set_exception_handler(self._on_error)

    def time(self) -> float:
        return self.machine.now_s

    def _write_to_self(self) -> None: ...

    def _on_error(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not self.killed and error is not None:
            self.machine.errors.append(error)

    def is_ready(self) -> bool:
        """Whether a callback can run now."""
        self._due()
        return bool(self._ready)

    def next_timer_s(self) -> float | None:
        """When its next timer is due."""
        return self._scheduled[0].when() if self._scheduled else None

    def _due(self) -> None:
        """Make ready what is due, and drop timers that were cancelled."""
        scheduled = self._scheduled
        while scheduled and (scheduled[0].cancelled() or scheduled[0].when() <= self.machine.now_s):
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            if not handle.cancelled():
                self._ready.append(handle)

    def step(self) -> None:
        """Run one callback that is ready."""
        self._due()
        if not self._ready:
            return
        handle = self._ready.popleft()
        if not handle.cancelled():
            with self._running():
                handle._run()

    def begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task from outside."""
        with self._running():
            return self.create_task(work)

    @contextmanager
    def _running(self) -> Iterator[None]:
        before = events._get_running_loop()
        events._set_running_loop(self)
        try:
            yield
        finally:
            events._set_running_loop(before)

    def receive(self, callback: Callable[[], object], delay_s: float) -> None:
        """Have something called here in a while, unless the process is gone by then."""
        if not self.killed:
            self.call_at(self.machine.now_s + delay_s, callback)

    def kill(self) -> None:
        """End at once. What its coroutines do as they are let go reaches nothing outside."""
        if self.killed:
            return
        self.killed = True
        self.machine.processes.remove(self)
        self._scheduled.clear()
        steps = [each for each in self._ready if isinstance(_owner(each), asyncio.Task)]
        self._ready.clear()
        self._ready.extend(steps)
        for _ in range(LAST_WORDS_MAX):  # what a task waits for as it ends is cancelled in turn
            tasks = sorted(asyncio.all_tasks(self), key=_number)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            with self._running():
                while self._ready:
                    self._ready.popleft()._run()
        self.close()
        for tell in self.on_end:
            tell()


def _owner(handle: asyncio.Handle) -> object:
    """What the callback is a method of: the task, when it is one's next step."""
    return getattr(handle._callback, "__self__", None)


def _number(task: asyncio.Task[Any]) -> int:
    return int(task.get_name().removeprefix("Task-"))
