"""The express lane: nobody can tell it from the ordinary way, and a connection changes between them."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest

from ledgerd.http.edge import EXPRESS
from tests.http.edge import GET, GET_AND_CLOSE, next_turns, on_both_loops, parsed, post, serving, until_closed

SOON_S = 0.1  # a timeout that is meant to run out


class Lane:
    """Takes every POST, and answers each when it is told to."""

    def __init__(self):
        self.taken = asyncio.Queue()
        self.waiting = 0
        self.waiting_max = 0

    def take(self, message, payload, answer_to):
        if message.method != "POST" or not payload.is_eof():
            return False
        self.waiting += 1
        self.waiting_max = max(self.waiting_max, self.waiting)
        self.taken.put_nowait((answer_to, b"".join(payload._buffer)))
        return True

    def answer(self, answer_to, body):
        self.waiting -= 1
        answer_to.answer(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n", body)

    async def answer_next(self):
        answer_to, body = await self.taken.get()
        self.answer(answer_to, body)


class AtOnce(Lane):
    """Answers before it has returned."""

    def take(self, message, payload, answer_to):
        if not super().take(message, payload, answer_to):
            return False
        self.answer(*self.taken.get_nowait())
        return True


# A connection ------------------------------------------------------------------------------------


@on_both_loops
async def test_requests_of_both_ways_on_one_connection_are_answered_in_order():
    lane = Lane()
    async with serving(express=lane) as served:
        reader, writer = await served.connect()
        writer.write(post(b"1") + GET + post(b"2") + post(b"3") + GET_AND_CLOSE)
        answer_to, body = await lane.taken.get()
        await next_turns()
        assert lane.waiting_max == 1
        assert not reader._buffer  # the GET behind it waits
        lane.answer(answer_to, body)
        received = await until_closed(reader)
        writer.close()
        bodies = []
        while received:
            _, headers, body = parsed(received)
            bodies.append(body)
            received = received[received.index(b"\r\n\r\n") + 4 + int(headers["content-length"]) :]
        assert bodies == [b"1", b"ok", b"2", b"3", b"ok"]
        assert lane.taken.empty()  # aiohttp went on with what had come meanwhile


@on_both_loops
async def test_who_was_refused_rests_and_nobody_else_does():
    lane = Lane()
    async with serving(express=lane) as served:
        (_, refused), (_, other) = await served.connect(), await served.connect()
        refused.write(post(b"1") + post(b"2"))
        answer_to, _ = await lane.taken.get()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        answer_to.answer("HTTP/1.1 503 Overloaded\r\nContent-Length: 0\r\n", b"", SOON_S)
        other.write(post(b"3"))
        taken = [(await lane.taken.get())[1] for _ in range(2)]
        assert taken == [b"3", b"2"]
        assert loop.time() - began_s >= SOON_S * 0.9
        refused.close()
        other.close()


@on_both_loops
async def test_between_requests_a_connection_goes_either_way():
    lane = Lane()
    async with serving(express=lane) as served:
        reader, writer = await served.connect()
        for _ in range(3):
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\nok")
            writer.write(post(b"1"))
            await lane.answer_next()
            await reader.readuntil(b"\r\n\r\n1")
        writer.close()


@on_both_loops
async def test_an_answer_given_at_once_lets_the_next_request_go_on():
    async with serving(express=AtOnce()) as served:
        answer = await served.send(post(b"1") + post(b"2"), post(b"3") + GET_AND_CLOSE)
        assert answer.count(b"HTTP/1.1 200") == 4


@on_both_loops
async def test_a_body_in_pieces_goes_the_ordinary_way():
    lane = Lane()
    async with serving(express=lane) as served:
        request = post(b"abcdef", "Connection: close")
        assert parsed(await served.send(request[:-3], request[-3:]))[2] == b"abcdef"
        assert lane.taken.empty()


@on_both_loops
async def test_a_bad_request_behind_a_good_one_is_told_after_it():
    lane = Lane()
    async with serving(express=lane) as served:
        reader, writer = await served.connect()
        writer.write(post(b"1"))
        answer_to, body = await lane.taken.get()
        writer.write(b"nonsense\r\n\r\n")
        await next_turns()
        lane.answer(answer_to, body)
        answer = await until_closed(reader)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b" 400 Bad Request" in answer


@on_both_loops
async def test_a_client_that_hung_up_gets_no_answer_and_harms_nothing():
    lane = Lane()
    async with serving(express=lane) as served:
        _, writer = await served.connect()
        writer.write(post(b"1"))
        answer_to, body = await lane.taken.get()
        writer.close()
        await writer.wait_closed()
        await served.listener._edge.empty.wait()
        lane.answer(answer_to, body)
        assert (await served.send(GET_AND_CLOSE)).startswith(b"HTTP/1.1 200")


@on_both_loops
async def test_closing_waits_for_the_answer_and_says_that_it_is_the_last():
    lane = Lane()
    async with serving(express=lane) as served:
        reader, writer = await served.connect()
        writer.write(post(b"1") + post(b"2"))
        answer_to, body = await lane.taken.get()
        closing = asyncio.create_task(served.listener.close(60))
        await next_turns()
        assert not closing.done()
        lane.answer(answer_to, body)
        await closing
        answer = await until_closed(reader)
        writer.close()
        assert parsed(answer)[1]["connection"] == "close"
        assert answer.count(b"HTTP/1.1") == 1


@on_both_loops
async def test_closing_ends_a_connection_that_the_lane_served_and_that_is_idle():
    lane = Lane()
    async with serving(express=lane) as served:
        reader, writer = await served.connect()
        writer.write(post(b"1"))
        await lane.answer_next()
        await reader.readuntil(b"\r\n\r\n1")
        await served.listener.close(60)
        assert await until_closed(reader) == b""
        writer.close()


@on_both_loops
async def test_the_keepalive_timeout_counts_from_the_answer():
    lane = Lane()
    async with serving(express=lane, header_timeout_s=60, keepalive_timeout_s=SOON_S) as served:
        reader, writer = await served.connect()
        writer.write(post(b"1"))
        answer_to, body = await lane.taken.get()
        await asyncio.sleep(2 * SOON_S)
        assert not reader.at_eof()
        lane.answer(answer_to, body)
        assert (await until_closed(reader)).endswith(b"1")
        writer.close()


@on_both_loops
async def test_requests_that_wait_for_a_slow_reader_outlast_the_keepalive_timeout():
    body = b"x" * 60_000

    class Big(AtOnce):
        def answer(self, answer_to, _body):
            super().answer(answer_to, body)

    async with serving(express=Big(), keepalive_timeout_s=SOON_S) as served:
        reader, writer = await served.connect()
        writer.transport.pause_reading()
        writer.write(post(b"1") * 300 + GET_AND_CLOSE)
        await asyncio.sleep(4 * SOON_S)
        writer.transport.resume_reading()
        received = await until_closed(reader)
        writer.close()
        assert received.count(b"HTTP/1.1 200") == 301


@on_both_loops
async def test_a_head_that_begins_while_the_lane_works_has_its_time_after():
    lane = Lane()
    async with serving(express=lane, header_timeout_s=SOON_S) as served:
        reader, writer = await served.connect()
        writer.write(post(b"1"))
        answer_to, body = await lane.taken.get()
        writer.write(b"GET / HT")
        await asyncio.sleep(3 * SOON_S)
        lane.answer(answer_to, body)
        answer = await until_closed(reader)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"HTTP/1.1 408" in answer


@on_both_loops
async def test_a_thousand_requests_sent_ahead_are_answered_one_by_one():
    lane = AtOnce()
    async with serving(express=lane) as served:
        answer = await served.send(post(b"x") * 1_000 + GET_AND_CLOSE)
        assert answer.count(b"HTTP/1.1 200") == 1_001
        assert lane.waiting_max == 1


@on_both_loops
async def test_many_requests_behind_a_body_that_came_in_pieces_are_all_answered():
    for express in (AtOnce(), None):
        async with serving(express=express) as served:
            reader, writer = await served.connect()
            for _ in range(3):
                request = post(b"abcdef")
                writer.write(request[:-3])
                await next_turns()
                writer.write(request[-3:])
                await reader.readuntil(b"abcdef")
            writer.write(post(b"x") * 200 + GET_AND_CLOSE)
            answer = await until_closed(reader)
            writer.close()
            assert answer.count(b"HTTP/1.1 200") == 201


@on_both_loops
async def test_a_request_that_can_not_be_answered_is_cut_off():
    lane = Lane()
    async with serving(express=lane) as served:
        reader, writer = await served.connect()
        writer.write(post(b"1") + post(b"2"))
        answer_to, _ = await lane.taken.get()
        answer_to.abort()
        assert await until_closed(reader) == b""
        writer.close()
        assert lane.taken.empty()


@on_both_loops
async def test_a_client_that_reads_nothing_is_not_served_on():
    body = b"x" * 60_000
    answered = 0

    class Big(AtOnce):
        def answer(self, answer_to, _body):
            nonlocal answered
            answered += 1
            super().answer(answer_to, body)

    async with serving(express=Big()) as served:
        reader, writer = await served.connect()
        writer.transport.pause_reading()
        writer.write(post(b"1") * 500 + GET_AND_CLOSE)
        before = -1
        while answered != before:  # until a while brings nothing more
            before = answered
            await asyncio.sleep(SOON_S)
        assert answered < 500
        writer.transport.resume_reading()
        received = await until_closed(reader)
        assert received.count(b"HTTP/1.1 200") == 501
        writer.close()


# Payments ----------------------------------------------------------------------------------------

# The same call at an address that the lane leaves alone.
ORDINARY = "/api/make-payment/?way=ordinary"


@pytest.fixture
def taken(world):
    """What the lane was offered, and whether it took it."""
    lane = world.client.server.app[EXPRESS]
    seen: list[bool] = []
    take = lane.take

    class Watched:
        def take(self, *args):
            seen.append(take(*args))
            return seen[-1]

    world.client.server.listener._edge.express = Watched()
    return seen


async def test_a_payment_takes_the_lane_and_anything_else_does_not(world, borrower, loan, taken):
    await world.get("/livez")
    assert (await world.pay(world.payer, loan, "1.00", "a")).status == 201
    assert (await world.pay(world.payer, loan, "1.00", "a")).status == 200
    assert (await world.post(ORDINARY, payment(loan, "b"), world.payer)).status == 201
    assert (await world.pay(borrower, loan, "1.00", "c")).status == 201
    assert taken == [False, True, True, False, True]


async def test_a_borrower_whom_the_vault_must_be_asked_about_goes_the_ordinary_way(world, loan, taken):
    borrower = await world.borrower()
    other = (await world.lend(borrower))["loan_id"]
    world.time.now_s += 60
    taken.clear()
    assert (await world.pay(borrower, other, "1.00", "a")).status == 201
    assert (await world.pay(borrower, other, "1.00", "b")).status == 201
    assert taken == [False, True]


def payment(loan_id, transaction_id="t", amount="1.00", **more):
    return {"loan_id": loan_id, "amount": amount, "transaction_id": transaction_id, **more}


async def test_no_caller_can_tell_which_way_a_payment_went(world, borrower, loan, taken):
    closed = (await world.lend(borrower, amount="10.00"))["loan_id"]
    assert (await world.pay(borrower, closed, "10.00", "all")).status == 201
    await world.advance(65)
    cases = [
        (payment(loan, "conflict"), world.payer, {}),
        (payment(loan, "conflict", "2.00"), world.payer, {}),
        (payment(loan, "conflict"), borrower, {}),
        (payment(closed, "x"), world.payer, {}),
        (payment(loan, "x", "9999.00"), world.payer, {}),
        (payment(loan, "x", for_bill=2), world.payer, {}),
        (payment(loan, "x", for_bill=9), world.payer, {}),
        (payment("0" * 16, "x"), world.payer, {}),
        (payment("nonsense", "x"), world.payer, {}),
        (payment(loan, "a b", "-1"), world.payer, {}),
        ({}, world.payer, {}),
        (b"", world.payer, {}),
        (b"{", world.payer, {}),
        (b"\xff", world.payer, {}),
        (b'{"amount": 1, "amount": 1}', world.payer, {}),
        (payment(loan, "x"), None, {}),
        (payment(loan, "x"), "nonsense", {}),
        (payment(loan, "x"), world.ops, {}),
        (payment(loan, "x"), None, {"Authorization": "Basic eA=="}),
        (payment(loan, "x"), world.payer, {"Content-Type": "text/plain"}),
        (payment(loan, "x"), world.payer, {"Content-Type": None}),
    ]
    assert (await world.post("/api/make-payment/", payment(loan, "conflict"), world.payer)).status == 201
    assert (await world.post("/api/make-payment/", payment(loan, "conflict"), borrower)).status == 201
    for body, who, headers in cases:
        taken.clear()
        head = await world.head()
        express = await world.call("POST", "/api/make-payment/", body, who, headers)
        ordinary = await world.call("POST", ORDINARY, body, who, headers)
        assert taken == [False, True, False], (body, headers)
        assert express.bare == ordinary.bare
        assert set(map(str.lower, express.headers)) == set(map(str.lower, ordinary.headers))
        assert await world.head() == head


async def test_what_the_lane_leaves_alone(world, borrower, loan, taken):
    good = payment(loan, "t")
    long = json.dumps(good).encode() + b" " * world.service.config.limits.body_bytes
    for body, headers, status in (
        (good, {"Connection": "close"}, 201),
        (good, {"Expect": "100-continue"}, 200),
        (good, {"Content-Encoding": "gzip"}, 415),
        (good, {"Content-Encoding": "identity"}, 200),
        (long, {}, 413),
    ):
        taken.clear()
        answer = await world.call("POST", "/api/make-payment/", body, world.payer, headers)
        assert (answer.status, taken) == (status, [False]), headers


async def test_both_ways_are_counted_and_logged_alike(world, loan):
    for path in ("/api/make-payment/", ORDINARY):
        await world.call("POST", path, payment(loan, "t"), world.payer, {"X-Request-ID": "mine"})
    await world.client.close()
    world.access.flush()
    lines = [json.loads(line) for line in world.log.getvalue().splitlines()]
    express, ordinary = (line for line in lines if line.get("request_id") == "mine")
    for line in (express, ordinary):
        del line["timestamp"], line["duration_ms"]
    assert express == ordinary | {"status": 201}
    assert ordinary["status"] == 200
    counted = world.service.services.metrics.render().decode()
    for status in (200, 201):
        assert f'ledgerd_requests_total{{route="/api/make-payment/",status="{status}"}} 1.0' in counted


async def test_a_bug_in_showing_the_outcome_is_500_and_harms_no_actor(world, loan, monkeypatch):
    def broken(*_args):
        raise ZeroDivisionError("a bug")

    world.errors_allowed = True
    monkeypatch.setattr("ledgerd.http.payments.outcome", broken)
    answer = await world.pay(world.payer, loan, "1.00", "t")
    assert (answer.status, answer.slug) == (500, "internal")
    assert b"ZeroDivision" not in answer.body
    assert "a bug" in world.log.getvalue()
    monkeypatch.undo()
    assert (await world.pay(world.payer, loan, "1.00", "t")).status == 200


async def test_an_outcome_that_nothing_can_be_made_of_resets_the_connection_and_harms_no_actor(
    world, loan, monkeypatch
):
    world.errors_allowed = True
    with monkeypatch.context() as broken:
        broken.setattr("ledgerd.http.express.problem_bytes", None)
        with pytest.raises(aiohttp.ClientError):
            await world.pay(world.payer, loan, "9999999.00", "t")
    assert (await world.pay(world.payer, loan, "1.00", "t")).status == 201
    assert not world.service.broken.is_set()


async def test_draining_turns_payments_away(world, loan, taken):
    world.service.services.draining = True
    answer = await world.pay(world.payer, loan, "1.00", "t")
    assert (answer.status, answer.slug, taken) == (503, "draining", [True])
