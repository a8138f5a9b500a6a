"""The tail: events that are on disk in the journal and not yet in the tables, held in memory.

Two generations: the journal adds to the new one; the projector turns it into the old one, projects
that, and drops it whole. A reader takes its references first and opens its snapshot of the tables second:
what it then sees twice, its version tells apart; nothing is missed.
"""

from __future__ import annotations

from ledgerd.storage.ports import StoredEvent


class Generation:
    """Some consecutive events, by order and by loan."""

    def __init__(self) -> None:
        self.events: list[StoredEvent] = []
        self.by_loan: dict[int, list[StoredEvent]] = {}

    def add(self, event: StoredEvent) -> None:
        """Append one event."""
        self.events.append(event)
        of_loan = self.by_loan.get(event.loan_id)
        if of_loan is None:
            self.by_loan[event.loan_id] = [event]
        else:
            of_loan.append(event)


class Tail:
    """Both generations. `add` and `turn` run in the journal's turn; everything else may run anywhere."""

    def __init__(self) -> None:
        self._new = Generation()
        self._old = Generation()

    def add(self, event: StoredEvent) -> None:
        """Append one event that has just become durable."""
        self._new.add(event)

    def turn(self) -> list[StoredEvent]:
        """Make the new generation the old one, and return its events for projection."""
        assert not self._old.events, "the old generation was projected and dropped"
        # Old first: a reader between the two lines sees the events twice, never not at all.
        self._old = self._new
        self._new = Generation()
        return self._old.events

    def drop(self) -> None:
        """Forget the old generation, once it is in the tables."""
        self._old = Generation()

    def of_loan(self, loan_id: int) -> list[StoredEvent]:
        """Return the loan's events, oldest first, as they stand now."""
        new, old = self._new, self._old
        newer = new.by_loan.get(loan_id, ())
        older = () if old is new else old.by_loan.get(loan_id, ())
        return [*older, *newer]

    def last_version(self, loan_id: int) -> int | None:
        """Return the version that the loan's last event in the tail left it at."""
        events = self._new.by_loan.get(loan_id) or self._old.by_loan.get(loan_id)
        return events[-1].version if events else None

    def beginnings(self) -> list[StoredEvent]:
        """Return the events that begin a loan."""
        return [event for event in (*self._old.events, *self._new.events) if event.version == 1]

    def __len__(self) -> int:
        return len(self._new.events) + len(self._old.events)
