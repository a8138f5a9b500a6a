"""Random schedules of the engine against a model of a few lines: appends that race for the same keys, batches
decided before the answer to the one before, a projector that stops between any two transactions, restarts.

A failure names its seed: `run_seed(Bare(), seed)` is the whole of it again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import Any

import pytest

from ledgerd.domain.events import BillIssued, PaymentRecorded, decode_event
from ledgerd.domain.loan import evolve
from ledgerd.storage import engine as engine_module
from ledgerd.storage.chain import GENESIS
from ledgerd.storage.engine import Engine
from ledgerd.storage.once import indexed_seq, key_hash
from ledgerd.storage.ports import Entry, Loaded, StoredEvent, Verdict
from ledgerd.storage.projections import load_rows, payment_values, project
from ledgerd.storage.sqlite import InlineDatabase
from tests.storage.books import Bare, Writer, key_of, stored, terms

SEEDS = 2_000
CHUNKS = 4
LOANS = (3, 1, 2)
IDS = tuple(f"t{n}" for n in range(9))  # few, so that loans often race for one

State = tuple[Any, int, bytes]


class Model:
    """The whole of the rules of appending."""

    def __init__(self) -> None:
        self.journal: list[StoredEvent] = []
        self.of_loan: dict[int, list[StoredEvent]] = {loan_id: [] for loan_id in LOANS}
        self.owners: dict[bytes, StoredEvent] = {}
        self.resume_at: dict[int, int] = {}

    def append(self, entries: list[Entry]) -> tuple[Verdict, ...]:
        verdicts = []
        for index, entry in enumerate(entries):
            owner = self.owners.get(entry.once_key or b"")
            if self.resume_at.get(entry.loan_id, entry.base_version) != entry.base_version:
                verdicts.append(Verdict(index, "stale", owner))
                continue
            self.resume_at.pop(entry.loan_id, None)
            if owner is not None:
                verdicts.append(Verdict(index, "taken", owner))
                if entry.events:
                    self.resume_at[entry.loan_id] = entry.base_version
                continue
            rows = stored([entry], first_seq=len(self.journal) + 1)
            self.journal += rows
            self.of_loan[entry.loan_id] += rows
            self.owners |= {row.once_key: row for row in rows if row.once_key is not None}
        return tuple(verdicts)

    def loaded(self, loan_id: int) -> Loaded:
        loan, head_hash = None, GENESIS
        for event in self.of_loan[loan_id]:
            loan, head_hash = evolve(loan, decode_event(event.body)), event.hash
        return Loaded(loan_id, len(self.of_loan[loan_id]), head_hash, loan)

    def payments(self, loan_id: int, through: int) -> list[list[Any]]:
        """Newest first, as rows of payments without the pointer to the one before."""
        rows = []
        for event in self.of_loan[loan_id][:through]:
            paid = decode_event(event.body)
            if isinstance(paid, PaymentRecorded):
                rows.append(without_pointer(payment_values(event, paid, None)))
        return rows[::-1]

    def bills(self, loan_id: int) -> list[BillIssued]:
        bodies = (decode_event(event.body) for event in self.of_loan[loan_id])
        return [body for body in bodies if isinstance(body, BillIssued)]


def without_pointer(row: Any) -> list[Any]:
    return [*row[:3], *row[4:]]


class StoppedTables(InlineDatabase):
    """The tables, whose projector makes no transaction that it was not granted."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._granted = asyncio.Semaphore(0)

    def grant(self, count: int) -> None:
        for _ in range(count):
            self._granted.release()

    async def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        if args and args[0] is project:
            await self._granted.acquire()
        return await super().run(function, *args, **kwargs)


class Schedule:
    """One seed's life of a store and of the actors that use it."""

    def __init__(self, bare: Bare, seed: int) -> None:
        self.bare = bare
        self.chance = Random(seed)
        self.model = Model()
        self.writers = {loan_id: Writer(loan_id) for loan_id in LOANS}
        self.on_their_way: list[list[tuple[Entry, State]]] = []
        self.counts: Counter[str] = Counter()

    async def start(self) -> None:
        self.tables = StoppedTables(self.bare.tables)
        self.engine = Engine(
            journal_db=InlineDatabase(self.bare.journal),
            journal_reader=InlineDatabase(self.bare.journal_reader),
            tables=self.tables,
            readers=[InlineDatabase(self.bare.reader)],
            slice_events=self.chance.choice([1, 2, 5, 2_000]),
            index_keys=self.chance.choice([1, 2, 5, 100_000]),
        )
        await self.engine.start()
        assert self.engine.opened.head_seq == len(self.model.journal)

    async def stop(self) -> None:
        """As a kill does: whatever is not in the files is gone."""
        self.engine.projector.cancel()
        await asyncio.gather(self.engine.projector, return_exceptions=True)

    async def restart(self) -> None:
        await self.stop()
        self.on_their_way = []
        self.model.resume_at = {}
        await self.start()
        loaded = await self.engine.load(LOANS)
        self.writers = {each.loan_id: Writer(each.loan_id, each) for each in loaded}

    def decide(self, writer: Writer) -> Entry:
        """What an actor might ask for next; it may race with the others for the id."""
        chance, loan = self.chance, writer.loan
        if loan is None:
            key = chance.choice([None, "apply-1", "apply-2"])
            return writer.lend(terms(chance.choice([30, 900_00]), chance.randint(1, 3)), key)
        today = loan.accrued_through + chance.choice([0, 0, 1, 31])
        if loan.closed_on is not None or chance.random() < 0.15:
            return writer.ask(chance.choice(IDS))
        if loan.next_billing is not None and today >= loan.next_billing and chance.random() < 0.4:
            return writer.bill(today)
        return writer.pay(chance.choice(IDS), chance.choice([1, 1, 7]), today)

    def send(self) -> None:
        """Decide a batch while others may still be on their way."""
        batch = []
        for _ in range(self.chance.choice([1, 2, 6])):
            writer = self.writers[self.chance.choice(LOANS)]
            before = writer.state
            batch.append((self.decide(writer), before))
        self.on_their_way.append(batch)

    async def deliver(self) -> None:
        batch = self.on_their_way.pop(0)
        entries = [entry for entry, _ in batch]
        expected = self.model.append(entries)
        reply = await self.engine.append(self.engine.opened.epoch, entries)
        assert reply.exceptions == expected
        assert reply.head_seq == len(self.model.journal)
        for verdict in reply.exceptions:
            entry, before = batch[verdict.index]
            self.counts[verdict.outcome] += 1
            if verdict.outcome == "taken" and entry.events:
                self.writers[entry.loan_id].state = before
        self.counts["entries"] += len(entries)

    async def project(self) -> None:
        self.tables.grant(self.chance.choice([1, 1, 2, 5]))
        for _ in range(self.chance.choice([1, 4, 12])):
            await asyncio.sleep(0)

    async def check(self) -> None:
        """Everything that can be read is what the model says."""
        engine, model = self.engine, self.model
        assert await engine.load(LOANS) == [model.loaded(loan_id) for loan_id in LOANS]
        loan_id = self.chance.choice(LOANS)
        version = len(model.of_loan[loan_id])
        through = self.chance.choice([version, version, self.chance.randint(0, version)])
        limit = self.chance.choice([1, 2, 3, 500])
        rows = model.payments(loan_id, through)
        before = None
        while True:
            page = await engine.read("payments_page", loan_id, through, before, limit)
            assert [without_pointer(row) for row in page] == rows[:limit]
            rows = rows[limit:]
            if not page:
                break
            before = page[-1][0]
            await self.project()
        assert await engine.read("issued_bills", loan_id, version) == model.bills(loan_id)
        for key in map(key_of, self.chance.sample(IDS, 3)):
            assert await engine.read("owner_of", key) == model.owners.get(key)

    async def end(self) -> None:
        """Project what is left; then the files say what the model says, and nothing else."""
        self.tables.grant(100)  # more than any seed has events
        head = len(self.model.journal)
        assert await self.engine.project_through(head) == head
        await self.check()
        rows = self.bare.journal.execute(
            "SELECT seq, loan_id, version, kind, once_key, hash, body FROM events"
        )
        assert [StoredEvent(*row) for row in rows] == self.model.journal
        keys = [event.once_key for event in self.model.journal if event.once_key is not None]
        assert len(keys) == len(set(keys))
        led_to = {seq: hash_ for hash_, seq in self.bare.tables.execute("SELECT hash, seq FROM once")}
        reached = indexed_seq(self.bare.tables)
        for key, owner in self.model.owners.items():
            assert owner.seq > reached or owner.seq in led_to
            assert led_to.pop(owner.seq, key_hash(key)) == key_hash(key)
        assert not led_to
        self.counts["merged"] += reached > 0
        for loan_id, row in load_rows(self.bare.tables, LOANS).items():
            loaded = self.model.loaded(loan_id)
            assert (row.version, row.head_hash, row.loan) == (loaded.version, loaded.head_hash, loaded.loan)
        await self.stop()


async def run_seed(bare: Bare, seed: int) -> Counter[str]:
    schedule = Schedule(bare, seed)
    await schedule.start()
    for _ in range(schedule.chance.choice([5, 10, 25])):
        steps = {"send": 8, "deliver": 8, "project": 6, "check": 2, "restart": 1}
        if not schedule.on_their_way:
            del steps["deliver"]
        elif len(schedule.on_their_way) > 2:
            del steps["send"]
        step = schedule.chance.choices(list(steps), list(steps.values()))[0]
        if step == "send":
            schedule.send()
        else:
            await getattr(schedule, step)()
        schedule.counts[step] += 1
    await schedule.end()
    return schedule.counts


@pytest.mark.parametrize("chunk", range(CHUNKS))
async def test_no_schedule_breaks_the_rules(bare: Bare, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(engine_module, "GATHER_S", 0)
    counts: Counter[str] = Counter()
    for seed in range(chunk, SEEDS, CHUNKS):
        try:
            counts += await run_seed(bare, seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
        bare.clear()
    assert (
        min(counts[what] for what in ("taken", "stale", "restart", "project", "check")) > SEEDS / CHUNKS / 2
    )
