"""A load of payments that keeps books of its own, to hold against what a killed service has kept.

Everything is noted in the books (books.py) before it is sent and after it is answered. Clients pay until the
service is gone, one by one, in arrays and in streams; others look at loans, borrow, move the date. `check` is
the reckoning on the service that was started after it: what was acknowledged is there once, what was refused
is not, and what nobody knows is found out by sending it again.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any

import aiohttp

from ledgerd.control import run_command
from tests.crash.books import Application, Books, Payment, in_real_order, paise
from tests.process import Service

LENT = "1000000.00"
TOO_MUCH = "9999999.00"
BATCH_MAX = 6
APPLICATIONS_A_LIFE = 2
GONE = (aiohttp.ClientError, ConnectionError)
Answer = tuple[int, dict[str, Any]]


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

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        async with self._session.post(path, json=body, headers=headers) as response:
            return response.status, await response.json(content_type=None)

    async def pay(self, payment: Payment) -> Answer:
        return await self.post("/api/make-payment/", payment.body)

    async def pay_streamed(self, payments: Sequence[Payment]) -> AsyncIterator[dict[str, Any]]:
        """Send payments as a stream of lines; yield the results as they come."""
        lines = b"".join(json.dumps(payment.body).encode() + b"\n" for payment in payments)
        headers = {"Content-Type": "application/x-ndjson"}
        async with self._session.post("/api/make-payments/", data=lines, headers=headers) as response:
            if response.status == 200:
                async for line in response.content:
                    yield json.loads(line)
            else:
                problem = await response.json(content_type=None)
                for _ in tuple(payments):
                    yield {"status": response.status, "problem": problem}

    async def apply(self, application: Application) -> Answer:
        key = {"Idempotency-Key": application.key}
        return await self.post("/api/apply-loan/", application.body, **key)


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
    return (await borrow(service, count, amount))[1]


async def borrow(service: Service, count: int, amount: str = LENT) -> tuple[str, list[str]]:
    """Register a borrower who takes `count` loans; return a token of theirs, and the loans' ids."""
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
    return granted["access_token"], [answer["loan_id"] for _, answer in lent]


async def open_books(service: Service, loans: int) -> Books:
    token = await new_client(service, "payments:write", "ops")
    borrower_token, loan_ids = await borrow(service, loans)
    return Books(token, loan_ids, borrower_token=borrower_token)


class Load:
    """Clients that pay until the service is gone. `on_answer` hears how many answers there were so far."""

    def __init__(self, books: Books, chance: Random, on_answer: Callable[[int], None]) -> None:
        self.answers = 0
        self.stopping = False  # no more is sent; what was sent is waited for
        self._books = books
        self._chance = chance
        self._on_answer = on_answer

    async def run(self, service: Service, clients: int) -> None:
        """Pay from `clients` coroutines, while others look on, borrow, and move the date and bill."""
        async with api(service, self._books.token) as caller, api(service, self._books.borrower_token) as own:
            await asyncio.gather(
                self._bill(caller),
                self._look(caller),
                self._borrow(own),
                *(self._pay(caller) for _ in range(clients)),
            )

    async def _pay(self, caller: Api) -> None:
        while not self.stopping:
            kind = self._chance.random()
            waiting = list[Payment]()
            for _ in range(1 if kind < 0.8 else self._chance.randint(1, BATCH_MAX)):
                waiting.append(self._choose())
                self._books.sending(waiting[-1])
            try:
                async for result in self._results(caller, kind, waiting):
                    payment = waiting.pop(0)
                    assert result.get("transaction_id", payment.transaction_id) == payment.transaction_id
                    self._heard(payment, result["status"], result.get("receipt") or result["problem"])
            except GONE:
                self._books.counts["cut off"] += 1
                return
            finally:
                for payment in waiting:  # what has no result is unknown
                    payment.unsure = True

    async def _results(
        self, caller: Api, kind: float, payments: Sequence[Payment]
    ) -> AsyncIterator[dict[str, Any]]:
        """Send payments alone, as an array or as a stream, and yield a result of each that has one."""
        if kind >= 0.9:
            async with aclosing(caller.pay_streamed(payments)) as results:
                async for result in results:
                    if result.get("transaction_id", "") is None:
                        return  # the stream ended early
                    yield result
            return
        if kind >= 0.8:
            bodies = [payment.body for payment in payments]
            status, answer = await caller.post("/api/make-payments/", bodies)
        else:
            [payment] = payments
            status, answer = await caller.pay(payment)
        if status == 200 and kind >= 0.8:
            assert len(answer) == len(payments)
            for result in answer:
                yield result
        else:  # of each, also where an array was refused whole
            name = "receipt" if status in {200, 201} else "problem"
            for _ in tuple(payments):
                yield {"status": status, name: answer}

    def _heard(self, payment: Payment, status: int, answer: dict[str, Any]) -> None:
        self._books.heard(payment, status, answer)
        self._books.counts[f"answered {status}"] += 1
        self.answers += 1
        self._on_answer(self.answers)

    async def _look(self, caller: Api) -> None:
        """Look at loans: what was known when it was asked for must be seen."""
        while not self.stopping:
            loan_id = self._chance.choice(self._books.loan_ids)
            floor = self._books.floor(loan_id)
            known = replace(floor)
            try:
                status, seen = await caller.get(f"/api/loans/{loan_id}/")
            except GONE:
                return
            if status == 200:
                known.holds(seen)
                floor.learn(seen)
                self._books.counts["looks"] += 1
            else:
                assert status in {500, 503}, (status, seen)

    async def _borrow(self, caller: Api) -> None:
        """Apply for a few loans, each under a key of its own, now and then twice."""
        for _ in range(APPLICATIONS_A_LIFE):
            number = len(self._books.lent) + len(self._books.applications)
            application = Application(f"a-{number}", f"{self._chance.randint(1, 900)}.00")
            self._books.applications.append(application)
            for _ in range(self._chance.randint(1, 2)):
                if self.stopping:
                    return
                try:
                    status, answer = await caller.apply(application)
                except GONE:
                    application.unsure = True
                    return
                application.note(status, answer)

    async def _bill(self, caller: Api) -> None:
        while not self.stopping:
            days = self._chance.randint(1, 12)
            try:
                for path, body in (("sandbox/advance-clock", {"days": days}), ("billing-runs", {})):
                    status, answer = await caller.post(f"/api/{path}/", body)
                    if status == 200 and "billing_runs" in answer:
                        self._books.business_date = answer["business_date"]
            except GONE:
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
    if books.borrower_token:
        async with api(service, books.borrower_token) as own:
            await _check_applications(books, own)


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
    books.heard(payment, status, answer)


async def _check_loan(books: Books, caller: Api, loan_id: str) -> None:
    statement, rows = await _whole_statement(caller, loan_id)
    payments = {
        payment.transaction_id: payment
        for payment in books.settled.values()
        if payment.loan_id == loan_id and payment.receipt is not None
    }
    books.counts["doubled"] += sum(n - 1 for n in Counter(row["transaction_id"] for row in rows).values())
    assert len(rows) == len(payments)
    for row in rows:
        receipt = payments[row["transaction_id"]].receipt
        assert receipt is not None
        assert row["amount_paid"] == receipt["amount"]
        for name in ("payment_id", "recorded_at", "interest", "principal", "allocations"):
            assert row[name] == receipt[name]
    lent, outstanding = paise(LENT), paise(statement["outstanding"]["principal"])
    assert outstanding == lent - sum(paise(row["principal"]) for row in rows)
    for row in rows:
        assert paise(row["amount_paid"]) == paise(row["interest"]) + paise(row["principal"])
    assert statement["as_of"] >= books.business_date, "the business date went back"
    in_real_order([payments[row["transaction_id"]] for row in reversed(rows)])
    status, seen = await caller.get(f"/api/loans/{loan_id}/")
    assert status == 200, seen
    floor = books.floor(loan_id)
    floor.holds(seen)
    floor.learn(seen)


async def _check_applications(books: Books, own: Api) -> None:
    """What was asked for under a key was lent once, and nothing else was."""
    for application in books.applications:
        first = {200, 201} if application.unsure else {201}
        for expected in ({200} if application.loan is not None else first, {200}):
            status, answer = await own.apply(application)
            assert status in expected, (status, answer)
            application.note(status, answer)
        assert application.loan is not None
        books.lent.append(application.loan["loan_id"])
        books.counts["applications"] += 1
    books.applications = []
    listed, cursor = list[str](), None
    while True:
        query = {"limit": "500"} if cursor is None else {"limit": "500", "cursor": cursor}
        status, page = await own.get("/api/loans/", **query)
        assert status == 200, page
        listed += [loan["loan_id"] for loan in page["loans"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert sorted(listed) == sorted(books.loan_ids + books.lent), "lent other than what was asked for"


async def _whole_statement(caller: Api, loan_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    query = {"loan_id": loan_id, "limit": "500"}
    status, first = await caller.get("/api/get-statement/", **query)
    assert status == 200, first
    rows, cursor = first["past_transactions"], first["next_cursor"]
    while cursor is not None:
        _, page = await caller.get("/api/get-statement/", **query, cursor=cursor)
        rows, cursor = rows + page["past_transactions"], page["next_cursor"]
    return first, rows
