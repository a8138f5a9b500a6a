"""What goes into a loan's mailbox, and what comes back."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from ledgerd.domain.commands import Command, Rejection
from ledgerd.domain.events import Event
from ledgerd.domain.loan import Loan
from ledgerd.metrics import UNTRACED, Trace


class Overloaded(Exception):
    """A limit is reached (named in the message): nothing was done, try again later."""


class ActorFailed(Exception):
    """A bug stopped the actor at this message: the outcome is unknown, retry with the same transaction_id."""


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """The command counted. `event` is the last of its `count` events; None when there was nothing to do."""

    loan_id: int
    event: Event | None
    count: int = 1


class Replayed(msgspec.Struct, frozen=True, gc=False):
    """The command had counted before, as `event`; nothing was written."""

    loan_id: int
    event: Event


class View(msgspec.Struct, frozen=True):
    """A loan brought up to `today`; what that takes (`issued`) is not written. `version` is that of its last
    event on disk.
    """

    loan_id: int
    loan: Loan
    version: int
    today: int
    issued: list[Any]


Answer = Accepted | Replayed | View | Rejection


class ReplyTo(Protocol):
    """Who hears the outcome: a Future, or whoever can do without the turns of the loop that one takes.

    Called from within the actors: it must not raise, and must not put a message before it has returned.
    """

    def done(self) -> bool:
        """Return whether nobody wants to hear any more."""
        ...

    def set_result(self, answer: Any, /) -> None:
        """Hear the Answer."""
        ...

    def set_exception(self, error: Exception, /) -> None:
        """Hear that the outcome is unknown."""
        ...


class Message:
    """One message and whom it is answered to. A `command` of None asks for a View. `trace` hears how far it
    is.
    """

    __slots__ = ("borrower_id", "command", "reply_to", "trace")

    def __init__(
        self, command: Command | None, borrower_id: int | None, reply_to: ReplyTo, trace: Trace = UNTRACED
    ) -> None:
        self.command = command
        self.borrower_id = borrower_id  # None: whoever asks may see any loan
        self.reply_to = reply_to
        self.trace = trace
