"""Who waits too long is answered, whatever holds the answer back, and what was asked for goes on."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ledgerd.config import Server
from ledgerd.http.edge import EXPRESS
from ledgerd.http.overdue import Late, UnderWay
from tests.http.edge import until_closed
from tests.http.outside import World, on_disk
from tests.http.test_express import ORDINARY, payment


class Request:
    def __init__(self, under_way: UnderWay, started_s: float) -> None:
        self.started_s = started_s
        self.given_up: list[Late] = []
        under_way.waiting[self] = None

    def give_up(self, error: Late) -> None:
        self.given_up.append(error)


# The list ----------------------------------------------------------------------------------------


def test_a_sweep_gives_up_what_is_old_enough_once():
    under_way = UnderWay(30)
    first, second, young = (Request(under_way, started_s) for started_s in (100.0, 110.0, 110.5))
    under_way.sweep(129.9)
    assert first.given_up == []
    under_way.sweep(130.0)
    under_way.sweep(140.0)
    assert [len(each.given_up) for each in (first, second, young)] == [1, 1, 0]
    assert list(under_way.waiting) == [young]
    assert str(first.given_up[0]) == "no outcome within 30 s"


def test_giving_up_may_take_others_out():
    under_way = UnderWay(30)
    requests = [Request(under_way, 0.0) for _ in range(3)]
    for request in requests:
        request.give_up = lambda _error: [under_way.waiting.pop(other, None) for other in requests]
    under_way.sweep(60.0)
    under_way.sweep(60.0)
    assert under_way.waiting == {}


async def test_work_that_takes_too_long_goes_on_to_its_end():
    under_way, go_on, ended = UnderWay(30), asyncio.Event(), []

    async def work() -> str:
        await go_on.wait()
        ended.append(True)
        return "done"

    waiting = asyncio.ensure_future(under_way.outcome_of(work()))
    await asyncio.sleep(0)
    under_way.sweep(time.perf_counter() + 31)
    with pytest.raises(Late, match="no outcome within 30 s"):
        await waiting
    assert under_way.waiting == {}
    [task] = under_way._work
    go_on.set()
    await task
    assert ended == [True]
    await asyncio.sleep(0)
    assert under_way._work == set()


async def test_work_has_its_own_outcome():
    under_way = UnderWay(30)

    async def work(outcome: object) -> object:
        await asyncio.sleep(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    assert await under_way.outcome_of(work(7)) == 7
    with pytest.raises(ZeroDivisionError):
        await under_way.outcome_of(work(ZeroDivisionError()))
    with pytest.raises(asyncio.CancelledError):
        await under_way.outcome_of(work(asyncio.CancelledError()))
    assert under_way.waiting == {}


async def test_work_ends_with_its_waiter_when_that_is_cancelled():
    under_way = UnderWay(30)
    waiting = asyncio.ensure_future(under_way.outcome_of(asyncio.Event().wait()))
    await asyncio.sleep(0)
    [task] = under_way._work
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    with pytest.raises(asyncio.CancelledError):
        await task
    assert under_way.waiting == {}


async def test_a_sweep_that_fails_is_not_the_last(monkeypatch):
    monkeypatch.setattr("ledgerd.http.overdue.SWEEP_S", 0.0)
    under_way, swept = UnderWay(30), asyncio.Event()
    sweeps = iter([ZeroDivisionError("a bug"), None])

    def sweep(_now_s: float) -> None:
        if (error := next(sweeps, None)) is not None:
            raise error
        swept.set()

    monkeypatch.setattr(under_way, "sweep", sweep)
    async with asyncio.timeout(30):
        sweeping = under_way.sweeping(None)
        await anext(sweeping)
        await swept.wait()
        with pytest.raises(StopAsyncIteration):
            await anext(sweeping)


# A store that stalls -------------------------------------------------------------------------------


@contextmanager
def stalled(world: World) -> Iterator[None]:
    """The store's process stands still within the block: nothing fails, and nothing is answered."""
    pid = world.service.store._process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_a_store_that_stalls_holds_nobody_for_ever(open_world, tmp_path):
    server = Server(request_timeout_s=1)
    async with open_world(storage=on_disk(tmp_path), server=server) as world:
        borrower = await world.borrower()
        loan = (await world.lend(borrower))["loan_id"]
        world.errors_allowed = True
        with stalled(world):
            advancing = asyncio.ensure_future(world.advance(1))
            answers = await asyncio.gather(
                world.post("/api/make-payment/", payment(loan, "express"), world.payer),
                world.post(ORDINARY, payment(loan, "ordinary"), world.payer),
                world.get(f"/api/get-statement/?loan_id={loan}", borrower),
                world.post("/api/billing-runs/", {}, world.ops),
                world.register(),
            )
            assert {(answer.status, answer.slug) for answer in answers} == {(500, "outcome-unknown")}
            assert (await world.get("/livez")).status == 200
            # A retry meanwhile waits like the first one, and harms nothing.
            again = await world.post("/api/make-payment/", payment(loan, "express"), world.payer)
            assert again.slug == "outcome-unknown"
            assert not advancing.done()  # it takes the time that it takes
        assert (await advancing)["business_date"] == world.today.isoformat()
        for path, transaction_id in (("/api/make-payment/", "express"), (ORDINARY, "ordinary")):
            answer = await world.post(path, payment(loan, transaction_id), world.payer)
            assert (answer.status, answer.json["replayed"]) == (200, True)
        assert (await world.loan(borrower, loan))["principal_received"] == "2.00"
        lane = world.client.server.app[EXPRESS]
        assert lane._waiting == {}
        assert "no outcome within 1 s" in world.log.getvalue()


async def test_the_outcome_that_comes_late_is_not_sent_behind_its_answer(open_world, tmp_path):
    async with open_world(storage=on_disk(tmp_path), server=Server(request_timeout_s=1)) as world:
        borrower = await world.borrower()
        loan = (await world.lend(borrower))["loan_id"]
        world.errors_allowed = True
        reader, writer = await asyncio.open_connection("127.0.0.1", world.client.server.port)
        headers = (
            f"Host: x\r\nAuthorization: Bearer {world.payer.token}\r\nContent-Type: application/json\r\n"
        )
        for way in ("/api/make-payment/", ORDINARY):
            body = json.dumps(payment(loan, f"t{len(way)}"))
            with stalled(world):
                writer.write(
                    f"POST {way} HTTP/1.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n{body}".encode()
                )
                assert b" 500 " in await reader.readuntil(b"\r\n\r\n")
                assert b"outcome-unknown" in await reader.readuntil(b"}")
            # Its outcome is known by now: a retry on another connection shows it.
            assert (await world.post(way, json.loads(body), world.payer)).status == 200
        writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        rest = await until_closed(reader)
        writer.close()
        assert rest.count(b"HTTP/1.1") == 1
        assert rest.endswith(b'{"status":"alive"}')


async def test_what_comes_behind_a_write_is_done_also_when_its_answer_was_late(open_world, tmp_path):
    """A logout whose caller was told "unknown" ends the login at once, once it has reached the disk."""
    server = Server(request_timeout_s=1)
    async with open_world(storage=on_disk(tmp_path), server=server) as world:
        borrower = await world.borrower()
        world.errors_allowed = True
        with stalled(world):
            answer = await world.post("/api/logout/", None, borrower)
            assert (answer.status, answer.slug) == (500, "outcome-unknown")
            late = await world.register(aadhar_id="a latecomer")
            assert late.slug == "outcome-unknown"
        under_way = world.client.server.app[EXPRESS]._desk.under_way
        await asyncio.gather(*under_way._work)
        assert (await world.get("/api/me/", borrower)).status == 401
        latecomer = await world.log_in("a latecomer")
        await world.scored(latecomer)


async def test_who_is_answered_in_time_is_forgotten(world, borrower, loan):
    lane = world.client.server.app[EXPRESS]
    for body in (payment(loan, "t"), payment(loan, "t", "-1"), payment("0" * 16, "t")):
        for path in ("/api/make-payment/", ORDINARY):
            await world.post(path, body, world.payer)
            assert lane._waiting == {}
