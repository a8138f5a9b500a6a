"""Attempts and their answers, where the real service can't be made to give them."""

from __future__ import annotations

import asyncio

import pytest

from ledgerd.client import OutcomeUnknown, Payment, Problem
from ledgerd.client.calls import LOOKED_UP
from ledgerd.http.problems import PROBLEMS
from tests.client.stub import hang_up, page, problem, receipt, say_nothing, says

PAYMENT = Payment("l", 207_00, "t")


GARBAGE = {
    "a proxy's page": page(502),
    "a gateway's timeout": page(504),
    "another proxy's page": page(503),
    "a bug": problem(500, "internal"),
    "an unknown outcome": problem(500, "outcome-unknown"),
    "no room": problem(503, "overloaded"),
    "a slow body": problem(408, "request-timeout"),
    "too fast": problem(429, "too-many-attempts"),
    "a connection that breaks": hang_up,
    "no JSON": says(201, b"{"),
    "no UTF-8": says(200, b'{"a": "\xff"}'),
    "an empty answer": says(204, b""),
    "a login page": says(200, b"<html>", "text/html"),
    "another shape": says(201, {"status": "applied"}),
    "money that is a float": says(201, {**receipt("t"), "amount": 207.0}),
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
async def test_what_is_not_final_is_sent_again_the_same(stub, answer):
    stub.answers = [answer, answer, says(201, receipt("t"))]
    async with stub.client() as client:
        paid = await client.pay(PAYMENT)
    assert paid.transaction_id == "t"
    assert stub.asked == [{"loan_id": "l", "amount": "207.00", "transaction_id": "t"}] * 3
    assert stub.calls["token"] == 1


@pytest.mark.parametrize(
    ("answer", "slug"),
    [
        (problem(409, "loan-closed"), "loan-closed"),
        (problem(403, "insufficient-scope"), "insufficient-scope"),
        (problem(400, "malformed"), "malformed"),
        (page(404), ""),
        (says(302, b"", Location="/elsewhere"), ""),
    ],
    ids=["409", "403", "400", "a proxy's 404", "a redirect"],
)
async def test_a_refusal_is_heard_once(stub, answer, slug):
    stub.answers = [answer]
    async with stub.client() as client:
        with pytest.raises(Problem) as caught:
            await client.pay(PAYMENT)
    assert caught.value.slug == slug
    assert stub.calls["call"] == 1


async def test_silence_is_ended(stub):
    stub.answers = [say_nothing, says(200, receipt("t"))]
    async with stub.client(timeout_s=0.05) as client:
        assert (await client.pay(PAYMENT)).transaction_id == "t"


async def test_who_gives_up_says_that_the_outcome_is_unknown(stub):
    stub.answers = [page(502)]
    async with stub.client(retry_for_s=0) as client:
        with pytest.raises(OutcomeUnknown, match=r"the payment t: .* 502 .*Bad Gateway"):
            await client.pay(PAYMENT)


async def test_a_pause_that_would_be_too_long_is_not_begun(stub):
    stub.answers = [
        says(503, {"type": "/problems/storage-full"}, "application/problem+json", Retry_After="3600")
    ]
    async with stub.client() as client:
        with pytest.raises(OutcomeUnknown, match="in 1 attempts"):
            await client.pay(PAYMENT)


# What a refusal says of earlier attempts ----------------------------------------------------------


@pytest.mark.parametrize("slug", sorted(LOOKED_UP))
async def test_a_refusal_by_the_ledger_after_a_lost_answer_is_final(stub, slug):
    stub.answers = [hang_up, problem(PROBLEMS[slug].status, slug)]
    async with stub.client() as client:
        with pytest.raises(Problem, match=slug):
            await client.pay(PAYMENT)


@pytest.mark.parametrize("lost", [hang_up, page(502), problem(500, "internal"), says(201, b"?")])
@pytest.mark.parametrize("answer", [problem(403, "insufficient-scope"), problem(400, "malformed"), page(404)])
async def test_a_refusal_that_looked_nothing_up_leaves_a_lost_answer_unknown(stub, lost, answer):
    stub.answers = [lost, answer]
    async with stub.client() as client:
        with pytest.raises(OutcomeUnknown, match="no word of an earlier attempt") as caught:
            await client.pay(PAYMENT)
    assert isinstance(caught.value.__cause__, Problem)


@pytest.mark.parametrize("answer", [problem(503, "overloaded"), problem(429, "too-many-attempts")])
async def test_where_nothing_was_done_before_it_is_the_refusal(stub, answer):
    stub.answers = [answer, problem(403, "insufficient-scope")]
    async with stub.client() as client:
        with pytest.raises(Problem, match="403"):
            await client.pay(PAYMENT)


# Tokens -------------------------------------------------------------------------------------------


async def test_one_401_has_the_token_renewed_and_a_second_is_final(stub):
    refused = problem(401, "unauthorized")
    stub.answers = [refused, says(201, receipt("t")), refused, refused]
    async with stub.client() as client:
        await client.pay(PAYMENT)
        assert stub.calls["token"] == 2
        with pytest.raises(Problem, match="401 unauthorized"):
            await client.pay(PAYMENT)
    assert stub.calls["token"] == 3


async def test_a_token_that_can_t_be_had_yet_is_tried_again(stub):
    stub.tokens = [page(502), hang_up, says(200, b"{}"), problem(503, "draining")]
    stub.answers = [says(201, receipt("t"))]
    async with stub.client() as client:
        await asyncio.gather(client.pay(PAYMENT))
    assert stub.calls == {"token": 5, "call": 1}


async def test_a_token_that_is_not_had_means_that_nothing_was_sent(stub):
    stub.tokens = [hang_up, problem(401, "bad-credentials")]
    async with stub.client() as client:
        with pytest.raises(Problem, match="401 bad-credentials"):
            await client.pay(PAYMENT)
    assert stub.calls["call"] == 0
