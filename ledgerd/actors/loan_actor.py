"""The actor of one loan: a plain object with a mailbox, drained by whoever brings a message; no task is
parked for it.

It decides message n+1 on the state that message n left, before n is on disk. The rule that keeps this honest:
no answer, whether acceptance, refusal, replay or read, leaves before everything that it was decided on is
durable. So every decided message waits in `pending`, in order, with the state before it. When the journal
says that a once_key was taken, the actor goes back to the state before that entry and decides all behind it
again.

What happens when ..           the caller hears        the actor
a rule refuses                 the rejection           goes on
decide raises (a bug)          ActorFailed             answers what is pending, is then read again from disk
the loan can't be loaded       the store's error       is forgotten
the disk is nearly full        storage-full            goes on: a retry of what counted is a replay
the disk fills under a batch   StoreError: unknown     is forgotten, and read again
the journal can't commit       StoreError: unknown     ends with the process
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ledgerd.actors.messages import Accepted, ActorFailed, Answer, Message, Replayed, View
from ledgerd.domain.commands import Command, Disburse, Rejection, repeats
from ledgerd.domain.events import Event, decode_event, encode_event, kind_of
from ledgerd.domain.loan import Loan, bring_up_to_date, decide, evolve
from ledgerd.observe import log
from ledgerd.storage.chain import GENESIS, event_hash
from ledgerd.storage.ports import Entry, Loaded, NewEvent, StoredEvent, StoreError

if TYPE_CHECKING:
    from ledgerd.actors.registry import Registry


OWNERS_MAX = 4_096


class Pending:
    """A message that was decided and whose answer waits until it is durable. `before` is the actor as it was
    decided on.
    """

    __slots__ = ("actor", "answer", "before", "dead", "durable", "key", "message")

    def __init__(self, actor: LoanActor, message: Message, answer: Answer, durable: bool) -> None:
        self.actor = actor
        self.message = message
        self.answer = answer
        self.durable = durable
        self.dead = False  # decided again since; what the store says of it no longer counts
        self.before = (actor.loan, actor.version, actor.head_hash)
        self.key: bytes | None = None  # its once_key, while it has events on their way to disk
        message.trace.decided()


class LoanActor:
    """One resident loan. Everything here runs on the event loop, and nothing here awaits."""

    __slots__ = (
        "_in_flight",
        "_owners",
        "_registry",
        "broken",
        "head_hash",
        "loaded",
        "loan",
        "loan_id",
        "mailbox",
        "pending",
        "transient",
        "used_at_s",
        "version",
    )

    def __init__(self, registry: Registry, loan_id: int) -> None:
        self._registry = registry
        self.loan_id = loan_id
        self.loaded = False
        self.broken = False
        self.transient = False  # made for a billing run alone: forgotten when idle
        self.used_at_s = 0.0
        self.loan: Loan | None = None
        self.version = 0
        self.head_hash = GENESIS
        # Lists, though they lose their firsts: an empty deque takes 620 bytes, and most loans are idle.
        self.mailbox: list[Message] = []
        self.pending: list[Pending] = []
        self._in_flight: dict[bytes, Pending] = {}
        self._owners: dict[bytes, StoredEvent] = {}  # what the store said of keys, while something is pending

    def __repr__(self) -> str:
        return f"Loan<{self.loan_id:016x}@{self.version}>"

    @property
    def idle(self) -> bool:
        """Nothing waits here: it can be forgotten."""
        return not self.mailbox and not self.pending

    @property
    def is_ahead(self) -> bool:
        """Something was decided here that is not known to be on disk."""
        return any(not each.durable for each in self.pending)

    def loaded_as(self, loaded: Loaded) -> None:
        """Take the state that the store has."""
        self.loan, self.version, self.head_hash = loaded.loan, loaded.version, loaded.head_hash
        self.loaded, self.broken = True, False

    # Deciding ------------------------------------------------------------------------------------

    def receive(self, message: Message) -> None:
        """Decide one message; a bug in deciding is its caller's to hear of, and this actor's last word."""
        try:
            self._decide(message)
        except Exception as error:  # noqa: BLE001 - a bug; decide is pure, but the state is no longer trusted
            log.exception("actor failed", actor=repr(self), error=str(error))
            self.broken = True
            self._registry.fail(message, ActorFailed(f"{self!r} failed: {type(error).__name__}"))
            self.settle()

    def _decide(self, message: Message) -> None:
        command = message.command
        today = self._registry.clock.today()
        if command is None:
            self._wait(Pending(self, message, self._view(message, today), durable=True))
            return
        key = command.once_key
        if key is not None and (known := self._known(key, command)) is not None:
            self._wait(Pending(self, message, known, durable=True))
            return
        outcome = decide(self.loan, command, today)
        if self._registry.room.is_short and not isinstance(outcome, Rejection) and outcome:
            outcome = Rejection("storage-full")
        if isinstance(outcome, Rejection):
            # A refusal that may be a retry: only the journal knows whether the key has counted.
            asks = key is not None and outcome.code != "loan-not-found"
            pending = Pending(self, message, outcome, durable=not asks)
            self._wait(pending)
            if asks:
                self._registry.committer.put(pending, Entry(self.loan_id, self.version, key, ()))
        elif not outcome:
            self._wait(Pending(self, message, Accepted(self.loan_id, None, 0), durable=True))
        else:
            self._accept(message, outcome, key)

    def _accept(self, message: Message, events: list[Event], key: bytes | None) -> None:
        """Advance over the events at once, and send them to the journal."""
        base_version = self.version
        loan, version, head = self.loan, self.version, self.head_hash
        last = base_version + len(events)
        rows = []
        for event in events:
            loan = evolve(loan, event)
            version += 1
            body = encode_event(event)
            head = event_hash(head, self.loan_id, version, key if version == last else None, body)
            rows.append(NewEvent(kind_of(event), head, body))
        pending = Pending(self, message, Accepted(self.loan_id, events[-1], len(events)), durable=False)
        self.loan, self.version, self.head_hash = loan, version, head
        if key is not None:
            pending.key = key
            self._in_flight[key] = pending
        self.pending.append(pending)
        self._registry.committer.put(pending, Entry(self.loan_id, base_version, key, tuple(rows)))

    def _known(self, key: bytes, command: Command) -> Answer | None:
        """Answer a command whose key is on its way here, or is known to be owned."""
        first = self._in_flight.get(key)
        if first is not None:
            assert isinstance(first.answer, Accepted)
            assert first.answer.event is not None
            return self._answer_again(command, self.loan_id, first.answer.event)
        owner = self._owners.get(key)
        return None if owner is None else self._answer_owned(command, owner)

    def _answer_owned(self, command: Command, owner: StoredEvent) -> Answer:
        return self._answer_again(command, owner.loan_id, decode_event(owner.body))

    def _answer_again(self, command: Command, owner_loan_id: int, event: Event) -> Answer:
        if repeats(command, self.loan_id, owner_loan_id, event):
            return Replayed(owner_loan_id, event)
        return Rejection(
            "idempotency-key-conflict" if isinstance(command, Disburse) else "transaction-id-conflict"
        )

    def _view(self, message: Message, today: int) -> Answer:
        loan = self.loan
        if loan is None or message.borrower_id not in (None, loan.borrower_id):
            return Rejection("loan-not-found")
        today = max(today, loan.accrued_through)
        issued, view = bring_up_to_date(loan, today)
        return View(self.loan_id, view, self.version, today, issued)

    # Answering -----------------------------------------------------------------------------------

    def _wait(self, pending: Pending) -> None:
        if pending.durable and not self.pending:
            self._registry.answer(pending.message, pending.answer)
        else:
            self.pending.append(pending)

    def settle(self) -> None:
        """Answer what is durable, in order, up to the first that is not."""
        pending = self.pending
        while pending and pending[0].durable:
            done = pending.pop(0)
            if done.key is not None:
                del self._in_flight[done.key]
            self._registry.answer(done.message, done.answer)
        if not pending:
            self._in_flight.clear()  # it is empty, and lets go of its memory
            self._owners.clear()
            self._registry.rest(self)

    def learn(self, owner: StoredEvent) -> None:
        """Remember whose key it is, for the messages that are about to be decided again."""
        if owner.once_key is not None:
            if len(self._owners) >= OWNERS_MAX:
                self._owners.clear()  # the journal tells again
            self._owners[owner.once_key] = owner

    def taken(self, pending: Pending, owner: StoredEvent) -> None:
        """The entry's key is owned by an earlier event: its message is a replay or a conflict, and its events
        never were.

        Goes back to the state before it, and decides everything behind it again, in order.
        """
        assert pending.message.command is not None
        if pending.key is None:  # it only asked: nothing behind it was decided on it
            pending.answer = self._answer_owned(pending.message.command, owner)
            pending.durable = True
            return
        self._registry.metrics.fallbacks_total.inc()
        again: list[Message] = []  # newest first
        while not pending.dead:
            each = self.pending.pop()
            each.dead = True
            if each.key is not None:
                del self._in_flight[each.key]
            again.append(each.message)
        self.loan, self.version, self.head_hash = pending.before
        self.learn(owner)
        while again and not self.broken:
            self.receive(again.pop())
        self.mailbox[:0] = reversed(again)  # a broken actor is read again first

    def lose(self, reason: str) -> None:
        """The journal broke, or the loan can't be read: fail all that waits here."""
        for message in (*(pending.message for pending in self.pending), *self.mailbox):
            self._registry.fail(message, StoreError(reason))
        self.pending.clear()
        self.mailbox.clear()
        self._in_flight.clear()
