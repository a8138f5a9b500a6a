"""A book to load: loans and earlier payments, brought in bulk through the rules and the journal.

A process of its own decides and evolves every payment, chains its hash and sends entries as the actors do;
this one appends them by the storage engine and has them projected, some ten thousand in a transaction. What
comes out is a database like any other, which `ledgerd verify` verifies.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from array import array
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

import msgspec

from ledgerd.app import open_service
from ledgerd.clock import SandboxClock
from ledgerd.config import Config
from ledgerd.domain.commands import Command, Disburse, Rejection, Repay
from ledgerd.domain.events import Terms, encode_event, kind_of
from ledgerd.domain.loan import Loan, decide, evolve
from ledgerd.http.clients import Refusal
from ledgerd.http.tokens import Caller
from ledgerd.ids import Ids, format_id
from ledgerd.storage.chain import GENESIS, event_hash
from ledgerd.storage.engine import Engine
from ledgerd.storage.files import open_engine
from ledgerd.storage.ports import Entry, NewEvent

EVENTS_AT_ONCE = 50_000
AMOUNT_PAISE = 10**11  # of each loan: more than any load pays back
BORROWER = ("Bench", "bench@example.com", "bench@example.com", 0, "", 0, bytes(16), b"", "0000")


class Group(msgspec.Struct, frozen=True):
    """Loans that are alike: lent `days_ago` business days before today, each paid `payments_each` times."""

    loans: int
    payments_each: int = 0
    days_ago: int = 0


class Book(msgspec.Struct, frozen=True):
    """What a database was made with. `groups` are the loans' ids, in the order of the groups asked for, and
    `payments_each` how often each of a group was paid.
    """

    client_id: str
    caller: str  # the namespace of that client's transaction ids
    groups: list[list[str]]
    payments_each: list[int]
    events: int
    payments: int
    seconds: float

    @property
    def rate(self) -> float:
        """Events a second, from nothing to projected."""
        return self.events / self.seconds


class Recipe(msgspec.Struct, frozen=True):
    """What the deciding process is told."""

    groups: list[Group]
    borrower_id: int
    caller: str
    today: int
    now_ms: int
    seed: int


async def write_book(config: Config, groups: Sequence[Group], seed: int) -> Book:
    """Make the database of `config`, which must not exist yet, and return what is in it.

    A sandbox's clock is left at its start, as if that day's billing had been.
    """
    storage = config.storage
    assert storage.tables_path is not None
    assert storage.journal_path is not None
    assert storage.lock_path is not None
    started_s = time.perf_counter()
    recipe, client_id = await _prepare(config, groups, seed)
    engine = await open_engine(
        storage.tables_path, storage.journal_path, storage.lock_path, slice_events=EVENTS_AT_ONCE
    )
    try:
        head_seq = await _append(engine, recipe)
        await engine.project_through(head_seq)
    finally:
        await engine.close()
    # The deciding process made the ids from the same seed.
    loan_ids = iter(_loan_ids(recipe))
    book = Book(
        client_id=client_id,
        caller=recipe.caller,
        groups=[[format_id(next(loan_ids)) for _ in range(group.loans)] for group in groups],
        payments_each=[group.payments_each for group in groups],
        events=head_seq,
        payments=sum(group.loans * group.payments_each for group in groups),
        seconds=time.perf_counter() - started_s,
    )
    await asyncio.to_thread(storage.tables_path.with_name("book.json").write_bytes, msgspec.json.encode(book))
    return book


def read_book(folder: Path) -> Book:
    """Return what the database in a folder was made with."""
    return msgspec.json.decode((folder / "book.json").read_bytes(), type=Book)


async def _prepare(config: Config, groups: Sequence[Group], seed: int) -> tuple[Recipe, str]:
    """Make the files, a client and a borrower by the service itself."""
    service = await open_service(config, background=False)
    try:
        made = await service.services.accounts.create_client("bench", ["payments:write", "ops"])
        assert not isinstance(made, Refusal), made
        tokens, clock = service.services.tokens, service.services.clock
        caller = tokens.verify(tokens.issue(made.client_id, "client", made.scopes, 1, "bench"))
        assert isinstance(caller, Caller), caller
        borrower_id = service.services.ids.new()
        await service.store.write("register_user", borrower_id, *BORROWER)
        if isinstance(clock, SandboxClock):
            await service.store.write("begin_run", 1, clock.today(), clock.now_ms())
            await service.store.write("save_run", 1, 0, 0, 0, [], "completed", clock.now_ms())
        recipe = Recipe(
            groups=list(groups),
            borrower_id=borrower_id,
            caller=caller.namespace,
            today=clock.today(),
            now_ms=clock.now_ms(),
            seed=seed,
        )
        return recipe, made.client_id
    finally:
        await service.close()


async def _append(engine: Engine, recipe: Recipe) -> int:
    """Append what the deciding process sends, while the batch before is projected; return the last seq."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_decide_all, args=(sender, recipe), daemon=True)
    process.start()
    sender.close()
    entries = msgspec.msgpack.Decoder(list[Entry])
    head_seq = engine.opened.head_seq
    try:
        while data := await asyncio.to_thread(receiver.recv_bytes):
            reply = await engine.append(engine.opened.epoch, entries.decode(data))
            assert not reply.exceptions, "every key is new"
            await engine.project_through(head_seq)  # all but the batch that has just been added
            head_seq = reply.head_seq
    finally:
        receiver.close()
        await asyncio.to_thread(process.join)
    return head_seq


# The deciding process ------------------------------------------------------------------------------


def _decide_all(sender: Connection, recipe: Recipe) -> None:
    """Send lists of entries, each as MessagePack, and nothing at the end."""
    encoder = msgspec.msgpack.Encoder()
    some: list[Entry] = []
    for entry in _entries(recipe):
        some.append(entry)
        if len(some) == EVENTS_AT_ONCE:
            sender.send_bytes(encoder.encode(some))
            some = []
    if some:
        sender.send_bytes(encoder.encode(some))
    sender.send_bytes(b"")


class _Chain:
    """A loan as it stands and the end of its chain: what its actor would hold."""

    __slots__ = ("head_hash", "loan", "loan_id", "version")

    def __init__(self, loan_id: int) -> None:
        self.loan_id = loan_id
        self.loan: Loan | None = None
        self.version = 0
        self.head_hash = GENESIS

    def accept(self, command: Command, today: int) -> Entry:
        """Decide, and advance over the events."""
        events = decide(self.loan, command, today)
        assert not isinstance(events, Rejection), events
        base_version, key = self.version, command.once_key
        last = base_version + len(events)
        rows = []
        for event in events:
            self.loan = evolve(self.loan, event)
            self.version += 1
            body = encode_event(event)
            once_key = key if self.version == last else None
            self.head_hash = event_hash(self.head_hash, self.loan_id, self.version, once_key, body)
            rows.append(NewEvent(kind_of(event), self.head_hash, body))
        return Entry(self.loan_id, base_version, key, tuple(rows))


def _loan_ids(recipe: Recipe) -> list[int]:
    ids = Ids(lambda: recipe.now_ms / 1000, Random(recipe.seed).getrandbits)
    return [ids.new() for _ in range(sum(group.loans for group in recipe.groups))]


def _entries(recipe: Recipe) -> Iterator[Entry]:
    """Yield every loan's first event, then the payments of all loans in a random order."""
    loan_ids = _loan_ids(recipe)
    chains = [_Chain(loan_id) for loan_id in loan_ids]
    turns = array("L")
    first = 0
    for group in recipe.groups:
        terms = Terms(AMOUNT_PAISE, 1400, 38, 120, "min_due", 0, 30, 15, 300)
        lend = Disburse(recipe.borrower_id, terms, recipe.now_ms)
        for number in range(first, first + group.loans):
            yield chains[number].accept(lend, recipe.today - group.days_ago)
            turns.extend([number] * group.payments_each)
        first += group.loans
    random = Random(recipe.seed)
    random.shuffle(turns)
    payment_id = (loan_ids[-1] if loan_ids else 0) + 1
    for place, number in enumerate(turns):
        pay = Repay(
            caller=recipe.caller,
            transaction_id=f"{random.getrandbits(32):08x}-book-{place}",
            amount_paise=100 + (random.getrandbits(16) % 50_000),
            payment_id=payment_id + place,
            recorded_at_ms=recipe.now_ms,
        )
        yield chains[number].accept(pay, recipe.today)
