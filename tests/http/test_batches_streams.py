"""Streams of payments: answered while they are read, in order, in bounded memory, and ended cleanly."""

from __future__ import annotations

import asyncio
import io
import json

import pytest

from ledgerd.config import Limits, Server
from ledgerd.http.in_order import WINDOW, InOrder
from tests.http.edge import next_turns, until_closed
from tests.http.outside import on_disk
from tests.http.streams import PATH, statuses, streaming
from tests.http.test_express import payment
from tests.http.test_overdue import stalled

NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture
def stream(world):
    """Begins a stream of the world's payer."""
    return lambda *headers, **more: streaming(world.client.server.port, world.payer.token, *headers, **more)


@pytest.fixture
def calls(monkeypatch):
    """The batches that were begun, from the inside."""
    begun: list[InOrder] = []

    class Seen(InOrder):
        def __init__(self, *args):
            super().__init__(*args)
            begun.append(self)

    monkeypatch.setattr("ledgerd.http.batches.InOrder", Seen)
    return begun


async def sent_whole(world, *lines: bytes, **headers: str | None):
    """The results of a stream that is sent in one piece."""
    answer = await world.client.post(
        PATH,
        data=io.BytesIO(b"".join(lines)),
        headers={**NDJSON, "Authorization": f"Bearer {world.payer.token}", **headers},
    )
    return answer, [json.loads(line) for line in (await answer.read()).splitlines()]


async def settled(world):
    """Wait until nothing is in flight."""
    while world.service.registry.in_flight:
        await next_turns()


# What goes in and comes out -------------------------------------------------------------------------


async def test_it_is_answered_while_it_is_read(world, borrower, loan, stream):
    async with stream() as caller:
        for number in range(3):
            caller.send(payment(loan, f"t{number}"))
            [result] = await caller.results(1)
            assert (result["status"], result["transaction_id"]) == (201, f"t{number}")
            assert result["receipt"]["outstanding"]["total"] == f"{4999 - number}.00"
        caller.send(payment(loan, "t1"), payment(loan, "t1", "2.00"), payment("0" * 16, "t3"))
        assert statuses(await caller.results(3)) == [200, 409, 404]
        caller.end()
        assert await caller.rest() == []
        assert "\r\nX-Request-ID: mine\r\n" in caller.head
        caller.writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"alive" in await until_closed(caller.reader)  # the connection goes on
    assert (await world.loan(borrower, loan))["principal_received"] == "3.00"
    world.access.flush()
    [line] = [line for line in world.log.getvalue().splitlines() if PATH in line]
    assert (json.loads(line)["status"], json.loads(line)["request_id"]) == (200, "mine")


async def test_thousands_of_lines_in_their_order_however_they_are_cut(world, borrower, loan):
    other = (await world.lend(borrower))["loan_id"]
    lines = [
        json.dumps(payment((loan, other)[number % 2], f"t{number}", "0.01")).encode() + b"\n"
        for number in range(5_000)
    ]
    whole = b"".join(lines)

    async def pieces():
        for start in range(0, len(whole), 7_001):
            yield whole[start : start + 7_001]

    headers = {**NDJSON, "Authorization": f"Bearer {world.payer.token}"}
    async with world.client.post(PATH, data=pieces(), headers=headers) as answer:
        results = [json.loads(line) async for line in answer.content]
    assert [each["transaction_id"] for each in results] == [f"t{number}" for number in range(5_000)]
    assert set(statuses(results)) == {201}
    for where in (loan, other):
        assert (await world.loan(borrower, where))["principal_received"] == "25.00"
    _, again = await sent_whole(world, *lines)
    assert again == [
        {**each, "status": 200, "receipt": {**each["receipt"], "replayed": True}} for each in results
    ]


async def test_a_bad_line_costs_itself_alone(world, borrower, loan):
    good = json.dumps(payment(loan, "t")).encode()
    long = json.dumps(payment(loan, "long")).encode().ljust(16_385)
    _, results = await sent_whole(
        world,
        *(
            b"\n \t \r\n",
            good + b"\r\n",
            b"nonsense\n",
            b"\xff\n",
            b"[]\n",
            b"1\n",
            b'{"transaction_id": "x"}\n',
        ),
        *(b'{"a": NaN}\n', b"\xef\xbb\xbf" + good + b"\n", good + good + b"\n", b"[" * 16_000 + b"\n"),
        *(json.dumps(payment(loan, "y", "-1")).encode() + b"\n", b'{"transaction_id": "\\ud800"}\n'),
        *(long + b"\n", long[:16_384] + b"\n", b"x" * 1_000_000 + b"\n", good),
    )
    assert [(each["status"], each["transaction_id"]) for each in results] == [
        *((201, "t"), (400, None), (400, None), (422, None), (422, None), (422, "x")),
        *((400, None), (400, None), (400, None), (400, None)),
        *((422, "y"), (400, None)),
        *((413, "long"), (201, "long"), (413, None), (200, "t")),
    ]
    assert all(("receipt" in each) != ("problem" in each) for each in results)
    assert all(each["problem"]["status"] == each["status"] for each in results if "problem" in each)
    assert (await world.loan(borrower, loan))["principal_received"] == "2.00"


async def test_a_line_without_end_is_not_kept(world, loan, stream, calls):
    async with stream() as caller:
        for _ in range(500):
            caller.send_bytes(b"x" * 65_536)
            await caller.writer.drain()
        caller.send(b"\n", payment(loan, "t"))
        assert statuses(await caller.results(2)) == [413, 201]


async def test_a_stream_of_nothing(world):
    for body in (b"", b"\n\n", b" \r\n"):
        answer, results = await sent_whole(world, body)
        assert (answer.status, answer.content_type, results) == (200, "application/x-ndjson", [])


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
async def test_it_comes_as_it_is(world, encoding):
    answer, _ = await sent_whole(world, b"{}", **{"Content-Encoding": encoding})
    assert answer.status == 415
    answer, _ = await sent_whole(world, b"{}", **{"Content-Type": "application/x-ndjson; charset=latin-1"})
    assert answer.status == 415


# Limits ---------------------------------------------------------------------------------------------


async def test_a_full_mailbox_and_too_much_in_flight_mean_waiting(open_world):
    async with open_world(limits=Limits(mailbox=4, in_flight=8)) as world:
        borrower = await world.borrower()
        loan = (await world.lend(borrower))["loan_id"]
        lines = [json.dumps(payment(loan, f"t{number}")).encode() + b"\n" for number in range(100)]
        _, results = await sent_whole(world, *lines)
        assert statuses(results) == [201] * 100
        counted = (await world.get("/metrics")).body.decode()
        assert '"overloaded"' not in counted  # nobody was turned away
        assert 'limit="mailbox"' not in counted
        assert (await world.loan(borrower, loan))["principal_received"] == "100.00"


async def test_who_does_not_read_is_not_read_on(world, loan, stream, calls):
    count = 30_000
    async with stream(read_ahead_bytes=16_384) as caller:
        caller.send(*[b"1\n"] * count)  # each result is a hundred times as long
        while not (calls and calls[0]._slots and not calls[0]._roomy.is_set() and _is_paused(world)):
            await next_turns()
        [payments] = calls
        assert len(payments._slots) <= WINDOW
        caller.send(payment(loan, "last"))
        caller.end()
        results = await caller.rest()
    assert statuses(results) == [422] * count + [201]


def _is_paused(world) -> bool:
    return any(connection._paused for connection in world.client.server.listener._runner.server.connections)


async def test_there_are_so_many_batches_at_once(open_world):
    async with open_world(limits=Limits(batches=2)) as world:
        port, token = world.client.server.port, world.payer.token
        async with streaming(port, token) as first, streaming(port, token) as second:
            for caller in (first, second):
                caller.send({})
                await caller.results(1)
            for body, headers in ((b"", NDJSON), ([], {})):
                answer = await world.post(PATH, body, world.payer, **headers)
                assert (answer.status, answer.slug) == (503, "overloaded")
            second.end()
            await second.rest()
            answer = await world.post(PATH, [], world.payer)
            assert (answer.status, answer.json) == (200, [])


# Its end ----------------------------------------------------------------------------------------------


async def test_who_hangs_up_has_paid_what_was_read_once(world, borrower, loan, stream, calls):
    sent = [payment(loan, f"t{number}") for number in range(500)]
    async with stream() as caller:
        caller.send(*sent)
        await caller.results(1)
    await asyncio.wait([calls[0]._feeding])
    await settled(world)
    answer = await world.post(PATH, sent, world.payer)
    assert set(statuses(answer.json)) <= {200, 201}
    assert answer.json[0]["status"] == 200
    assert (await world.loan(borrower, loan))["principal_received"] == "500.00"
    assert world.service.services.at_drain == set()


async def test_draining_answers_what_was_taken_and_ends_the_stream(world, borrower, loan, stream):
    async with stream() as caller:
        caller.send(*(payment(loan, f"t{number}") for number in range(300)))
        first = await caller.results(1)
        await world.service.drain()
        *results, last = first + await caller.rest()
        assert caller.ended
        assert statuses(results) == [201] * len(results)
        assert (last["status"], last["transaction_id"]) == (503, None)
        assert last["problem"]["type"] == "/problems/draining"
    world.service.services.draining = False
    assert (await world.loan(borrower, loan))["principal_received"] == f"{len(results)}.00"


async def test_draining_does_not_wait_for_who_never_stops_sending(world, loan, stream):
    async with stream() as caller:

        async def send_for_ever():
            number = 0
            while True:
                caller.send(payment(loan, f"t{number}", "0.01"))
                await caller.writer.drain()
                number += 1

        sending = asyncio.ensure_future(send_for_ever())
        await caller.results(100)
        await world.service.drain()
        assert statuses(await caller.rest())[-1] == 503
        await until_closed(caller.reader)
        with pytest.raises(ConnectionError):
            await sending
    world.service.services.draining = False


async def test_a_silent_stream_is_ended(open_world):
    async with open_world(server=Server(body_timeout_s=1)) as world:
        loan = (await world.lend(await world.borrower()))["loan_id"]
        port, token = world.client.server.port, world.payer.token
        async with streaming(port, token) as caller:
            caller.send(payment(loan, "a"), b'{"half')
            results = await caller.rest()
            assert statuses(results) == [201, 408]
            assert results[1]["transaction_id"] is None
            await until_closed(caller.reader)
        async with streaming(port, token) as caller:  # nothing came: it is an answer like any other
            assert (await caller.reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 408 ")


async def test_bad_chunks_end_the_stream(world, loan, stream):
    async with stream() as caller:
        caller.send(payment(loan, "a"))
        await caller.results(1)
        caller.writer.write(b"zz\r\n")
        results = await caller.rest()
        assert statuses(results) == [400]
        assert results[0]["transaction_id"] is None


async def test_a_store_that_stalls_ends_the_stream(open_world, tmp_path):
    async with open_world(storage=on_disk(tmp_path), server=Server(request_timeout_s=1)) as world:
        borrower = await world.borrower()
        loan = (await world.lend(borrower))["loan_id"]
        world.errors_allowed = True
        async with streaming(world.client.server.port, world.payer.token) as caller:
            caller.send(payment(loan, "a"))
            await caller.results(1)
            with stalled(world):
                caller.send(payment(loan, "b"), b"{}\n", payment(loan, "c"))
                results = await caller.rest()
            assert [(each["status"], each["transaction_id"]) for each in results] == [
                *((500, "b"), (422, None), (500, "c"), (500, None))
            ]
        await settled(world)
        assert (await world.pay(world.payer, loan, "1.00", "b")).status == 200
        assert (await world.pay(world.payer, loan, "1.00", "c")).status == 200
        assert world.log.getvalue().count("outcome unknown") <= 2


async def test_without_its_store_a_stream_ends_and_what_was_acknowledged_is_there(open_world, tmp_path):
    disk = on_disk(tmp_path)
    async with open_world(storage=disk) as world:
        loan = (await world.lend(await world.borrower()))["loan_id"]
        world.errors_allowed = True
        async with streaming(world.client.server.port, world.payer.token) as caller:
            sent = [payment(loan, f"t{number}", "0.01") for number in range(3_000)]
            caller.send(*sent)
            results = await caller.results(1)
            world.service.store._process.kill()
            await world.service.broken.wait()
            results += await caller.rest()
        payer, time = world.payer, world.time
    counted = statuses(results).count(201)
    assert statuses(results) == [201] * counted + [500] * (len(results) - counted)
    assert counted < len(results) <= 3_001
    async with open_world(storage=disk, time=time) as world:
        answer = await world.post(PATH, sent, payer)
        assert statuses(answer.json)[:counted] == [200] * counted
        assert set(statuses(answer.json)) <= {200, 201}


# Who may --------------------------------------------------------------------------------------------


async def test_who_may_not_is_refused_before_anything_is_read(world, borrower):
    for who, status in ((borrower, 403), (world.ops, 403), ("none", 401)):
        answer = await world.post(PATH, b"{}", who, **NDJSON)
        assert answer.status == status


async def test_it_is_asked_for_when_the_caller_waits_for_that(world, loan, stream):
    async with stream("Expect: 100-continue") as caller:
        assert await caller.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        caller.send(payment(loan, "a"))
        assert statuses(await caller.results(1)) == [201]
