"""A line of an answer is the result of the payment that it should be of, or of none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from ledgerd.client import Payment, Problem, Receipt
from ledgerd.client.errors import Failed
from ledgerd.client.models import Line, reader
from ledgerd.client.results import chunks, each, read_result
from tests.client.stub import RECEIPT

PAYMENT = Payment("l", 207_00, "t")
PAID = reader(Line)(json.dumps({"status": 201, "transaction_id": "t", "receipt": RECEIPT}).encode())
CLOSED = {"type": "/problems/loan-closed", "title": "T", "status": 409, "detail": "D"}


def test_a_receipt_and_a_refusal_are_final():
    paid = read_result(PAYMENT, PAID, "r-1")
    assert isinstance(paid.receipt, Receipt)
    assert (paid.payment, paid.outcome) == (PAYMENT, paid.receipt)
    refused = read_result(PAYMENT, Line(409, "t", problem=CLOSED), "r-1")
    assert refused.receipt is None
    assert isinstance(refused.outcome, Problem)
    assert (refused.outcome.slug, refused.outcome.request_id) == ("loan-closed", "r-1")


@pytest.mark.parametrize(
    "line",
    [
        Line(201, "other", receipt=PAID.receipt),
        Line(201, None, receipt=PAID.receipt),
        Line(201, "t"),
        Line(409, "t"),
        Line(302, "t", receipt=PAID.receipt, problem=CLOSED),
        Line(500, "t", problem={"type": "/problems/outcome-unknown"}),
        Line(503, "t", problem={"type": "/problems/storage-full"}),
    ],
    ids=lambda line: f"{line.status} {line.transaction_id}",
)
def test_anything_else_is_to_be_tried_again(line):
    with pytest.raises(Failed):
        read_result(PAYMENT, line, None)


async def test_sources_of_both_kinds_are_gone_through():
    async def numbers() -> AsyncIterator[int]:
        for number in range(5):
            yield number

    for source in (range(5), numbers()):
        assert [number async for number in each(source)] == [0, 1, 2, 3, 4]
    for source in (range(5), numbers()):
        assert [chunk async for chunk in chunks(source, 2)] == [[0, 1], [2, 3], [4]]
    for source in (range(4), []):
        assert [chunk async for chunk in chunks(source, 2)] == [[0, 1], [2, 3]][: len(source)]
