"""The seam: what the service asks of its store, whoever is behind it (a child process, or the engine in this
one).

Everything that crosses it is plain data, so that it can cross a socket. Reads and writes are named, never
SQL.
"""

from collections.abc import Awaitable, Sequence
from typing import Any, Literal, Protocol

import msgspec

from ledgerd.domain.loan import Loan


class StoredEvent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One row of the journal."""

    seq: int
    loan_id: int
    version: int
    kind: str
    once_key: bytes | None
    hash: bytes
    body: bytes


class NewEvent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An event that is to become a row: its version follows from its entry."""

    kind: str
    hash: bytes
    body: bytes


class Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One decision of an actor: all of its events are appended, or none.

    `base_version` is the loan's version that it was decided on. With no events it only asks whether its
    once_key is taken.
    """

    loan_id: int
    base_version: int
    once_key: bytes | None
    events: tuple[NewEvent, ...]


class Verdict(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What became of the entry at `index`, where it was not simply appended.

    `owner` is the event that has the once_key. taken: nothing was written, and the loan's later entries are
    dropped as stale until one comes with this entry's base_version again.
    """

    index: int
    outcome: Literal["taken", "stale"]
    owner: StoredEvent | None = None


class AppendReply(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The answer to a batch, once it is on disk. Entries that `exceptions` does not name were appended."""

    head_seq: int
    projected_seq: int
    exceptions: tuple[Verdict, ...]


class Loaded(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A loan as durable as it stands; version 0 and no state when there is none."""

    loan_id: int
    version: int
    head_hash: bytes
    loan: Loan | None


class Opened(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a store says when it is open: `epoch` fences every append."""

    epoch: int
    head_seq: int
    projected_seq: int


class StoreError(Exception):
    """The store refused or failed; the message is one line that says what to do."""


class StorageFull(StoreError):
    """There is no room on the disk: nothing was done."""


class BatchLost(StoreError):
    """The disk filled under a batch. The store knows what it has and goes on; appends are taken again with
    this `epoch` alone, since what was decided on the batch never was.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__("the disk is full: the outcome is unknown")
        self.epoch = epoch


class NamedStore(Protocol):
    """The named reads and writes alone."""

    async def read(self, name: str, *params: Any) -> Any:
        """Run a named read."""
        ...

    async def write(self, name: str, *params: Any) -> Any:
        """Run a named write."""
        ...


class Store(Protocol):
    """The seam itself. Any error at COMMIT but a full disk's, or an end of the socket, stops the process: see
    `StoreError`.
    """

    def append(self, epoch: int, entries: Sequence[Entry]) -> Awaitable[AppendReply]:
        """Append the entries in order, in one transaction and one sync. They are on their way when this
        returns. Fails with BatchLost when the disk fills under them.
        """
        ...

    async def load(self, loan_ids: Sequence[int]) -> list[Loaded]:
        """Load loans as their last durable event left them, in the order asked."""
        ...

    async def read(self, name: str, *params: Any) -> Any:
        """Run a named read."""
        ...

    async def write(self, name: str, *params: Any) -> Any:
        """Run a named write in a transaction of its own; durable when it returns. Raises StorageFull when the
        disk has no room for it.
        """
        ...

    async def project_through(self, seq: int) -> int:
        """Project the journal up to `seq` at least, and return how far it is projected."""
        ...

    async def backup(self, path: str) -> None:
        """Copy both files into the directory `path`, consistent with each other."""
        ...

    async def close(self) -> None:
        """Project what is left, where the disk has room for it, and close the files."""
        ...
