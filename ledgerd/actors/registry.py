"""The registry: finds, activates and passivates loan actors, keeps the limits, and drains on stop.

It owns the end of an actor: the check "idle and empty" and the removal have no await between them, so a
message never reaches an actor that is being forgotten.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from ledgerd.actors.committer import Committer
from ledgerd.actors.loan_actor import LoanActor
from ledgerd.actors.messages import Accepted, Answer, Message, Overloaded, Replayed
from ledgerd.clock import Clock
from ledgerd.domain.commands import Command, Rejection, Repay
from ledgerd.metrics import UNTRACED, Metrics, Trace
from ledgerd.observe import log
from ledgerd.storage.ports import Opened, Store, StoreError
from ledgerd.storage.room import Room

LOAD_LOANS_MAX = 500  # loans read in one query
MESSAGES_A_TURN = 64  # of one mailbox, before others run
EVICTION_SCAN_MAX = 64
FORGOTTEN_A_TURN = 500  # idle loans, before others run
TOO_MUCH = "too much in flight"
_OUTCOMES: dict[type, str] = {Accepted: "applied", Replayed: "replayed"}


class ActorLimits(msgspec.Struct, frozen=True):
    """What is refused with Overloaded when it is reached."""

    mailbox: int  # messages that wait at one loan
    in_flight: int  # messages that wait at all loans
    resident_loans: int
    resident_idle_s: float  # a loan that nobody asked for so long is forgotten
    tail_events: int  # durable events that are not projected yet


class Registry:
    """All resident loans. `put` is the only way in; `ask` is `put` with a Future."""

    def __init__(
        self,
        store: Store,
        opened: Opened,
        clock: Clock,
        limits: ActorLimits,
        metrics: Metrics,
        on_broken: Callable[[BaseException], None],
        room: Room | None = None,
    ) -> None:
        self.store = store
        self.clock = clock
        self.limits = limits
        self.metrics = metrics
        self.room = room or Room()
        self.committer = Committer(store, opened, metrics, self._break, self._lose_undurable)
        self._on_broken = on_broken
        self.in_flight = 0
        self._loop = asyncio.get_running_loop()
        self._actors: OrderedDict[int, LoanActor] = OrderedDict()  # least recently asked first
        self._to_load: list[LoanActor] = []
        self._loading: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._sweep = self._loop.call_later(limits.resident_idle_s / 4, self._forget_idle)

    @property
    def resident(self) -> int:
        """How many loans are in memory."""
        return len(self._actors)

    @property
    def deepest(self) -> int:
        """How many messages wait at the loan with the most. Whoever is busy was asked lately, so this looks
        back only as far as all messages that wait are found.
        """
        found = deepest = 0
        for actor in reversed(self._actors.values()):
            if found >= self.in_flight:
                break
            waiting = len(actor.mailbox) + len(actor.pending)
            found += waiting
            deepest = max(deepest, waiting)
        return deepest

    # The way in ----------------------------------------------------------------------------------

    def ask(
        self,
        loan_id: int,
        command: Command | None,
        borrower_id: int | None = None,
        *,
        new: bool = False,
        transient: bool = False,
        trace: Trace = UNTRACED,
    ) -> asyncio.Future[Any]:
        """Put a message into the loan's mailbox and return the future of its Answer; see `put`.

        A command of None asks for a View. The future fails with ActorFailed or StoreError when the outcome is
        unknown.
        """
        future = self._loop.create_future()
        self.put(loan_id, Message(command, borrower_id, future, trace), new=new, transient=transient)
        return future

    def put(
        self,
        loan_id: int,
        message: Message,
        *,
        new: bool = False,
        transient: bool = False,
        waits: bool = False,
    ) -> None:
        """Put a message into the loan's mailbox; it may be answered before this returns.

        `new` says that the loan can't exist yet (its id was just made); a `transient` actor is forgotten as
        soon as it is idle; who `waits` for room comes again, and isn't counted as turned away. Raises
        Overloaded when a limit is reached, and StoreError once the journal broke: nothing was done. Whoever
        asked may go away: the message is processed all the same.
        """
        limits = self.limits
        payments = None if waits else int(type(message.command) is Repay)
        self._check(1, payments)
        actor = self._actors.get(loan_id)
        if actor is None:
            if len(self._actors) >= limits.resident_loans and not self._evict():
                reason = "as many loans are busy as may be resident"
                raise self._overloaded("resident_loans", reason, payments)
            actor = self._activate(loan_id, new, transient)
        else:
            self._actors.move_to_end(loan_id)
            if len(actor.mailbox) + len(actor.pending) >= limits.mailbox:
                raise self._overloaded("mailbox", "the loan's mailbox is full", payments)
            actor.transient = actor.transient and transient
        actor.used_at_s = self._loop.time()
        self.in_flight += 1
        if actor.loaded and not actor.broken and not actor.mailbox:
            actor.receive(message)
        else:
            actor.mailbox.append(message)

    def refusal(self) -> Overloaded | None:
        """Return what `put` would raise for any payment, and count it; None when there is room."""
        if self.in_flight < self.limits.in_flight:
            return None
        return self._overloaded("in_flight", TOO_MUCH, 1)

    def check_room(self, loan_ids: Collection[int]) -> None:
        """Raise what `put` would unless there is room, now, for one payment to each of these, repeated ones
        as often as they stand there.
        """
        self._check(len(loan_ids), len(loan_ids))
        for loan_id, count in Counter(loan_ids).items():
            actor = self._actors.get(loan_id)
            waiting = 0 if actor is None else len(actor.mailbox) + len(actor.pending)
            if waiting + count > self.limits.mailbox:
                raise self._overloaded("mailbox", "the loan's mailbox is full", len(loan_ids))

    def _check(self, count: int, payments: int | None) -> None:
        if self.committer.broken:
            raise StoreError("the journal has ended")
        if self.in_flight + count > self.limits.in_flight:
            raise self._overloaded("in_flight", TOO_MUCH, payments)
        if self.committer.lag_events >= self.limits.tail_events:
            self.committer.catch_up()
            raise self._overloaded("tail_events", "projections lag behind", payments)

    def _activate(self, loan_id: int, new: bool, transient: bool) -> LoanActor:
        actor = LoanActor(self, loan_id)
        actor.transient = transient
        actor.loaded = new
        self._actors[loan_id] = actor
        if not new:
            self.metrics.activations_total.inc()
            self._load_soon(actor)
        return actor

    def _overloaded(self, limit: str, reason: str, payments: int | None) -> Overloaded:
        """Return what to raise, and count it with so many payments; None: whoever it is waits."""
        if payments is not None:
            self.metrics.overloaded.counts[limit] += 1
        if payments:
            self.metrics.payments.counts["overloaded"] += payments
        return Overloaded(reason)

    # The way out ---------------------------------------------------------------------------------

    def answer(self, message: Message, answer: Answer) -> None:
        """Deliver an answer; whoever asked may be gone."""
        self.in_flight -= 1
        message.trace.durable_s = self.committer.acknowledged_s
        if type(message.command) is Repay:
            outcome = _OUTCOMES.get(type(answer))
            if outcome is None:
                assert isinstance(answer, Rejection)
                outcome = answer.code
            self.metrics.payments.counts[outcome] += 1
        if not message.reply_to.done():
            message.reply_to.set_result(answer)
        if self.in_flight == 0:
            self._empty.set()

    def fail(self, message: Message, error: Exception) -> None:
        """Deliver that the outcome is unknown."""
        self.in_flight -= 1
        if type(message.command) is Repay:
            self.metrics.payments.counts["unknown"] += 1
        reply_to = message.reply_to
        if not reply_to.done():
            reply_to.set_exception(error)
            if isinstance(reply_to, asyncio.Future):
                reply_to.exception()  # looked at here, in case nobody waits any more
        if self.in_flight == 0:
            self._empty.set()

    def rest(self, actor: LoanActor) -> None:
        """Called when nothing is pending at an actor: read a broken one again; forget a transient one, and a
        loan that doesn't exist.
        """
        if actor.broken:
            if actor.loaded:  # else it is being read already
                actor.loaded = False
                self._load_soon(actor)
        elif not actor.mailbox and (actor.transient or actor.loan is None):
            self._forget(actor)

    def _forget(self, actor: LoanActor) -> None:
        if self._actors.get(actor.loan_id) is actor:
            del self._actors[actor.loan_id]
            self.metrics.passivations.counts["done"] += 1

    def _break(self, error: BaseException) -> None:
        """The journal broke: what became of all that waits is unknown, and the process is about to end."""
        reason = f"the journal broke, the outcome is unknown: {type(error).__name__}: {error}"
        for actor in self._actors.values():
            actor.lose(reason)
        self._on_broken(error)

    def _lose_undurable(self, reason: str) -> None:
        """The disk had no room for a batch: forget every loan that is ahead of the disk, to be read again."""
        log.error("a batch was lost: what it asked for is unknown to its callers", reason=reason)
        for actor in [each for each in self._actors.values() if each.is_ahead]:
            self._forget(actor)
            actor.lose(reason)

    # Activation ----------------------------------------------------------------------------------

    def _load_soon(self, actor: LoanActor) -> None:
        """Load with all others that are asked for in this turn of the loop."""
        self._to_load.append(actor)
        if len(self._to_load) == 1:
            self._loop.call_soon(self._load_all)

    def _load_all(self) -> None:
        actors, self._to_load = self._to_load, []
        for start in range(0, len(actors), LOAD_LOANS_MAX):
            task = self._loop.create_task(self._load(actors[start : start + LOAD_LOANS_MAX]))
            self._loading.add(task)
            task.add_done_callback(self._loading.discard)

    async def _load(self, actors: list[LoanActor]) -> None:
        try:
            loaded = await self.store.load([actor.loan_id for actor in actors])
        except Exception as error:  # noqa: BLE001 - the store's, or a bug there: theirs who wait to hear
            for actor in actors:
                self._forget(actor)
                actor.lose(f"the loan can't be read: {type(error).__name__}: {error}")
            return
        for actor, state in zip(actors, loaded, strict=True):
            actor.loaded_as(state)
            self._drain(actor)

    def _drain(self, actor: LoanActor) -> None:
        """Decide what waits in a mailbox, some messages a turn, and go on later with the rest."""
        for _ in range(MESSAGES_A_TURN):
            if not actor.mailbox or actor.broken or not actor.loaded:
                break
            message = actor.mailbox.pop(0)
            message.trace.received()
            actor.receive(message)
        if actor.mailbox and actor.loaded and not actor.broken:
            self._loop.call_soon(self._drain, actor)
        elif actor.idle:
            self.rest(actor)

    # Passivation ---------------------------------------------------------------------------------

    def _evict(self) -> bool:
        """Make room by forgetting the idle loan that was not asked for longest; False when all are busy."""
        for scanned, actor in enumerate(self._actors.values()):
            if actor.idle:
                del self._actors[actor.loan_id]
                self.metrics.passivations.counts["room"] += 1
                return True
            if scanned >= EVICTION_SCAN_MAX:
                break
        return False

    def _forget_idle(self) -> None:
        """Forget what nobody asked for in a while. The oldest come first, so this stops at the first that is
        young or busy; many go a few at a time, so that others run in between.
        """
        before_s = self._loop.time() - self.limits.resident_idle_s
        again_in_s = 0.0
        for _ in range(FORGOTTEN_A_TURN):
            actor = next(iter(self._actors.values()), None)
            if actor is None or actor.used_at_s > before_s or not actor.idle:
                again_in_s = self.limits.resident_idle_s / 4
                break
            del self._actors[actor.loan_id]
            self.metrics.passivations.counts["idle"] += 1
        self._sweep = self._loop.call_later(again_in_s, self._forget_idle)

    # Stopping ------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Wait until every message is answered. The caller lets no new ones in."""
        while self.in_flight:
            self._empty.clear()
            await self._empty.wait()

    def close(self) -> None:
        """Stop the timer."""
        self._sweep.cancel()
