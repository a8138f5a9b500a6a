"""A world in which the actors' tests run: virtual time, a store whose every step waits for the test, a
book of who asked what and what was on disk when the answer left.

The Registry, Committer and LoanActor are the real ones, over the real Journal on SQLite in memory. Nothing
sleeps, and nothing depends on the machine: a test is a function of its seed.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, cast

from ledgerd.actors.messages import Answer, Message
from ledgerd.actors.registry import ActorLimits, Registry
from ledgerd.clock import SandboxClock
from ledgerd.domain.commands import Command, Disburse, Rejection, Repay
from ledgerd.domain.events import Terms, decode_event, encode_event, kind_of
from ledgerd.domain.loan import decide, evolve
from ledgerd.metrics import Metrics
from ledgerd.storage.chain import GENESIS, event_hash
from ledgerd.storage.files import _tie
from ledgerd.storage.journal import Journal, events_after, head_seq
from ledgerd.storage.migrate import migrate
from ledgerd.storage.once import Keys, merge
from ledgerd.storage.ports import (
    AppendReply,
    BatchLost,
    Entry,
    Loaded,
    NewEvent,
    Opened,
    Store,
    StoreError,
)
from ledgerd.storage.sqlite import connect_writer
from ledgerd.storage.tail import Tail

START = 739_000  # a day number
BORROWER = 7
WIDE = ActorLimits(
    mailbox=4_096, in_flight=100_000, resident_loans=10_000, resident_idle_s=600.0, tail_events=100_000
)
METRICS = Metrics()


# Time --------------------------------------------------------------------------------------------


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without a world outside: when everything waits for a timer, it is that time."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1_000.0
        self._selector = self  # what BaseEventLoop asks for events

    def time(self) -> float:
        return self.now_s

    def select(self, timeout: float | None) -> list[Any]:
        assert timeout is not None
        assert self.now_s < 1e7, "nothing has happened for very long"
        self.now_s += timeout
        return []

    def _process_events(self, event_list: list[Any]) -> None: ...

    def _write_to_self(self) -> None: ...


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end on virtual time."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(turns())
        loop.close()


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine function that runs on virtual time."""

    @functools.wraps(test)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        run(test(*args, **kwargs))

    return wrapped


async def turns(count: int = 8) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# The disk ----------------------------------------------------------------------------------------


@functools.cache
def _connection() -> sqlite3.Connection:
    tables_uri = "file:actors-tables?mode=memory&cache=shared"
    tables = connect_writer(tables_uri)
    migrate(tables, "tables")
    journal = connect_writer("file:actors-journal?mode=memory")
    migrate(journal, "journal")
    _tie(journal, tables)
    journal.execute("ATTACH ? AS tables", (tables_uri,))
    tables.close()
    return journal


class Disk:
    """The two files, emptied for each world, and what is true of them at this moment."""

    def __init__(self) -> None:
        self.connection = _connection()
        for table in ("main.events", "main.batches", "tables.once"):
            self.connection.execute(f"DELETE FROM {table}")
        self.connection.execute("UPDATE tables.meta SET value = 0 WHERE key = 'indexed_seq'")
        self.projected_seq = 0
        self.epoch = 0

    @property
    def head_seq(self) -> int:
        return head_seq(self.connection)

    @property
    def indexed_seq(self) -> int:
        [(seq,)] = self.connection.execute("SELECT value FROM tables.meta WHERE key = 'indexed_seq'")
        return int(seq)

    def load(self, loan_id: int) -> Loaded:
        """Fold all events of a loan."""
        loan, version, head = None, 0, GENESIS
        rows = self.connection.execute(
            "SELECT version, hash, body FROM events WHERE loan_id = ? ORDER BY seq", (loan_id,)
        )
        for version, head, body in rows:  # noqa: B007 - the last ones count
            loan = evolve(loan, decode_event(body))
        return Loaded(loan_id, version, head, loan)


class HandStore:
    """A store behind the seam: requests wait until the test processes them, replies until it delivers."""

    def __init__(self, disk: Disk) -> None:
        disk.epoch += 1
        self.disk = disk
        self.tail = Tail()
        self.keys = Keys()
        self.journal = Journal(self.tail, self.keys)
        self.journal.recover(disk.connection, disk.projected_seq, disk.indexed_seq)
        self.opened = Opened(disk.epoch, disk.head_seq, disk.projected_seq)
        self.appends: deque[tuple[Sequence[Entry], asyncio.Future[Any]]] = deque()
        self.loads: list[tuple[Sequence[int], asyncio.Future[Any]]] = []
        self.replies: list[tuple[asyncio.Future[Any], Any]] = []
        self.load_sizes: list[int] = []
        self.load_failure: Exception | None = None
        self.append_failure: Exception | None = None
        self.ended = False

    # The seam

    def append(self, epoch: int, entries: Sequence[Entry]) -> asyncio.Future[AppendReply]:
        assert self.ended or epoch == self.disk.epoch, "fenced"
        return self._wait(self.appends, entries)

    async def load(self, loan_ids: Sequence[int]) -> list[Loaded]:
        self.load_sizes.append(len(loan_ids))
        loaded: list[Loaded] = await self._wait(self.loads, loan_ids)
        return loaded

    async def project_through(self, seq: int) -> int:
        await asyncio.sleep(0.01)
        if self.ended:
            raise StoreError("the store has ended")
        self.project()
        assert self.disk.projected_seq >= seq
        return self.disk.projected_seq

    def _wait(self, queue: Any, request: Any) -> asyncio.Future[Any]:
        future = asyncio.get_running_loop().create_future()
        if self.ended:
            future.set_exception(StoreError("the store has ended"))
        else:
            queue.append((request, future))
        return future

    # The steps

    def process_append(self) -> None:
        """Make the next batch durable; nobody hears of it yet."""
        entries, future = self.appends.popleft()
        verdicts = self.journal.append(self.disk.connection, entries)
        reply = AppendReply(self.journal.head_seq, self.disk.projected_seq, tuple(verdicts))
        self.replies.append((future, self.append_failure or reply))

    def lose_append(self) -> None:
        """The disk has no room for the next batch; those behind it were decided on it, and are refused."""
        self.disk.epoch += 1
        _, future = self.appends.popleft()
        self.replies.append((future, BatchLost(self.disk.epoch)))
        while self.appends:
            _, future = self.appends.popleft()
            self.replies.append((future, StoreError("fenced")))

    def process_load(self, index: int = 0) -> None:
        loan_ids, future = self.loads.pop(index)
        result: Any = self.load_failure or [self.disk.load(loan_id) for loan_id in loan_ids]
        self.replies.append((future, result))

    def next_replies(self) -> list[int]:
        """Which replies may come next: any load, and the first append."""
        is_load = [isinstance(result, list) for _, result in self.replies]
        return [i for i, load in enumerate(is_load) if load or all(is_load[:i])]

    def deliver(self, index: int = 0) -> None:
        """Hand one reply over."""
        future, result = self.replies.pop(index)
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    def project(self) -> None:
        """Move what is in memory into the tables: all events, and some of the keys."""
        events = self.tail.turn()
        if events:
            self.disk.projected_seq = events[-1].seq
        self.tail.drop()
        if self.keys.gathered and not self.keys.merging:
            self.keys.turn()
        if self.keys.merging:
            rows, watermark = self.keys.take(1)
            merge(self.disk.connection, rows, watermark)
            if watermark is not None:
                self.keys.drop()

    def all_steps(self) -> bool:
        """Process and deliver everything; return whether there was anything."""
        any_step = bool(self.appends or self.loads or self.replies)
        while self.appends:
            self.process_append()
        while self.loads:
            self.process_load()
        while self.replies:
            self.deliver()
        return any_step

    def end(self, processed: int) -> None:
        """The store's process dies after that many more batches, with what it had not said."""
        for _ in range(min(processed, len(self.appends))):
            self.process_append()
        self.ended = True
        waiting = [future for _, future in (*self.appends, *self.loads)]
        for future in (*waiting, *(future for future, _ in self.replies)):
            future.set_exception(StoreError("the store has ended"))
        self.replies.clear()


# The book ----------------------------------------------------------------------------------------


class Asked:
    """One message: when it was asked, what came back, and how far the disk was then."""

    def __init__(
        self,
        loan_id: int,
        command: Command | None,
        borrower_id: int | None,
        registry: Registry,
        head: int,
        day: int,
    ) -> None:
        self.registry = registry
        self.loan_id = loan_id
        self.command = command
        self.borrower_id = borrower_id
        self.asked_head, self.asked_day = head, day
        self.answered_head = self.answered_day = 0
        self.answer: Answer | Exception | None = None
        self.times = 0
        self.future: asyncio.Future[Any] | None = None

    def __repr__(self) -> str:
        return f"{self.command or 'View'} of {self.loan_id} -> {self.answer}"


class WatchedRegistry(Registry):
    """The registry, with every answer written down at the moment it leaves."""

    watch: Callable[[Message, Answer | Exception], None]

    def answer(self, message: Message, answer: Answer) -> None:
        self.watch(message, answer)
        super().answer(message, answer)

    def fail(self, message: Message, error: Exception) -> None:
        self.watch(message, error)
        super().fail(message, error)


class World:
    """A disk, a store, a registry, a clock and the book of everything asked."""

    def __init__(self, limits: ActorLimits = WIDE) -> None:
        self.limits = limits
        self.disk = Disk()
        self.clock = SandboxClock(START, lambda: 0.0)
        self.days = [START]
        self.asked: list[Asked] = []
        self._waiting: dict[Asked, None] = {}
        self.broken: list[BaseException] = []
        self.broken_by: list[int] = []  # which registry, for each of them
        self.registries: list[WatchedRegistry] = []
        self._by_future: dict[asyncio.Future[Any], Asked] = {}
        self._asking: Asked | None = None
        self._serial = 0
        self.store = HandStore(self.disk)
        self.registry: WatchedRegistry

    def open(self) -> None:
        """Start serving what is on disk."""
        self.store = HandStore(self.disk)
        self.registry = WatchedRegistry(
            cast("Store", self.store),
            self.store.opened,
            self.clock,
            self.limits,
            METRICS,
            functools.partial(self._broke, len(self.registries)),
        )
        self.registry.watch = self._watch
        self.registries.append(self.registry)

    def _broke(self, number: int, error: BaseException) -> None:
        self.broken.append(error)
        self.broken_by.append(number)

    def restart(self, processed: int = 0) -> None:
        """The store dies, after some batches more, and the registry with it; others open what is on disk."""
        self.store.end(processed)
        self.registry.close()
        self.open()

    def close(self) -> None:
        for registry in self.registries:
            registry.close()

    def set_day(self, day: int) -> None:
        self.clock.set(day)
        self.days.append(day)

    def serial(self) -> int:
        """A number that no other message bears."""
        self._serial += 1
        return self._serial

    # History, before `open`

    def write(self, loan_id: int, command: Command) -> None:
        """Put a command's events on disk without any actor, as if long ago."""
        was = self.disk.load(loan_id)
        events = decide(was.loan, command, self.clock.today())
        assert not isinstance(events, Rejection)
        head, rows = was.head_hash, []
        for offset, event in enumerate(events, 1):
            body, key = encode_event(event), command.once_key if offset == len(events) else None
            head = event_hash(head, loan_id, was.version + offset, key, body)
            rows.append(NewEvent(kind_of(event), head, body))
        entry = Entry(loan_id, was.version, command.once_key, tuple(rows))
        assert not self.store.journal.append(self.disk.connection, [entry])

    def lend(self, loan_id: int, amount_paise: int = 100_000, borrower_id: int = BORROWER) -> None:
        self.write(loan_id, self.disburse(amount_paise, None, borrower_id))

    # Commands

    def disburse(self, amount_paise: int, key: str | None, borrower_id: int = BORROWER) -> Disburse:
        terms = Terms(amount_paise, 1400, 38, 3, "min_due", self.clock.today(), 30, 15, 300)
        return Disburse(borrower_id, terms, self.serial(), key)

    def repay(
        self,
        transaction_id: str,
        amount_paise: int,
        caller: str = "c:1",
        borrower_id: int | None = None,
        for_bill: int | None = None,
    ) -> Repay:
        number = self.serial()
        return Repay(caller, transaction_id, amount_paise, number, number, borrower_id, for_bill)

    def bug(self, transaction_id: str) -> Repay:
        """A payment that the rules were never meant to see: they fail on it, but for a closed loan."""
        return self.repay(transaction_id, 100, for_bill=cast("int", "first"))

    # Asking

    def ask(
        self, loan_id: int, command: Command | None = None, borrower_id: int | None = None, **how: Any
    ) -> Asked:
        """Ask, and write down that it was asked; raises what `Registry.ask` raises."""
        asked = Asked(loan_id, command, borrower_id, self.registry, self.disk.head_seq, self.clock.today())
        self._asking = asked
        try:
            asked.future = self.registry.ask(loan_id, command, borrower_id, **how)
        finally:
            self._asking = None
        self._by_future[asked.future] = asked
        self.asked.append(asked)
        if not asked.times:
            self._waiting[asked] = None
        return asked

    def _watch(self, message: Message, answer: Answer | Exception) -> None:
        asked = self._by_future.get(message.reply_to) or self._asking
        assert asked is not None
        asked.times += 1
        asked.answer = answer
        asked.answered_head, asked.answered_day = self.disk.head_seq, self.clock.today()
        self._waiting.pop(asked, None)

    @property
    def waiting(self) -> list[Asked]:
        """What the present registry has not answered."""
        return [asked for asked in self._waiting if asked.registry is self.registry]

    async def quiet(self) -> None:
        """Let everything happen until nothing can happen any more."""
        idle_turns = 0
        while idle_turns < 12:
            before = len(self._waiting)
            moved = self.store.all_steps()
            await asyncio.sleep(0)
            idle_turns = 0 if moved or len(self._waiting) < before else idle_turns + 1

    def events(self) -> list[Any]:
        return list(events_after(self.disk.connection, 0))
