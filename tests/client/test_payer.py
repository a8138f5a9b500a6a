"""The client against the real service: payments, refusals, reads, tokens, many at once."""

from __future__ import annotations

import asyncio
import datetime as dt
import subprocess
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest

from ledgerd.client import Client, OutcomeUnknown, Payment, Problem, Unavailable
from tests.client.conftest import paid_on_statement
from tests.client.stub import IMPATIENT
from tests.http.outside import START


def payments(loan: str, count: int, name: str = "t") -> list[Payment]:
    return [Payment(loan, 1_00 + number, f"{name}-{number}") for number in range(count)]


async def test_a_payment_is_made_and_sent_again_is_replayed(client, world, loan):
    await world.advance(30)
    receipt = await client.pay(Payment(loan, 207_00, "upi-1", for_bill=1))
    today = START + dt.timedelta(30)
    assert (receipt.loan_id, receipt.transaction_id, receipt.amount_paise) == (loan, "upi-1", 207_00)
    assert (receipt.interest_paise, receipt.principal_paise, receipt.paid_on) == (57_00, 150_00, today)
    assert receipt.outstanding.total_paise == 4850_00
    [allocation] = receipt.allocations
    assert (allocation.bill, allocation.due_date) == (1, today + dt.timedelta(15))
    assert receipt.next_due is not None
    assert (receipt.next_due.due_date, receipt.next_due.amount_due_paise) == (
        today + dt.timedelta(45),
        200_79,
    )
    assert receipt.recorded_at.utcoffset() == dt.timedelta(0)
    assert not receipt.replayed
    again = await client.pay(Payment(loan, 207_00, "upi-1"))
    assert again.replayed
    assert await client.payment("upi-1") == receipt


async def test_a_refusal_is_final_and_names_itself(client, loan):
    await client.pay(Payment(loan, 1_00, "used"))
    for payment, slug, extra in (
        (Payment("0" * 16, 1_00, "x"), "loan-not-found", {}),
        (Payment(loan, 9000_00, "x"), "amount-exceeds-payoff", {"payoff": "4999.00"}),
        (Payment(loan, 1_00, "x", for_bill=7), "no-such-bill", {}),
        (Payment(loan, 2_00, "used"), "transaction-id-conflict", {}),
    ):
        with pytest.raises(Problem) as caught:
            await client.pay(payment)
        problem = caught.value
        assert (problem.slug, problem.extra) == (slug, extra)
        assert problem.status in {404, 409, 422}
        assert problem.title
        assert problem.detail in str(problem)
        assert problem.request_id
    with pytest.raises(Problem) as caught:
        await client.pay(Payment(loan, 10**20, "x"))
    assert [error["path"] for error in caught.value.extra["errors"]] == ["amount"]
    assert await paid_on_statement(client, loan) == {"used": 100}


async def test_reads(client, world, loan):
    for payment in payments(loan, 5):
        await client.pay(payment)
    await world.advance(30)
    shown = await client.loan(loan)
    assert (shown.loan_id, shown.status, shown.amount_paise, shown.closed_on) == (
        loan,
        "active",
        5000_00,
        None,
    )
    assert (shown.interest_rate, shown.daily_rate, shown.disbursed_on) == ("14.00", "0.038", START)
    assert shown.emi_schedule[0].number == 2
    assert shown.next_due is not None
    assert shown.open_bills[0].amount_due_paise == shown.next_due.amount_due_paise == 206_79
    assert (shown.past_due_paise, shown.payoff_paise) == (0, 4994_90 + 56_94)
    pages = [page async for page in client.statement(loan, 2)]
    names = [[each.transaction_id for each in page.past_transactions] for page in pages]
    assert names == [["t-4", "t-3"], ["t-2", "t-1"], ["t-0"]]
    [bill] = pages[0].bills
    assert (bill.number, bill.status, bill.paid_paise) == (1, "unpaid", 0)
    assert pages[0].upcoming_emis[0].amount_due_paise == bill.total_due_paise == bill.min_due_paise
    assert pages[1].bills == pages[1].upcoming_emis == ()
    with pytest.raises(Problem, match="404 payment-not-found"):
        await client.payment("never")
    with pytest.raises(Problem, match="404 loan-not-found"):
        await client.loan("a/b?c")
    with pytest.raises(Problem, match="422 invalid-fields"):
        [_ async for _ in client.statement(loan, 501)]
    for name in ("..", ".", "a:b", "a..b"):
        receipt = await client.pay(Payment(loan, 1_00, name))
        assert await client.payment(name) == receipt


# Tokens -------------------------------------------------------------------------------------------


async def test_one_token_serves_many_callers_and_is_renewed_when_it_is_refused(client, world, loan):
    async def tokens() -> float:
        return await world.metric('ledgerd_requests_total{route="/api/token/",status="200"}')

    before = await tokens()
    await asyncio.gather(*(client.pay(payment) for payment in payments(loan, 20)))
    assert await tokens() == before + 1
    world.time.now_s += 3600
    await asyncio.gather(*(client.pay(payment) for payment in payments(loan, 20, "later")))
    assert await tokens() == before + 2
    assert len(await paid_on_statement(client, loan)) == 40


async def test_who_may_not_is_told_at_once_and_a_session_of_the_caller_s_is_left_open(world, loan):
    url = str(world.client.make_url("/"))
    looker = await world.service.services.accounts.create_client("looker", ["ops"])
    world.secrets.add(looker.client_secret)
    async with aiohttp.ClientSession() as session:
        async with Client(url, looker.client_id, looker.client_secret, session=session) as client:
            assert (await client.loan(loan)).loan_id == loan
            for attempt in (
                client.pay(Payment(loan, 1_00, "t")),
                anext(client.pay_many(payments(loan, 2))),
                anext(client.stream(payments(loan, 2))),
            ):
                with pytest.raises(Problem, match="403 insufficient-scope"):
                    await attempt
        assert not session.closed
    async with Client(url, looker.client_id, "wrong") as client:
        with pytest.raises(Problem, match="401 bad-credentials"):
            await client.loan(loan)


# Many payments ------------------------------------------------------------------------------------


async def test_many_payments_have_their_results_in_order(client, loan):
    sent = [
        *payments(loan, 5),
        Payment(loan, 9_999_00, "much"),
        Payment("none", 1, "lost"),
        *payments(loan, 2),
    ]

    async def source() -> AsyncIterator[Payment]:
        for payment in sent:
            yield payment

    for results in (
        client.pay_many(iter(sent), batch=3),
        client.pay_many(source(), batch=4),
        client.stream(source()),
    ):
        found = [result async for result in results]
        assert [result.payment for result in found] == sent
        receipts = [result.receipt for result in found]
        assert [receipt and receipt.transaction_id for receipt in receipts] == [
            *(f"t-{number}" for number in range(5)),
            None,
            None,
            "t-0",
            "t-1",
        ]
        problems = [result.outcome for result in found if result.receipt is None]
        assert [problem.slug for problem in problems if isinstance(problem, Problem)] == [
            "amount-exceeds-payoff",
            "loan-not-found",
        ]
        assert all(problem.request_id for problem in problems)
    assert len(await paid_on_statement(client, loan)) == 5
    assert [result async for result in client.pay_many([])] == []
    assert [result async for result in client.stream([])] == []
    with pytest.raises(ValueError, match="one payment or more"):
        await anext(client.pay_many([], 0))


# Around it ----------------------------------------------------------------------------------------


async def test_a_client_is_opened_first():
    with pytest.raises(ValueError, match="http"):
        Client("localhost:8080", "a", "b")
    closed = Client("http://localhost", "a", "b")
    with pytest.raises(RuntimeError, match="async with"):
        await closed.loan("x")


async def test_nobody_there(unused_tcp_port):
    async with Client(
        f"http://127.0.0.1:{unused_tcp_port}", "a", "b", **{**IMPATIENT, "retry_for_s": 0.02}
    ) as client:
        with pytest.raises(OutcomeUnknown, match="the payment t: no final answer in"):
            await client.pay(Payment("l", 1, "t"))
        with pytest.raises(OutcomeUnknown, match="an array of payments"):
            await anext(client.pay_many([Payment("l", 1, "t")]))
        with pytest.raises(OutcomeUnknown, match="a stream of payments"):
            await anext(client.stream([Payment("l", 1, "t")]))
        with pytest.raises(Unavailable) as caught:
            await client.loan("l")
        assert not isinstance(caught.value, OutcomeUnknown)


def test_it_brings_in_nothing_but_aiohttp_and_msgspec():
    """Also nothing else of ledgerd, so that a payer's process stays small."""
    script = """
import sys, aiohttp, msgspec
before = {"aiohttp", "msgspec", *sys.stdlib_module_names, *sys.modules}
import ledgerd.client
print(*sorted(name for name in sys.modules if not {name, name.partition(".")[0]} & before))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    named = run.stdout.split()
    assert "ledgerd.client.payer" in named
    assert [name for name in named if not f"{name}.".startswith("ledgerd.client.")] == ["ledgerd"]
