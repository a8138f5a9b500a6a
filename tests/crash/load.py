"""A load of payments that keeps books of its own, to hold against what a killed service has kept.

Books know what was sent and how it was answered, each noted before it is sent and after it is answered; they
outlive the service. Clients pay from them until the service is gone. `check` is the reckoning on the service
that was started after it: what was acknowledged is there once, what was refused is not, and what nobody knows
is found out by sending it again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp

from ledgerd.control import run_command
from tests.process import Service

LENT = "1000000.00"
TOO_MUCH = "9999999.00"
Answer = tuple[int, dict[str, Any]]


@dataclass
class Payment:
    """One payment as its sender knows it: acknowledged (a receipt), unsure when an answer stayed away, else
    refused.
    """

    transaction_id: str
    loan_id: str
    amount: str
    receipt: dict[str, Any] | None = None
    unsure: bool = False

    @property
    def body(self) -> dict[str, str]:
        return {"loan_id": self.loan_id, "amount": self.amount, "transaction_id": self.transaction_id}

    def note(self, status: int, answer: dict[str, Any]) -> None:
        """Note an answer; it must agree with every one before."""
        if status == 201:
            assert not answer["replayed"]
            assert self.receipt is None or answer == self.receipt, "counted twice"
            self.receipt = answer
        elif status == 200:
            assert answer["replayed"], answer
            first = answer | {"replayed": False}
            assert self.receipt in (None, first), (self.receipt, first)
            self.receipt = first
        elif status == 422:
            assert answer["type"] == "/problems/amount-exceeds-payoff"
            assert self.receipt is None
        elif status == 500:
            assert answer["type"] == "/problems/outcome-unknown"
            self.unsure = True
        else:
            assert status == 503, (status, answer)


@dataclass
class Books:
    """What was sent in all; `open` is what was sent since the last reckoning."""

    token: str
    loan_ids: list[str]
    settled: dict[str, Payment] = field(default_factory=dict)
    open: dict[str, Payment] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    business_date: str = ""


@asynccontextmanager
async def api(service: Service, token: str | None = None, connections: int = 64) -> AsyncIterator[Api]:
    """Speak to the service, with a token, over at most so many connections."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    connector = aiohttp.TCPConnector(limit=connections)
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(
        service.url, connector=connector, headers=headers, timeout=timeout
    ) as session:
        yield Api(session)


class Api:
    """One caller's connections."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, path: str, **query: str) -> Answer:
        async with self._session.get(path, params=query) as response:
            return response.status, await response.json(content_type=None)

    async def text(self, path: str) -> str:
        async with self._session.get(path) as response:
            return await response.text()

    async def post(self, path: str, body: dict[str, Any]) -> Answer:
        async with self._session.post(path, json=body) as response:
            return response.status, await response.json(content_type=None)

    async def pay(self, payment: Payment) -> Answer:
        return await self.post("/api/make-payment/", payment.body)


async def new_client(service: Service, *scopes: str) -> str:
    """Make a client through the running service, and return a token of it."""
    args = {"name": "load", "scopes": list(scopes)}
    client = await run_command(service.config, "create_client", args, lambda _done, _total: None)
    return await client_token(service, client)


async def client_token(service: Service, client: dict[str, Any]) -> str:
    """Log a client in."""
    async with api(service) as caller:
        credentials = {name: client[name] for name in ("client_id", "client_secret")}
        status, granted = await caller.post(
            "/api/token/", {"grant_type": "client_credentials", **credentials}
        )
    assert status == 200, granted
    return str(granted["access_token"])


async def new_loans(service: Service, count: int, amount: str = LENT) -> list[str]:
    """Register a borrower who takes `count` loans, and return their ids."""
    login = {"aadhar_id": "borrower-1", "password": "correct horse battery"}
    async with api(service) as caller:
        person = {"name": "Asha", "email": "asha@example.org", "annual_income": "200000.00", **login}
        status, answer = await caller.post("/api/register-user/", person)
        assert status == 201, answer
        status, granted = await caller.post("/api/login/", login)
        assert status == 200, granted
    async with api(service, granted["access_token"]) as borrower:
        while (await borrower.get("/api/me/"))[1]["score_status"] == "pending":
            pass
        terms = {"amount": amount, "interest_rate": "14", "tenure": 24}
        lent = [await borrower.post("/api/apply-loan/", terms) for _ in range(count)]
    assert {status for status, _ in lent} == {201}, lent
    return [answer["loan_id"] for _, answer in lent]


async def open_books(service: Service, loans: int) -> Books:
    token = await new_client(service, "payments:write", "ops")
    return Books(token, await new_loans(service, loans))


class Load:
    """Clients that pay until the service is gone. `on_answer` hears how many answers there were so far."""

    def __init__(self, books: Books, chance: Random, on_answer: Callable[[int], None]) -> None:
        self.answers = 0
        self.stopping = False  # no more is sent; what was sent is waited for
        self._books = books
        self._chance = chance
        self._on_answer = on_answer

    async def run(self, service: Service, clients: int) -> None:
        """Pay from `clients` coroutines, while one moves the date and bills."""
        async with api(service, self._books.token) as caller:
            await asyncio.gather(self._bill(caller), *(self._pay(caller) for _ in range(clients)))

    async def _pay(self, caller: Api) -> None:
        while not self.stopping:
            payment = self._choose()
            if payment.transaction_id not in self._books.settled:
                self._books.open[payment.transaction_id] = payment
            try:
                status, answer = await caller.pay(payment)
            except (aiohttp.ClientError, ConnectionError):
                payment.unsure = True
                self._books.counts["cut off"] += 1
                return
            payment.note(status, answer)
            self._books.counts[f"answered {status}"] += 1
            self.answers += 1
            self._on_answer(self.answers)

    async def _bill(self, caller: Api) -> None:
        while not self.stopping:
            days = self._chance.randint(1, 12)
            try:
                for path, body in (("sandbox/advance-clock", {"days": days}), ("billing-runs", {})):
                    status, answer = await caller.post(f"/api/{path}/", body)
                    if status == 200 and "billing_runs" in answer:
                        self._books.business_date = answer["business_date"]
            except (aiohttp.ClientError, ConnectionError):
                return

    def _choose(self) -> Payment:
        """Mostly a new payment, half of them on the first loan; some sent before; some that are too much."""
        books, chance = self._books, self._chance
        kind = chance.random()
        if kind < 0.25 and books.open:
            return chance.choice(list(books.open.values())[-40:])
        if kind < 0.30 and books.settled:
            return chance.choice([payment for payment in books.settled.values() if payment.receipt])
        number = len(books.settled) + len(books.open)
        loan_id = books.loan_ids[0] if chance.random() < 0.5 else chance.choice(books.loan_ids)
        amount = TOO_MUCH if kind > 0.95 else f"0.{chance.randint(1, 99):02d}"
        return Payment(f"t-{number}", loan_id, amount)


async def check(books: Books, service: Service) -> None:
    """Hold the books against what the service has, and settle what was open."""
    async with api(service, books.token, connections=16) as caller:
        await asyncio.gather(*(_settle(books, caller, payment) for payment in books.open.values()))
        books.settled |= books.open
        books.open = {}
        for loan_id in books.loan_ids:
            await _check_loan(books, caller, loan_id)


async def _settle(books: Books, caller: Api, payment: Payment) -> None:
    status, found = await caller.get(f"/api/payments/{payment.transaction_id}/")
    if payment.receipt is None and not payment.unsure:
        assert status == 404, found
        books.counts["refused"] += 1
        return
    if payment.receipt is None:
        books.counts["unknown, was there" if status == 200 else "unknown, was not"] += 1
    else:
        books.counts["acknowledged"] += 1
        if status != 200:
            books.counts["lost"] += 1
        assert (status, found) == (200, payment.receipt)
    was_there = status == 200
    status, answer = await caller.pay(payment)
    expected = 200 if was_there else 422 if payment.amount == TOO_MUCH else 201
    assert status == expected, (status, answer)
    payment.note(status, answer)


async def _check_loan(books: Books, caller: Api, loan_id: str) -> None:
    statement, rows = await _whole_statement(caller, loan_id)
    receipts = {
        payment.transaction_id: payment.receipt
        for payment in books.settled.values()
        if payment.loan_id == loan_id and payment.receipt is not None
    }
    books.counts["doubled"] += sum(n - 1 for n in Counter(row["transaction_id"] for row in rows).values())
    assert len(rows) == len(receipts)
    for row in rows:
        receipt = receipts[row["transaction_id"]]
        assert row["amount_paid"] == receipt["amount"]
        for name in ("payment_id", "recorded_at", "interest", "principal", "allocations"):
            assert row[name] == receipt[name]
    lent, outstanding = _paise(LENT), _paise(statement["outstanding"]["principal"])
    assert outstanding == lent - sum(_paise(row["principal"]) for row in rows)
    for row in rows:
        assert _paise(row["amount_paid"]) == _paise(row["interest"]) + _paise(row["principal"])
    assert statement["as_of"] >= books.business_date, "the business date went back"


async def _whole_statement(caller: Api, loan_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    query = {"loan_id": loan_id, "limit": "500"}
    status, first = await caller.get("/api/get-statement/", **query)
    assert status == 200, first
    rows, cursor = first["past_transactions"], first["next_cursor"]
    while cursor is not None:
        _, page = await caller.get("/api/get-statement/", **query, cursor=cursor)
        rows, cursor = rows + page["past_transactions"], page["next_cursor"]
    return first, rows


def _paise(rupees: str) -> int:
    whole, _, hundredths = rupees.partition(".")
    return int(whole) * 100 + int(hundredths)
