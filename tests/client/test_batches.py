"""Arrays: what of one had no final answer is sent again, and nothing else of it."""

from __future__ import annotations

from typing import Any

import pytest

from ledgerd.client import OutcomeUnknown, Problem, Result
from tests.client.stub import PAYMENTS, hang_up, page, paid, problem, refused, says, unknown


async def results_of(stub, **options: Any) -> list[Result]:
    async with stub.client(**options) as client:
        return [result async for result in client.pay_many(PAYMENTS)]


def sent(stub) -> list[list[str]]:
    return [[payment["transaction_id"] for payment in array] for array in stub.asked]


async def test_only_what_has_no_final_answer_is_sent_again(stub):
    full = refused(0, 503, "storage-full")
    stub.answers = [
        says(200, [full, paid(1), unknown(2)]),
        says(200, [paid(0), unknown(2)]),
        says(200, [refused(2, 409, "loan-closed")]),
    ]
    first, second, third = await results_of(stub)
    assert sent(stub) == [["t-0", "t-1", "t-2"], ["t-0", "t-2"], ["t-2"]]
    assert first.receipt
    assert second.receipt
    assert isinstance(third.outcome, Problem)
    assert [result.payment for result in (first, second, third)] == PAYMENTS


@pytest.mark.parametrize(
    "answer",
    [
        hang_up,
        page(502),
        problem(503, "overloaded"),
        problem(500, "outcome-unknown"),
        says(200, [paid(0), paid(1)]),
        says(200, [paid(0), paid(1), paid(2), paid(2)]),
        says(200, {"a": 1}),
        says(200, b"[{]"),
    ],
)
async def test_an_array_without_an_answer_is_sent_again_whole(stub, answer):
    stub.answers = [answer, says(200, [paid(0), paid(1), paid(2)])]
    results = await results_of(stub)
    assert all(result.receipt for result in results)
    assert sent(stub) == [["t-0", "t-1", "t-2"]] * 2


async def test_results_of_others_are_no_results(stub):
    stub.answers = [says(200, [paid(0), paid(2), paid(1)]), says(200, [paid(1), paid(2)])]
    assert len(await results_of(stub)) == 3
    assert sent(stub) == [["t-0", "t-1", "t-2"], ["t-1", "t-2"]]


async def test_one_that_never_has_an_answer_is_unknown_and_the_others_are_not(stub):
    stub.answers = [says(200, [paid(0), unknown(1), paid(2)])]
    first, second, third = await results_of(stub, retry_for_s=0)
    assert first.receipt
    assert isinstance(second.outcome, OutcomeUnknown)
    assert third.receipt


async def test_a_whole_array_that_is_refused_is_raised(stub):
    stub.answers = [problem(413, "body-too-large")]
    with pytest.raises(Problem, match="413 body-too-large"):
        await results_of(stub)


@pytest.mark.parametrize("lost", [hang_up, says(200, [unknown(0), unknown(1), unknown(2)])])
async def test_an_array_refused_after_a_lost_answer_is_unknown(stub, lost):
    stub.answers = [lost, problem(403, "insufficient-scope")]
    with pytest.raises(OutcomeUnknown, match="no word of an earlier attempt"):
        await results_of(stub)
