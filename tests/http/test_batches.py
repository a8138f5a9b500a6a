"""Arrays of payments: each payment has the result that the single call would have had, in the order sent."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from tests.http.outside import Answer, World
from tests.http.test_express import payment

PATH = "/api/make-payments/"


def statuses(answer: Answer) -> list[int]:
    assert answer.status == 200, answer
    return [result["status"] for result in answer.json]


async def test_each_payment_has_its_result_in_the_order_sent(world, borrower, loan):
    other = (await world.lend(borrower))["loan_id"]
    closed = (await world.lend(borrower, amount="10.00"))["loan_id"]
    sent = [
        payment(loan, "a", "2.00"),
        payment(other, "b", "3.00"),
        payment(loan, "a", "2.00"),
        payment(loan, "a", "2.01"),
        payment(other, "a", "2.00"),
        payment("0" * 16, "c"),
        payment("nonsense", "d"),
        payment(loan, "e", "9999.00"),
        payment(loan, "f", for_bill=1),
        payment(closed, "g", "10.00"),
        payment(closed, "h", "10.00"),
        payment(closed, "g", "10.00"),
        payment(loan, "i", "0.00"),
        payment(loan, "j k"),
        {"transaction_id": "k"},
        {"loan_id": loan},
        None,
        "text",
        [],
        payment(loan, "l", "1.00", note="x"),
        payment(loan, "b", "3.00"),
    ]
    answer = await world.post(PATH, sent, world.payer)
    assert statuses(answer) == [
        *(201, 201, 200, 409, 409, 404, 404, 422, 422, 201, 409, 200),
        *(422, 422, 422, 422, 422, 422, 422, 422, 409),
    ]
    results = answer.json
    names = [each["transaction_id"] for each in results]
    assert names == [*"abaaacdefghgi", None, "k", None, None, None, None, "l", "b"]
    assert results[0]["receipt"]["amount"] == "2.00"
    assert results[0]["receipt"]["outstanding"]["total"] == "4998.00"
    assert results[2]["receipt"] == results[0]["receipt"] | {"replayed": True}
    assert results[7]["problem"]["payoff"] == "4998.00"
    assert (await world.loan(borrower, loan))["principal_received"] == "2.00"
    assert await world.metric('ledgerd_batch_payments_total{status="201"}') == 3
    again = await world.post(PATH, sent, world.payer)
    assert statuses(again)[:2] == [200, 200]
    assert (await world.loan(borrower, loan))["principal_received"] == "2.00"
