"""The laws that every answer is held to: what a single-threaded reader of the journal finds, who decides each
message again on the events that were on disk.

Nothing here shares code with the actors; the rules (`decide`, `evolve`) and the chain are the project's own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ledgerd.actors.messages import Accepted, ActorFailed, Replayed, View
from ledgerd.domain.commands import Command, Disburse, IssueBills, Rejection, Repay, repeats
from ledgerd.domain.events import BillIssued, Event, LoanDisbursed, PaymentRecorded, decode_event
from ledgerd.domain.loan import Loan, bring_up_to_date, decide, evolve
from ledgerd.storage.chain import GENESIS, event_hash
from ledgerd.storage.ports import StoredEvent, StoreError
from tests.actors.world import Asked, World

CONFLICTS = ("transaction-id-conflict", "idempotency-key-conflict")


class History:
    """One loan as the journal tells it: states[v] is what it was after version v, which became durable at
    seqs[v].
    """

    def __init__(self) -> None:
        self.states: list[Loan | None] = [None]
        self.seqs = [0]
        self.events: list[Event | None] = [None]
        self.hash = GENESIS

    def add(self, stored: StoredEvent) -> None:
        assert stored.version == len(self.states), "versions have no gaps"
        self.hash = event_hash(self.hash, stored.loan_id, stored.version, stored.once_key, stored.body)
        assert stored.hash == self.hash, "each hash covers the one before"
        event = decode_event(stored.body)
        self.states.append(evolve(self.states[-1], event))
        self.seqs.append(stored.seq)
        self.events.append(event)

    def version_at(self, head: int) -> int:
        """The version that was durable when the journal ended at `head`."""
        return bisect_right(self.seqs, head) - 1


class Laws:
    """Judges a world that has come to rest. `counts` says what it saw."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.histories: dict[int, History] = {}
        self.owners: dict[bytes, StoredEvent] = {}
        self.counts: Counter[str] = Counter()
        for number, stored in enumerate(world.events(), 1):
            assert stored.seq == number
            self.histories.setdefault(stored.loan_id, History()).add(stored)
            if stored.once_key is not None:
                assert stored.once_key not in self.owners, "a once_key counts once"
                self.owners[stored.once_key] = stored

    def check(self) -> None:
        self.at_rest()
        self.events_follow_from_commands()
        seen: dict[int, int] = {}  # loan -> the version that the last answer was decided on
        for asked in self.world.asked:
            assert asked.times == 1, f"answered {asked.times} times: {asked}"
            history = self.histories.get(asked.loan_id) or History()
            lowest = max(seen.get(asked.loan_id, 0), history.version_at(asked.asked_head))
            version = self.explain(asked, history, lowest)
            assert version is not None, f"nothing on disk explains {asked}"
            seen[asked.loan_id] = version

    def at_rest(self) -> None:
        """Nothing waits anywhere, and what is in memory is what is on disk."""
        for registry in self.world.registries:
            assert registry.in_flight == 0
        registry = self.world.registry
        assert not registry.committer._queue
        assert not registry.committer._replies
        assert registry.committer._on_their_way == 0
        for actor in registry._actors.values():
            history = self.histories[actor.loan_id]
            assert actor.idle
            assert actor.loaded
            assert not actor.broken
            assert not actor.transient
            assert not actor._in_flight
            assert not actor._owners
            state = (actor.version, actor.head_hash, actor.loan)
            assert state == (len(history.states) - 1, history.hash, history.states[-1])

    def events_follow_from_commands(self) -> None:
        """Each event is what deciding its command on the state before it says; a message that was refused or
        replayed has none.
        """
        commands = {
            _serial(a.command): a for a in self.world.asked if isinstance(a.command, Repay | Disburse)
        }
        for history in self.histories.values():
            for version in range(1, len(history.states)):
                before, event = history.states[version - 1], history.events[version]
                assert event is not None
                if isinstance(event, BillIssued):
                    issued = decide(before, IssueBills(event.billing_date), 0)
                    assert isinstance(issued, list)
                    assert issued[:1] == [event]
                elif (asked := commands.get(_serial(event))) is not None:
                    day = event.paid_on if isinstance(event, PaymentRecorded) else event.terms.disbursed_on
                    assert asked.command is not None
                    assert decide(before, asked.command, day) == [event]
                    assert isinstance(asked.answer, Accepted | StoreError), f"counted all the same: {asked}"

    # Answers -------------------------------------------------------------------------------------

    def explain(self, asked: Asked, history: History, lowest: int) -> int | None:
        """Return the lowest version from `lowest` on, durable when the answer left, that explains it."""
        answer = asked.answer
        versions = range(lowest, history.version_at(asked.answered_head) + 1)
        self.counts[_name(answer)] += 1
        match answer:
            case Accepted(loan_id, None, 0):
                assert loan_id == asked.loan_id
                assert isinstance(asked.command, IssueBills)
                wanted: list[Event] = []
                return next(
                    (v for v in versions if decide(history.states[v], asked.command, 0) == wanted), None
                )
            case Accepted():
                return self.accepted(asked, answer, history, versions)
            case View():
                assert asked.command is None
                return self.viewed(asked, answer, history, versions)
            case Replayed():
                owner = self.owner(asked)
                assert asked.command is not None
                assert answer == Replayed(owner.loan_id, decode_event(owner.body))
                assert repeats(asked.command, asked.loan_id, owner.loan_id, answer.event)
                assert _serial(asked.command) != _serial(answer.event), "its own event is not a replay"
                return lowest
            case Rejection(code) if code in CONFLICTS:
                owner = self.owner(asked)
                assert asked.command is not None
                assert not repeats(asked.command, asked.loan_id, owner.loan_id, decode_event(owner.body))
                return lowest
            case Rejection():
                return self.refused(asked, answer, history, versions)
            case ActorFailed():
                assert is_a_bug(asked.command), f"only a bug fails an actor: {asked}"
                return lowest
            case StoreError():
                assert "not now" in str(answer) or len(self.world.registries) > 1
                return lowest
            case _:
                raise AssertionError(asked)

    def owner(self, asked: Asked) -> StoredEvent:
        """Return the event that has the message's once_key and was durable when the answer left."""
        assert asked.command is not None
        assert asked.command.once_key is not None
        owner = self.owners[asked.command.once_key]
        assert owner.seq <= asked.answered_head, f"answered before its owner was durable: {asked}"
        return owner

    def accepted(self, asked: Asked, answer: Accepted, history: History, versions: range) -> int | None:
        """Its events are there, durable before the answer, and are what it asked for on that state."""
        assert asked.command is not None
        assert answer.loan_id == asked.loan_id
        for before in range(versions.start, versions.stop - answer.count):
            last = before + answer.count
            events = history.events[before + 1 : last + 1]
            if events[-1] == answer.event and any(
                decided(history.states[before], asked.command, day) == events for day in self.days(asked)
            ):
                return last
        return None

    def viewed(self, asked: Asked, answer: View, history: History, versions: range) -> int | None:
        loan = history.states[answer.version] if answer.version in versions else None
        if loan is None:
            return None
        assert asked.borrower_id in (None, loan.borrower_id)
        issued, view = bring_up_to_date(loan, answer.today)
        assert (answer.loan_id, answer.loan, answer.issued) == (asked.loan_id, view, issued)
        assert answer.today in {max(day, loan.accrued_through) for day in self.days(asked)}
        return answer.version

    def refused(self, asked: Asked, answer: Rejection, history: History, versions: range) -> int | None:
        """A durable state refuses it so, while its once_key was still free."""
        key = asked.command.once_key if asked.command and answer.code != "loan-not-found" else None
        owner = self.owners.get(key) if key else None
        for version in versions:
            if owner is not None and owner.seq <= max(history.seqs[version], asked.asked_head):
                break
            if any(_refusal(history.states[version], asked, day) == answer for day in self.days(asked)):
                return version
        return None

    def days(self, asked: Asked) -> Iterator[int]:
        """Every date that it was between question and answer."""
        return (day for day in self.world.days if asked.asked_day <= day <= asked.answered_day)


def is_a_bug(command: Command | None) -> bool:
    """What the rules were never meant to see: see `World.bug`, or a second disbursal of a loan."""
    return isinstance(command, Disburse) or (isinstance(command, Repay) and isinstance(command.for_bill, str))


def decided(loan: Loan | None, command: Command, day: int) -> list[Event] | Rejection | None:
    """Decide; None when that is a bug on this state."""
    with suppress(AssertionError, TypeError):
        return decide(loan, command, day)
    return None


def _refusal(loan: Loan | None, asked: Asked, day: int) -> Any:
    if asked.command is not None:
        return decided(loan, asked.command, day)
    seen = loan is not None and asked.borrower_id in (None, loan.borrower_id)
    return None if seen else Rejection("loan-not-found")


def _serial(what: Command | Event | None) -> int:
    """The number that a message and its event share."""
    if isinstance(what, Repay | PaymentRecorded):
        return what.payment_id
    assert isinstance(what, Disburse | LoanDisbursed)
    return what.recorded_at_ms


def _name(answer: Any) -> str:
    if isinstance(answer, Rejection):
        return answer.code
    return "nothing due" if isinstance(answer, Accepted) and not answer.count else type(answer).__name__
