"""Brings a command to many loans with a bounded number under way: the billing run's window.

It slides: as loans answer, the next are put. It is wide while nobody else asks anything of the actors, and
narrow from the first message of somebody else until a quiet second has passed, so that payments wait behind
few bills. A loan whose mailbox is full steps back and is tried again later; the others go on. No task and no
future is made for a loan.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from ledgerd.actors.messages import Answer, Message, Overloaded
from ledgerd.actors.registry import Registry
from ledgerd.domain.commands import Command, Rejection
from ledgerd.storage.ports import StoreError

LAG_EVENTS_MAX = 20_000  # further behind, the window waits for the projections
STEPPED_BACK_MAX = 100  # loans whose mailbox is full; with more, the window waits
BUSY_PAUSE_S = 0.05
QUIET_S = 1.0

Tell = Callable[[int, Answer | Exception], None]


class Window:
    """At most `wide` loans under way, or `narrow` while others are served. `tell` hears of each loan once; it
    must not raise.
    """

    def __init__(self, registry: Registry, command: Command, narrow: int, wide: int, tell: Tell) -> None:
        self._registry = registry
        self._command = command
        self._narrow = narrow
        self._wide = wide
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[int] = deque()
        self._under_way = 0
        self._answered = asyncio.Event()
        self._quiet_at_s = 0.0

    async def put(self, loan_ids: Iterable[int]) -> None:
        """Bring the command to these loans. Returns when it is on its way to all but a few that stepped back.

        Raises StoreError once the journal broke, and StorageFull when the disk has no room for more.
        """
        self._waiting.extend(loan_ids)
        await self._put_waiting(STEPPED_BACK_MAX)

    async def settle(self) -> None:
        """Return when every loan was told of."""
        await self._put_waiting(0)
        while self._under_way:
            await self._next_answer()

    async def stop(self) -> None:
        """Put nothing more, and return when those that are under way were told of."""
        self._waiting.clear()
        while self._under_way:
            await self._answer()

    async def _put_waiting(self, most_left: int) -> None:
        while True:
            for _ in range(len(self._waiting)):
                if self._under_way >= self._size():
                    await self._room()
                loan_id = self._waiting.popleft()
                if not self._put(loan_id):
                    self._waiting.append(loan_id)
            if len(self._waiting) <= most_left:
                return
            await asyncio.sleep(BUSY_PAUSE_S)

    async def _room(self) -> None:
        """Return when half of the window is free: what is put together is read and written together."""
        while self._under_way > self._size() // 2:
            await self._next_answer()

    def _size(self) -> int:
        now_s = self._loop.time()
        if self._registry.in_flight > self._under_way:  # somebody else's
            self._quiet_at_s = now_s + QUIET_S
        return self._narrow if now_s < self._quiet_at_s else self._wide

    def _put(self, loan_id: int) -> bool:
        self._registry.room.check()
        self._under_way += 1  # first: the answer may come before `put` returns
        try:
            message = Message(self._command, None, _Reply(self, loan_id))
            self._registry.put(loan_id, message, transient=True)
        except (Overloaded, StoreError) as error:  # nothing is under way, and nothing will be heard of it
            self._under_way -= 1
            if isinstance(error, StoreError):
                raise
            return False
        return True

    async def _answer(self) -> None:
        self._answered.clear()
        await self._answered.wait()

    async def _next_answer(self) -> None:
        await self._answer()
        self._registry.room.check()
        committer = self._registry.committer
        if committer.broken:
            raise StoreError("the journal has ended: what is due is billed after the next start")
        if committer.lag_events > LAG_EVENTS_MAX:
            await self._registry.store.project_through(committer.head_seq)

    def hear(self, loan_id: int, outcome: Answer | Exception) -> None:
        """Take what became of a loan. When the journal broke or has no room, that is no loan's failure."""
        self._under_way -= 1
        is_refused = isinstance(outcome, Rejection) and outcome.code == "storage-full"
        if not self._registry.committer.broken and not is_refused:
            self._tell(loan_id, outcome)
        self._answered.set()


class _Reply:
    """Whom one loan answers."""

    __slots__ = ("_loan_id", "_window")

    def __init__(self, window: Window, loan_id: int) -> None:
        self._window = window
        self._loan_id = loan_id

    def done(self) -> bool:
        return False

    def set_result(self, answer: Answer) -> None:
        self._window.hear(self._loan_id, answer)

    def set_exception(self, error: Exception) -> None:
        self._window.hear(self._loan_id, error)
