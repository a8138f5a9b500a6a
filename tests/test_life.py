"""Whole lives over HTTP: one told in full on real files, and random ones against the reference, to the paisa.

A random world has a handful of loans that live for a year side by side. Days pass, with the nightly jobs or
with nobody awake; payments of all kinds come in, also too large, doubled and guarded; and after each step
every figure that the service shows is the reference's. A world is known by its seed.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import pytest

from ledgerd.app import score_rules
from ledgerd.config import Identity, Lending, Scoring
from ledgerd.storage.verify import verify_files
from tests.http.outside import START, Answer, Caller, World, config_in, on_disk, opened
from tests.reference import ReferenceLoan

WORLDS = int(os.environ.get("LIFE_WORLDS", "4"))  # more for a longer look
LOANS_EACH = 9
YEAR_DAYS = 365
RECEIPT_ONLY = {"payment_id", "transaction_id", "loan_id", "status", "recorded_at", "replayed"}

OpenWorld = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture
def open_world(aiohttp_client, tmp_path) -> OpenWorld:
    def open_one(time=None, **sections: Any) -> AbstractAsyncContextManager[World]:
        return opened(aiohttp_client, config_in(tmp_path, **sections), time)

    return open_one


def verified(world: World) -> bool:
    """`verify` finds no difference in the files that this world left."""
    storage = world.service.config.storage
    report = verify_files(
        storage.tables_path, storage.journal_path, score_rules(world.service.config), lambda *_: None
    )
    assert report.differences == []
    return report.events > 0


# Random lives -------------------------------------------------------------------------------------


@dataclass
class Life:
    """One loan, told twice."""

    world: World
    chance: random.Random
    owner: Caller
    loan_id: str
    reference: ReferenceLoan
    told: str
    receipts: list[dict[str, Any]] = field(default_factory=list)  # newest first
    callers: dict[str, Caller] = field(default_factory=dict)  # who made which payment
    steps: int = 0

    async def step(self) -> None:
        """Pay something, or try to, and compare all that is shown."""
        chance, reference = self.chance, self.reference
        reference.advance_to(self.world.today)
        if chance.random() < 0.3:
            await self.compare()  # before anything touches the loan
        if self.receipts and chance.random() < 0.2:
            await self.retry(chance.choice(self.receipts))
        amount, for_bill = self.amount(), self.guard()
        who = self.owner if chance.random() < 0.6 else self.world.payer
        answer = await self.world.pay(who, self.loan_id, amount, for_bill=for_bill)
        told = f"{self.told}: {amount} for {for_bill} on {self.world.today}"
        expected = reference.pay(amount, for_bill)
        if "refused" in expected:
            assert shown_refusal(answer) == expected, told
        else:
            assert answer.status == 201, f"{told}: {answer.body!r}"
            receipt = answer.json
            assert {name: receipt[name] for name in receipt.keys() - RECEIPT_ONLY} == expected, told
            self.receipts.insert(0, receipt)
            self.callers[receipt["transaction_id"]] = who
        self.steps += 1
        await self.compare()

    def amount(self) -> str:
        """Something to pay: a bill, all bills, a share of the payoff, all of it, a little, or too much."""
        chance, reference = self.chance, self.reference
        upcoming = reference.upcoming()
        payoff_paise = paise(reference.payoff())
        choices = {
            "next": paise(upcoming[0]["amount_due"]) if upcoming else 1,
            "bills": sum(paise(bill["amount_due"]) for bill in upcoming if asked(bill, reference)),
            "share": payoff_paise * chance.randint(1, 40) // 100,
            "tiny": chance.randint(1, 300),
            "payoff": payoff_paise,
            "too much": payoff_paise + chance.choice([1, 2, 12_345]),
        }
        kind = chance.choices(list(choices), [40, 15, 20, 12, 3, 10])[0]
        amount_paise = max(1, choices[kind])
        return f"{amount_paise // 100}.{amount_paise % 100:02d}"

    def guard(self) -> int | None:
        """Mostly none; else the oldest unpaid bill, or one near it."""
        chance = self.chance
        if chance.random() < 0.75:
            return None
        unpaid = [bill["number"] for bill in self.reference.bills() if bill["status"] != "paid"]
        return max(1, (unpaid[0] if unpaid else 1) + chance.choice([0, 0, 0, 1, -1]))

    async def retry(self, receipt: dict[str, Any]) -> None:
        """Send an earlier payment again: the first receipt, whatever has happened since."""
        transaction_id = receipt["transaction_id"]
        who = self.callers[transaction_id]
        again = await self.world.pay(who, self.loan_id, receipt["amount"], transaction_id)
        assert (again.status, again.json) == (200, receipt | {"replayed": True}), self.told

    async def compare(self) -> None:
        """Every figure of the loan and its statement."""
        reference, told = self.reference, f"{self.told} on {self.world.today}"
        loan = await self.world.loan(self.owner, self.loan_id)
        assert loan["status"] == reference.status(), told
        assert loan["outstanding"] == reference.outstanding(), told
        assert loan["payoff"] == reference.payoff(), told
        assert loan["past_due"] == reference.past_due(), told
        assert loan["next_due"] == reference.next_due(), told
        totals = reference.totals()
        for name in ("interest_received", "principal_received"):
            assert loan[name] == totals[name], told
        statement = await self.world.statement(self.owner, self.loan_id)
        assert statement["bills"] == reference.bills(), told
        for name in ("status", "outstanding", "payoff", "past_due", "as_of"):
            assert statement[name] == loan[name], told
        assert [as_receipt(each) for each in statement["past_transactions"]] == [
            {name: receipt[name] for name in as_receipt(each)}
            for receipt, each in zip(self.receipts, statement["past_transactions"], strict=True)
        ], told
        if self.chance.random() < 0.4:  # the reference walks through every day of these
            assert loan["emi_schedule"] == reference.schedule(), told
            assert statement["upcoming_emis"] == reference.upcoming(), told


def asked(bill: dict[str, Any], reference: ReferenceLoan) -> bool:
    """Whether it is issued, and not only projected."""
    return bill["number"] <= len(reference.bills())


def paise(rupees: str) -> int:
    return int(rupees.replace(".", ""))


def as_receipt(past: dict[str, Any]) -> dict[str, Any]:
    """A row of a statement under the names of a receipt."""
    named = {"paid_on": past["date"], "amount": past["amount_paid"]}
    same = ("payment_id", "transaction_id", "recorded_at", "principal", "interest", "status", "allocations")
    return named | {name: past[name] for name in same}


def shown_refusal(answer: Answer) -> dict[str, Any]:
    extras = {name: answer.json[name] for name in ("payoff", "unpaid_bills") if name in answer.json}
    return {"refused": answer.slug, **extras}


async def begin(world: World, chance: random.Random, seed: int, number: int) -> Life:
    """Lend somebody something."""
    owner = await world.borrower()
    plan = chance.choice(["min_due", "equal_emi"])
    amount_paise = chance.choice([5_000_00, chance.randint(1_00, 5_000_00), chance.randint(1, 300)])
    amount = f"{amount_paise // 100}.{amount_paise % 100:02d}"
    apr = chance.choice(
        ["0", "12", "14", "24", "100", f"{chance.randint(0, 99)}.{chance.randint(0, 99):02d}"]
    )
    tenure = chance.choice([1, 2, 3, 6, 10, 12, 18])
    lent = await world.lend(owner, amount, apr, tenure, repayment_plan=plan)
    reference = ReferenceLoan(amount, apr, tenure, plan, world.today)
    told = f"world {seed}, loan {number}: {amount} at {apr} over {tenure}, {plan}"
    assert lent["emi_schedule"] == reference.schedule(), told
    assert (lent["amount"], lent["disbursed_on"]) == (amount, world.today.isoformat())
    return Life(world, chance, owner, lent["loan_id"], reference, told)


async def live_a_year(world: World, seed: int) -> int:
    """Live the lives of one world, and return how many steps they took."""
    chance = random.Random(seed)
    lives = [await begin(world, chance, seed, number) for number in range(LOANS_EACH)]
    while (world.today - START).days < YEAR_DAYS:
        days = chance.choice([0, 1, 1, 3, 7, 14, 30, 31])
        if days and chance.random() < 0.5:
            await world.advance(days)
        else:
            world.jump(days)
            if chance.random() < 0.2:  # a late run, perhaps for an earlier day
                date = world.today - dt.timedelta(chance.choice([0, 0, 3, 40]))
                await world.post("/api/billing-runs/", {"date": date.isoformat()}, world.ops)
        for life in lives:
            if chance.random() < (0.4 if life.reference.status() == "active" else 0.05):
                await life.step()
    for life in lives:
        life.reference.advance_to(world.today)
        await life.compare()
    listed = (await world.get("/api/loans/", world.ops)).json["loans"]
    assert [each["loan_id"] for each in listed] == [life.loan_id for life in lives]
    assert [each["payoff"] for each in listed] == [life.reference.payoff() for life in lives]
    return sum(life.steps for life in lives)


@pytest.mark.parametrize("seed", range(WORLDS))
async def test_a_year_of_random_lives_is_the_reference_s_to_the_paisa(open_world, tmp_path, seed):
    if seed % 4:
        async with open_world() as world:
            steps = await live_a_year(world, seed)
    else:  # on real files, behind the store process; then everything is computed once more
        async with open_world(storage=on_disk(tmp_path)) as world:
            steps = await live_a_year(world, seed)
        assert verified(world)
    assert steps > 5 * LOANS_EACH, "the lives have become too short to show anything"


async def test_payments_while_days_pass_and_others_read_are_as_if_one_by_one(open_world, tmp_path):
    """Payments, reads, billing runs and the date all at once: the receipts, put in their order, are those
    of the reference living the same days; and each statement is of one moment.
    """
    async with open_world(storage=on_disk(tmp_path)) as world:
        owner = await world.borrower()
        loan_id = (await world.lend(owner, "5000.00", "24", 6))["loan_id"]
        amounts = [f"{10 + number % 7}.{number:02d}" for number in range(60)]

        async def days_pass() -> None:
            for _ in range(20):
                await world.advance(4)
                await world.post("/api/billing-runs/", None, world.ops)

        async def pay(numbers: range) -> list[Answer]:
            return [await world.pay(owner, loan_id, amounts[number], f"t{number}") for number in numbers]

        async def read() -> list[dict[str, Any]]:
            return [await world.statement(owner, loan_id, "&limit=500") for _ in range(30)]

        _, *paid, statements = await asyncio.gather(
            days_pass(), *(pay(range(first, 60, 4)) for first in range(4)), read()
        )
        receipts = {answer.json["payment_id"]: answer.json for answers in paid for answer in answers}
        whole = await world.statement(owner, loan_id, "&limit=500")
        reference = ReferenceLoan("5000.00", "24", 6, "min_due", START)
        for past in reversed(whole["past_transactions"]):
            receipt = receipts.pop(past["payment_id"])
            reference.advance_to(dt.date.fromisoformat(receipt["paid_on"]))
            shown = {name: receipt[name] for name in receipt.keys() - RECEIPT_ONLY}
            assert shown == reference.pay(receipt["amount"])
        assert receipts == {}
        reference.advance_to(world.today)
        assert (whole["bills"], whole["payoff"]) == (reference.bills(), reference.payoff())
        for statement in statements:
            received = sum(paise(past["principal"]) for past in statement["past_transactions"])
            assert received + paise(statement["outstanding"]["principal"]) == 5_000_00
    assert verified(world)


# One life in full ---------------------------------------------------------------------------------


async def test_one_life_from_registration_to_the_last_statement(open_world, tmp_path):
    """On real files, with a restart in the middle: what a borrower, a payer and an operator see of it."""
    number = "234567890124"
    history = tmp_path / "history.csv"
    rows = [f"{number},2024-03-01,CREDIT,600000.00", f"{number},2024-03-02,DEBIT,31550.00"]
    history.write_text("\n".join(["AADHAR ID,Date,Transaction_type,Amount", *rows, ""]))
    sections = {
        "storage": on_disk(tmp_path),
        "identity": Identity(kind="aadhaar"),
        "lending": Lending(),
        "scoring": Scoring(transactions_csv=str(history)),
    }
    async with open_world(**sections) as world:
        world.secrets.add(number)
        asha = await world.borrower(name="Asha Rao", email="asha@example.com", aadhar_id=number)
        assert (await world.scored(asha))["credit_score"] == 670  # from a balance of 568,450.00
        loan = (await world.lend(asha, "5000.00", "14", 12))["loan_id"]
        reference = ReferenceLoan("5000.00", "14", 12, "min_due", START)
        await world.advance(30)
        assert (await world.pay(asha, loan, "207.00", "january", for_bill=1)).status == 201
        await world.advance(50)  # the second bill goes past its due date
        reference.advance_to(START + dt.timedelta(30))
        reference.pay("207.00")
        reference.advance_to(world.today)
        statement = await world.statement(asha, loan)
        assert (statement["past_due"], statement["bills"]) == (reference.past_due(), reference.bills())
        assert statement["past_due"] != "0.00"
        late = await world.pay(world.payer, loan, statement["past_due"], "february")
        assert late.json["allocations"][0]["bill"] == 2
        reference.pay(statement["past_due"])
        before, time, payer = await world.statement(asha, loan), world.time, world.payer
        assert number not in str(before)
    assert verified(world)
    async with open_world(time=time, **sections) as world:
        world.secrets.add(number)
        assert world.today == START + dt.timedelta(80), "the sandbox's date is kept"
        assert await world.statement(asha, loan) == before
        again = await world.pay(payer, loan, late.json["amount"], "february")
        assert again.json == late.json | {"replayed": True}
        await world.advance(25)
        reference.advance_to(world.today)
        payoff = (await world.loan(asha, loan))["payoff"]
        assert payoff == reference.payoff()
        assert (await world.pay(asha, loan, payoff, "the-rest")).json["loan_status"] == "closed"
        reference.pay(payoff)
        statement = await world.statement(asha, loan)
        assert (statement["status"], statement["bills"]) == ("closed", reference.bills())
        paid = [each["transaction_id"] for each in statement["past_transactions"]]
        assert paid == ["the-rest", "february", "january"]
    assert verified(world)
    # The number lies in no file but encrypted, and no secret lies in any.
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path != history]
    assert len(files) >= 4
    for path in files:
        content = path.read_bytes()
        assert number.encode() not in content, path.name
        for secret in world.secrets | {asha.token, asha.refresh_token, payer.token, payer.secret}:
            assert secret.encode() not in content, path.name
