"""Streams: in order, in bounded memory, and over whatever befalls their connections."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import pytest
from aiohttp import web

from ledgerd.client import OutcomeUnknown, Payment, Problem, Result, stream
from ledgerd.client.stream import WINDOW
from tests.client.conftest import client_of, paid_on_statement
from tests.client.gate import Gate
from tests.client.stub import PAYMENTS, Answer, hang_up, page, paid, problem, refused, say_nothing, unknown

COUNT = 2_000
END = {
    "status": 503,
    "transaction_id": None,
    "problem": {"type": "/problems/draining", "detail": "Stopping."},
}


def answers(
    *lines: Any, until: int | None = None, then: Callable[[], Awaitable[None]] | None = None
) -> Answer:
    """A stream of these lines, bytes as they are, once so many payments have been read (all, if None)."""

    async def answer(request: web.Request) -> web.StreamResponse:
        read = 0
        while until is None or read < until:
            line = await request.content.readline()
            if not line:
                break
            read += line != b"\n"
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "X-Request-ID": "r-1"})
        await response.prepare(request)
        for line in lines:
            await response.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
        if then is not None:
            await then()
        return response

    return answer


async def results_of(stub, payments: Any = PAYMENTS, **options: Any) -> list[Result]:
    async with stub.client(**options) as client:
        return [result async for result in client.stream(payments)]


ALL = [paid(0), paid(1), paid(2)]
BEFORE_ANY_RESULT = {
    "a connection that breaks": hang_up,
    "a proxy's page": page(502),
    "no room": problem(503, "overloaded"),
    "silence": problem(408, "request-timeout"),
    "a token that ended": problem(401, "unauthorized"),
    "an early end": answers(),
    "a last line": answers(END),
}
AFTER_THE_FIRST = {
    "an early end": answers(paid(0)),
    "a last line": answers(paid(0), END),
    "half a line": answers(paid(0), b'{"status": 201, "trans'),
    "garbage": answers(paid(0), b"<html>\n"),
    "another's result": answers(paid(0), paid(2)),
    "a result twice": answers(paid(0), paid(0)),
    "an unknown outcome": answers(paid(0), unknown(1)),
    "no room for one": answers(paid(0), refused(1, 503, "storage-full")),
}


@pytest.mark.parametrize("trouble", BEFORE_ANY_RESULT.values(), ids=BEFORE_ANY_RESULT)
async def test_what_has_no_result_is_sent_again(stub, trouble):
    stub.answers = [trouble, answers(*ALL)]
    results = await results_of(stub)
    assert [result.receipt and result.receipt.transaction_id for result in results] == ["t-0", "t-1", "t-2"]


@pytest.mark.parametrize("trouble", AFTER_THE_FIRST.values(), ids=AFTER_THE_FIRST)
async def test_what_has_a_result_is_not_sent_again(stub, trouble):
    stub.answers = [trouble, answers(*ALL[1:])]
    results = await results_of(stub)
    assert [result.payment for result in results] == PAYMENTS
    assert [result.receipt and result.receipt.transaction_id for result in results] == ["t-0", "t-1", "t-2"]


async def test_a_result_of_nothing_is_no_result(stub):
    lines = b"".join(json.dumps(line).encode() + b"\n" for line in (*ALL, paid(2)))
    stub.answers = [answers(lines)]
    assert len(await results_of(stub)) == 3


async def test_a_line_without_end_is_not_read_for_ever(stub, monkeypatch):
    monkeypatch.setattr(stream, "LINE_BYTES_MAX", 1000)
    stub.answers = [answers(b"x" * 2000, then=asyncio.Event().wait), answers(*ALL)]
    assert len(await results_of(stub)) == 3


async def test_silence_is_ended(stub):
    stub.answers = [say_nothing, answers(paid(0), then=asyncio.Event().wait), answers(*ALL[1:])]
    assert len(await results_of(stub, timeout_s=0.05)) == 3


async def test_one_that_never_has_a_result_is_unknown_and_the_others_are_not(stub):
    stub.answers = [answers(paid(0), unknown(1)), answers(paid(2))]
    first, second, third = await results_of(stub, retry_for_s=0)
    assert first.receipt
    assert isinstance(second.outcome, OutcomeUnknown)
    assert third.receipt


async def test_results_come_before_what_ends_them(stub):
    stub.answers = [answers(paid(0)), problem(403, "insufficient-scope")]
    async with stub.client() as client:
        results = client.stream(PAYMENTS)
        assert (await anext(results)).receipt
        with pytest.raises(OutcomeUnknown, match="no word of an earlier attempt"):
            await anext(results)
    stub.answers = [problem(403, "insufficient-scope")]
    with pytest.raises(Problem, match="403"):
        await results_of(stub)


async def test_results_of_others_are_not_taken_for_an_unknown_outcome(stub):
    stub.answers = [answers(paid(1))]
    with pytest.raises(OutcomeUnknown, match="not a result of t-0"):
        await results_of(stub, retry_for_s=0)


async def test_a_source_that_pauses_keeps_the_stream_open(stub, monkeypatch):
    monkeypatch.setattr(stream, "KEEP_ALIVE_S", 0.01)
    kept = asyncio.Event()

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        number = 0
        async for line in request.content:
            if line == b"\n":
                kept.set()
            else:
                await response.write(json.dumps(paid(number)).encode() + b"\n")
                number += 1
        return response

    async def source() -> AsyncIterator[Payment]:
        for payment in PAYMENTS:
            yield payment
            await kept.wait()
            kept.clear()

    stub.answers = [answer]
    assert len(await results_of(stub, source())) == 3


async def test_a_stream_that_is_ended_while_there_is_nothing_to_send_is_begun_anew(stub):
    ended = asyncio.Event()

    async def end() -> None:
        ended.set()

    async def source() -> AsyncIterator[Payment]:
        yield PAYMENTS[0]
        await ended.wait()
        yield PAYMENTS[1]
        yield PAYMENTS[2]

    stub.answers = [answers(paid(0), END, until=1, then=end), answers(*ALL[1:])]
    assert len(await results_of(stub, source())) == 3


# With the real service ----------------------------------------------------------------------------


def many(loan: str) -> list[Payment]:
    return [Payment(loan, 1 + number % 7, f"t-{number}") for number in range(COUNT)]


async def test_connections_break_again_and_again_and_each_payment_counts_once(world, loan):
    sent = many(loan)
    async with Gate.to(world.client.port) as gate, client_of(world, gate.url) as client:
        found = []
        async with aclosing(client.stream(sent)) as results:
            async for result in results:
                if len(found) % 400 == 0:
                    gate.break_after(50_000)
                found.append(result)
        assert [result.payment for result in found] == sent
        assert gate.connections > 3
        assert any(result.receipt.replayed for result in found)
        assert await paid_on_statement(client, loan) == {
            each.transaction_id: each.amount_paise for each in sent
        }


async def test_no_more_is_taken_from_the_source_than_there_is_room_for(client, loan):
    taken = 0

    def source():
        nonlocal taken
        for payment in many(loan) * 3:
            taken += 1
            yield payment

    most, given = 0, 0
    async for _ in client.stream(source()):
        given += 1
        most = max(most, taken - given)
    assert given == taken == 3 * COUNT
    assert WINDOW / 2 < most <= WINDOW + 1


async def test_what_the_source_raises_comes_after_the_results(client, loan):
    def source():
        yield from many(loan)[:10]
        raise LookupError("the file ends here")

    results = client.stream(source())
    assert all([(await anext(results)).receipt for _ in range(10)])
    with pytest.raises(LookupError, match="the file ends here"):
        await anext(results)
    assert len(await paid_on_statement(client, loan)) == 10


async def test_who_stops_listening_leaves_nothing_behind(client, world, loan):
    def ours() -> set[str]:
        return {task.get_coro().__qualname__ for task in asyncio.all_tasks()} & {
            "Stream._take",
            "ClientRequest.write_bytes",
        }

    endless = (Payment(loan, 1, f"t-{number}") for number in itertools.count())
    async with aclosing(client.stream(endless)) as results:
        await anext(results)
        assert len(ours()) == 2
    assert ours() == set()
    assert len(await paid_on_statement(client, loan)) >= 1
