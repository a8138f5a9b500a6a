"""A simulated year: however the nightly run runs, the ledger is the same to the last hash.

A book of seeded loans of both plans is lent and paid over a year of business days, once with no scheduler at
all, once with the nightly run, once with two at a time, and once killed again and again at any call to the
store, on files that are opened anew each time; there whoever has no answer sends the same again. Payments of
the day come while the run goes on. At the end every loan's history and every statement, as the API renders
it, are compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from ledgerd.actors.messages import Accepted, Replayed, View
from ledgerd.domain.commands import Disburse, Repay
from ledgerd.domain.events import Terms
from ledgerd.domain.money import daily_rate
from ledgerd.http.loans import get_statement
from ledgerd.ids import format_id
from ledgerd.storage.ports import StoreError
from ledgerd.storage.verify import verify_files
from tests.scheduler.house import BORROWER, NOW_S, START, House, abandon
from tests.scheduler.mortal import Disk, Mortal
from tests.storage.books import RULES, add_borrower

LOANS = 36
DAYS = 365
CALLS_A_LIFE = 150  # at most, where lives are short
NOW_MS = int(NOW_S * 1000)


@dataclass
class Book:
    """What happens in the year, by day. A payment's amount is settled when it is first sent."""

    lends: dict[int, list[tuple[int, Terms]]] = field(default_factory=dict)
    pays: dict[int, list[tuple[int, int, str]]] = field(default_factory=dict)  # loan, payment, how much
    amounts: dict[int, int] = field(default_factory=dict)


def book(seed: int) -> Book:
    made, chance, payments = Book(), Random(seed), 0
    for number in range(LOANS):
        lent_on = START + chance.choice([0, 0, chance.randrange(DAYS - 60)])
        apr = chance.choice([0, 14_00, 36_00])
        plan = chance.choice(["min_due", "equal_emi"])
        tenure = chance.choice([1, 3, 12, 24])
        terms = Terms(chance.randint(1, 9_000_00), apr, daily_rate(apr), tenure, plan, lent_on, 30, 15, 3_00)
        loan_id = (number + 1) << 40
        made.lends.setdefault(lent_on, []).append((loan_id, terms))
        for _ in range(chance.randrange(2, 20)):
            payments += 1
            day = chance.choice(
                [lent_on + 30 * chance.randrange(1, 12), chance.randrange(lent_on, START + DAYS)]
            )
            how = chance.choices(["asked", "part", "paisa", "all"], [6, 4, 2, 1])[0]
            made.pays.setdefault(day, []).append((loan_id, payments, how))
    return made


class Year:
    """One way to live through a book, on a disk of its own. `billings` is how many run each night."""

    def __init__(self, seed: int, folder: Path, billings: int, *, kills: bool = False) -> None:
        self.book = book(seed)
        self.disk = Disk.new(folder)
        self.billings = billings
        self.kills = kills
        self.lives = 0
        self.home: House
        self._chance = Random(seed)
        self._day = START

    async def live(self) -> None:
        engine = await self.disk.open()
        await add_borrower(engine, BORROWER)
        self._move_in()
        for self._day in range(START, START + DAYS):
            while not await self._done(self._one_day()):
                pass
        self.billings = 1
        while not await self._done(self._night()):  # what nobody has touched is billed as well
            pass

    async def _done(self, work: Awaitable[None]) -> bool:
        """Whether it could be done; else everybody was killed meanwhile, and has started anew."""
        try:
            await work
        except StoreError:
            assert self.home.engine.dead
            await abandon(self.home, self.disk)
            await self.disk.open()
            self._move_in()
            return False
        return True

    def _move_in(self) -> None:
        """Start a life on the disk. Each has runs of its own."""
        assert self.disk.engine is not None
        last_call = self._chance.randint(1, CALLS_A_LIFE) if self.kills else None
        mortal = Mortal(self.disk.engine, last_call, reaches_disk=self._chance.random() < 0.5)
        self.home = House(mortal, window=7)
        self.lives += 1
        self.home.run_ids = self.home.ids = type(self.home.ids)(lambda: NOW_S, Random(self.lives).getrandbits)

    async def _one_day(self) -> None:
        self.home.clock.set(self._day)
        for loan_id, terms in self.book.lends.get(self._day, ()):
            command = Disburse(BORROWER, terms, NOW_MS, f"loan-{loan_id}")
            if await self.home.engine.read("owner_of", command.once_key) is None:
                assert isinstance(await self.home.registry.ask(loan_id, command, new=True), Accepted)
        done = await asyncio.gather(self._night(), self._pay(), return_exceptions=True)
        for error in done:
            if error is not None:
                raise error

    async def _night(self) -> None:
        billings = [self.home.new_billing() for _ in range(self.billings)]
        done = await asyncio.gather(*(each.tonight() for each in billings), return_exceptions=True)
        for error in done:
            if error is not None:
                raise error

    async def _pay(self) -> None:
        for loan_id, number, how in self.book.pays.get(self._day, ()):
            if number not in self.book.amounts:
                self.book.amounts[number] = await self._amount(loan_id, how)
            amount = self.book.amounts[number]
            if amount == 0:  # there was nothing to pay
                continue
            answer = await self.home.registry.ask(
                loan_id, Repay("c:1", f"t-{number}", amount, number, NOW_MS)
            )
            assert isinstance(answer, Accepted | Replayed), answer

    async def _amount(self, loan_id: int, how: str) -> int:
        view = await self.home.registry.ask(loan_id, None)
        assert isinstance(view, View)
        payoff = view.loan.payoff_paise(self._day)
        asked = sum(bill.amount_paise for bill in view.loan.unpaid_bills)
        wanted = {"asked": asked or payoff // 7, "part": asked // 2 or payoff // 3, "paisa": 1, "all": payoff}
        return min(payoff, wanted[how])

    async def figures(self) -> tuple[dict[int, Any], dict[int, bytes]]:
        """Each loan's history, and its statement as the API renders it; then the files are verified."""
        assert self.disk.engine is not None
        home = House(self.disk.engine)
        home.clock.set(START + DAYS - 1)
        history = await home.journal()
        services: Any = SimpleNamespace(registry=home.registry, store=home.engine)
        statements = {}
        for loan_id in history:
            query = {"loan_id": format_id(loan_id), "limit": "500"}
            call: Any = SimpleNamespace(caller=SimpleNamespace(kind="client"), query=query, loan_id=None)
            statements[loan_id] = msgspec.json.encode((await get_statement(services, call)).body)
        await abandon(home, self.disk)
        report = verify_files(self.disk.tables, self.disk.journal, RULES, lambda *_: None)
        assert report.differences == []
        return history, statements


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_year_is_the_same_however_the_nightly_run_runs(seed: int, tmp_path: Path):
    years = {
        "off": Year(seed, tmp_path / "off", 0),
        "on": Year(seed, tmp_path / "on", 1),
        "doubled": Year(seed, tmp_path / "doubled", 2),
        "killed": Year(seed, tmp_path / "killed", 1, kills=True),
    }
    for year in years.values():
        await year.live()
    assert years["killed"].lives > 20
    histories, statements = await years["off"].figures()
    assert len(histories) == LOANS
    kinds = [row[1] for history in histories.values() for row in history]
    assert kinds.count("billed") > 150
    assert kinds.count("paid") > 150
    for name in ("on", "doubled", "killed"):
        other_histories, other_statements = await years[name].figures()
        assert other_histories == histories, name
        assert other_statements == statements, name
