"""The generator against a server in the same loop that answers when the test lets it."""

import asyncio
from contextlib import asynccontextmanager
from time import monotonic

import pytest

from bench.generator import Generator
from bench.openloop import Plan
from bench.traffic import Payments, Phase, message_bytes

PAYMENTS = Payments(loans=["1" * 16], tokens=["token"])


def answer(status=201, headers=""):
    return f"HTTP/1.1 {status} X\r\nContent-Length: 2\r\n{headers}\r\n{{}}".encode()


class Server:
    """Answers request `number` with `reply(number)`: bytes, or None to hang up; nothing while it is held."""

    def __init__(self, reply=lambda _number: answer(), *, held=False):
        self.reply = reply
        self.waiting = [] if held else None
        self.counted = 0

    def asked(self, transport):
        if self.waiting is not None:
            self.waiting.append(transport)
            return
        self.counted += 1
        answered = self.reply(self.counted)
        if answered is None:
            transport.abort()
        else:
            transport.write(answered)

    def release(self):
        transports, self.waiting = self.waiting, None
        for transport in transports:
            self.asked(transport)


class Caller(asyncio.Protocol):
    """A connection to the server."""

    def __init__(self, server):
        self.server = server
        self.data = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.data += data
        if message_bytes(self.data) == len(self.data):
            self.data = b""
            self.server.asked(self.transport)


@asynccontextmanager
async def serving(server):
    listening = await asyncio.get_running_loop().create_server(lambda: Caller(server), "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"


def plan(url, **changes):
    usual = {"rate_per_s": 500, "seconds": 0.2, "connections": 2, "seed": 7, "slice_s": 0.1, "grace_s": 10}
    return Plan(url=url, requests=PAYMENTS, run="test", **{**usual, **changes})


def check_sums(result):
    """What is offered is accounted for, in every slice."""
    for each in result.slices:
        assert each.offered == each.sent + each.dropped
        assert each.sent == sum(each.statuses.values()) + each.unread + each.broken
    total = result.total
    assert total.answered_here == total.answered == total.latency.count


async def run(plan, at_end=lambda: None):
    """Run a plan; `at_end` is called when the last request was offered."""
    generator = Generator(plan)
    await generator.connect()
    running = asyncio.create_task(generator.run(monotonic()))
    await generator.all_offered.wait()
    at_end()
    result = await running
    check_sums(result)
    assert result.total.offered == len(generator.due) > 50
    return generator, result


async def test_latency_counts_from_the_intended_time_however_long_the_server_stalls():
    server = Server(held=True)
    released_s = []

    def release():
        released_s.append(monotonic())
        server.release()

    async with serving(server) as url:
        generator, result = await run(plan(url), release)
    stalled_us = sorted(int((released_s[0] - generator.start_s - due_s) * 1e6) for due_s in generator.due)
    latency = result.total.latency
    assert result.total.answered == len(generator.due)
    for percent in (50, 90, 99, 100):
        at_least_us = stalled_us[int(len(stalled_us) * percent / 100) - 1]
        assert latency.percentile_ms(percent) * 1000 >= at_least_us - 1
    assert result.uncorrected.count == len(generator.due)
    assert result.send_lag.count == 2  # the others waited for a connection, not for the generator


async def test_what_does_not_fit_the_queue_is_dropped_and_counted():
    server = Server(held=True)
    async with serving(server) as url:
        generator, result = await run(plan(url, connections=1, queue=3), server.release)
    assert result.total.sent == result.total.answered == 4
    assert result.total.dropped == len(generator.due) - 4


async def test_what_has_no_answer_by_the_end_is_unread():
    async with serving(Server(held=True)) as url:
        generator, result = await run(plan(url, grace_s=0))
    assert result.total.unread == result.total.sent == 2
    assert result.total.dropped == len(generator.due) - 2
    assert result.to_load("B6", "wide").unread == 2


async def test_an_answer_later_than_the_timeout_is_broken_and_the_connection_replaced():
    server = Server(lambda number: b"" if number == 1 else answer())  # the first is never answered
    async with serving(server) as url:
        _, result = await run(plan(url, timeout_s=0))
    assert result.total.broken == result.reconnects == 1
    assert result.total.answered == result.total.sent - 1


async def test_hang_ups_are_broken_and_refusals_are_kept_by_status():
    def moody(number):
        return None if number == 5 else answer({0: 503, 1: 429, 2: 409}.get(number % 10, 200))

    async with serving(Server(moody)) as url:
        _, result = await run(plan(url))
    total = result.total
    assert total.broken == result.reconnects == 1
    assert set(total.statuses) == {200, 409, 429, 503}
    assert total.refused == total.statuses[429] + total.statuses[503] == total.refused_here
    assert total.other == total.statuses[409]
    load = result.to_load("B1", "wide")
    assert load.sent == load.answered + load.refused + load.broken


async def test_a_connection_that_the_server_closes_after_an_answer_is_replaced():
    async with serving(Server(lambda _: answer(headers="Connection: close\r\n"))) as url:
        _, result = await run(plan(url, connections=10))
    assert result.total.answered == result.total.offered
    assert result.reconnects >= result.total.offered - 10


@pytest.mark.parametrize("noise", [b"HTTP/1.1 200 OK\r\n\r\n", answer() + answer(), b"no\r\n\r\n"])
async def test_what_is_not_one_answer_breaks_the_request(noise):
    async with serving(Server(lambda number: noise if number == 1 else answer())) as url:
        _, result = await run(plan(url))
    assert result.total.broken == 1


async def test_phases_have_figures_of_their_own_and_what_is_acknowledged_is_written_down(tmp_path):
    async with serving(Server()) as url:
        phases = plan(url, then=[Phase(1_000, 0.1)], acknowledged=str(tmp_path / "ids"))
        generator, result = await run(phases)
    first, then = result.to_load("B6", "wide", 0, 0.2), result.to_load("B6", "wide", 0.2)
    assert first.offered == sum(due_s < 0.2 for due_s in generator.due)
    assert then.offered == sum(due_s >= 0.2 for due_s in generator.due)
    assert (first.seconds, then.seconds) == pytest.approx((0.2, 0.1))
    acknowledged = (tmp_path / "ids.0").read_text().split()
    assert len(set(acknowledged)) == len(acknowledged) == result.total.answered


async def test_connections_that_can_not_be_made_are_an_error():
    async with serving(Server()) as url:
        pass  # and closed again
    with pytest.raises(ExceptionGroup, match="TaskGroup"):
        await Generator(plan(url)).connect()
