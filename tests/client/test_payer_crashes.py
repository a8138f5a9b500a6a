"""The client while the real service is killed and started again, and while it is overloaded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from ledgerd.client import Client, Payment, Receipt, Result
from ledgerd.config import Limits
from ledgerd.control import run_command
from tests.client.conftest import client_of, paid_on_statement
from tests.client.gate import Gate
from tests.client.stub import IMPATIENT
from tests.crash.load import borrow
from tests.process import Service, serving, write_config

BEFORE, AFTER = 2_500, 50  # payments of each payer until the service is up again, and then


class Payer:
    """Pays to a loan in one way, and notes each receipt."""

    def __init__(self, client: Client, loan: str, name: str) -> None:
        self.client, self.loan, self.name = client, loan, name
        self.holds = False  # its results, while much is under way, until the service is killed
        self.begun, self.killed, self.goes_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.receipts: dict[str, int] = {}

    async def payments(self) -> AsyncIterator[Payment]:
        for number in range(BEFORE):
            if not self.goes_on.is_set():
                yield self.payment(number)
        await self.goes_on.wait()
        for number in range(BEFORE, BEFORE + AFTER):
            yield self.payment(number)

    def payment(self, number: int) -> Payment:
        return Payment(self.loan, 1 + number % 5, f"{self.name}-{number}")

    async def singly(self) -> AsyncIterator[Result]:
        async for payment in self.payments():
            yield Result(payment, await self.client.pay(payment))

    async def run(self, results: AsyncIterator[Result]) -> None:
        async for result in results:
            assert isinstance(result.outcome, Receipt), result
            assert result.outcome.transaction_id == result.payment.transaction_id
            assert result.payment.transaction_id not in self.receipts
            self.receipts[result.payment.transaction_id] = result.payment.amount_paise
            if len(self.receipts) == 10:
                self.begun.set()
                if self.holds:
                    await self.killed.wait()


async def test_each_payment_counts_once_though_the_service_is_killed_under_it(tmp_path):
    config_path = write_config(tmp_path)
    with serving(config_path) as first:
        _, loans = await borrow(first, 3)
        args = {"name": "payer", "scopes": ["payments:write", "ops"]}
        made = await run_command(first.config, "create_client", args, lambda _done, _total: None)
        async with (
            Gate.to(first.port) as gate,
            Client(
                gate.url, made["client_id"], made["client_secret"], **IMPATIENT | {"retry_for_s": 30}
            ) as client,
        ):
            payers = [Payer(client, loan, name) for loan, name in zip(loans, "abc", strict=True)]
            alone, batch, stream = payers
            stream.holds = True
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(alone.run(alone.singly()))
                tasks.create_task(batch.run(client.pay_many(batch.payments(), batch=20)))
                tasks.create_task(stream.run(client.stream(stream.payments())))
                for payer in payers:
                    await payer.begun.wait()
                await asyncio.to_thread(first.kill)
                stream.killed.set()
                second = await asyncio.to_thread(Service, config_path)
                gate.target = second.port
                for payer in payers:
                    payer.goes_on.set()
            for payer in payers:
                assert f"{payer.name}-{BEFORE + AFTER - 1}" in payer.receipts
                assert await paid_on_statement(client, payer.loan) == payer.receipts
        assert await asyncio.to_thread(second.stop) == 0


async def test_an_overloaded_service_is_asked_again_when_it_says(open_world):
    async with open_world(limits=Limits(in_flight=4)) as world:
        loan = (await world.lend(await world.borrower()))["loan_id"]
        async with client_of(world) as client:
            await client.loan(loan)
            began_s = time.monotonic()
            payments = [Payment(loan, 1, f"t-{number}") for number in range(8)]
            receipts = await asyncio.gather(*map(client.pay, payments))
            assert time.monotonic() - began_s >= 1, "Retry-After asks for a second"
            assert [receipt.replayed for receipt in receipts] == [False] * 8
            assert await world.metric('ledgerd_requests_total{route="/api/make-payment/",status="503"}') >= 1
            assert len(await paid_on_statement(client, loan)) == 8
