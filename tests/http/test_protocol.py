"""The edge of a connection, over raw sockets: slow, silent, malformed and vanishing clients."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ledgerd.http.problems import Problem
from ledgerd.http.protocol import ClientGone
from ledgerd.http.request_body import read_body
from tests.http.edge import (
    BODY_BYTES,
    GET,
    GET_AND_CLOSE,
    assert_problem,
    chunked,
    next_turns,
    on_both_loops,
    parsed,
    post,
    serving,
    until_closed,
)

SOON_S = 0.05

# Heads -------------------------------------------------------------------------------------------


@on_both_loops
async def test_a_connection_that_sends_nothing_is_closed():
    async with serving(header_timeout_s=SOON_S) as served:
        assert await served.send() == b""


@on_both_loops
async def test_a_head_that_does_not_come_whole_is_408():
    async with serving(header_timeout_s=SOON_S) as served:
        headers = assert_problem(await served.send(b"GET / HT"), 408, "request-timeout")
        assert headers["connection"] == "close"
        assert served.refusals == [408]


@on_both_loops
async def test_a_dripping_head_does_not_push_its_end_away():
    async with serving(header_timeout_s=SOON_S) as served:
        reader, writer = await served.connect()

        async def drip():
            while not reader.at_eof():
                writer.write(b"X")
                await asyncio.sleep(SOON_S / 10)

        dripping = asyncio.create_task(drip())
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nA: ")
        answer = await until_closed(reader)
        dripping.cancel()
        writer.close()
        assert_problem(answer, 408, "request-timeout")


@on_both_loops
async def test_a_head_in_pieces_is_served():
    async with serving() as served:
        answer = await served.send(b"GET / HTTP/1.1\r\n", b"Host: x\r\n", b"Connection: close\r\n\r", b"\n")
        assert parsed(answer)[0] == 200


@on_both_loops
async def test_the_second_head_has_its_time_too():
    async with serving(header_timeout_s=SOON_S) as served:
        answer = await served.send(GET, b"GET / HT")
        first, _, body = parsed(answer)
        assert (first, body) == (200, b"ok")
        assert_problem(answer[answer.index(b"HTTP/1.1 408") :], 408, "request-timeout")


@on_both_loops
async def test_a_head_that_begins_while_the_handler_works_has_its_time_after():
    release = asyncio.Event()

    async def wait(_request):
        asyncio.get_running_loop().call_later(3 * SOON_S, release.set)
        await release.wait()
        return web.Response(text="ok")

    async with serving(wait, header_timeout_s=SOON_S) as served:
        answer = await served.send(GET, b"GET / HT")
        assert parsed(answer)[0] == 200
        assert_problem(answer[answer.index(b"HTTP/1.1 408") :], 408, "request-timeout")


@on_both_loops
async def test_between_requests_the_keepalive_timeout_counts_alone():
    async with serving(header_timeout_s=SOON_S, keepalive_timeout_s=4 * SOON_S) as served:
        for empty_lines in (b"", b"\r\n\r\n"):
            answer = await served.send(GET, empty_lines)
            assert answer.count(b"HTTP/1.1") == 1
            assert parsed(answer)[0] == 200
        assert served.refusals == []


@on_both_loops
async def test_a_head_that_came_leaves_no_timer_behind():
    async with serving(header_timeout_s=SOON_S) as served:
        reader, writer = await served.connect()
        writer.write(GET[:5])
        await next_turns()
        writer.write(GET[5:])
        asyncio.get_running_loop().call_later(3 * SOON_S, writer.write, GET_AND_CLOSE)
        assert (await until_closed(reader)).count(b"HTTP/1.1 200") == 2
        writer.close()


@on_both_loops
async def test_a_body_on_its_way_is_not_taken_for_a_head():
    async with serving(header_timeout_s=SOON_S, keepalive_timeout_s=4 * SOON_S) as served:
        request = post(b"abcdef")
        answer = await served.send(request[:-4], request[-4:-2], request[-2:])
        assert answer.count(b"HTTP/1.1") == 1
        assert parsed(answer)[2] == b"abcdef"


@on_both_loops
async def test_one_address_has_so_many_connections():
    async with serving(connections_per_address=2) as served:
        first_reader, first = await served.connect()
        _, second = await served.connect()
        first.write(GET)
        await first_reader.readuntil(b"ok")
        headers = assert_problem(await served.send(), 503, "overloaded")
        assert (headers["retry-after"], headers["connection"]) == ("1", "close")
        first.write(GET_AND_CLOSE)  # the open ones are served, and make room when they end
        assert parsed(await until_closed(first_reader))[0] == 200
        assert parsed(await served.send(GET_AND_CLOSE))[0] == 200
        assert served.refusals == [503]
        first.close()
        second.close()


# What aiohttp refuses -----------------------------------------------------------------------------

BAD_REQUESTS = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "version 9.9": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "version 2.0": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    "version 0.9": b"GET /\r\n\r\n",
    "version 0.9 with headers": b"GET /\r\nHost: x\r\n\r\n",
    "version 0.9 with a body": b"POST /\r\nHost: x\r\nContent-Length: 1\r\n\r\na",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "long line": b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "long header": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 9000 + b"\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    "folded header": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "NUL": b"GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n",
    "length and chunks": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "negative length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "signed length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +2\r\n\r\nab",
    "bad chunk": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("request_bytes", BAD_REQUESTS.values(), ids=BAD_REQUESTS)
async def test_a_malformed_request_is_400(request_bytes):
    async with serving() as served:
        answer = await served.send(request_bytes)
        headers = assert_problem(answer, 400, "malformed")
        assert headers["connection"] == "close"
        assert b"aaaa" not in answer
        assert served.refusals == [400]


LONG_LINE = b"A: " + b"a" * 8000 + b"\r\n"


@on_both_loops
async def test_a_head_is_bounded_as_a_whole_however_it_comes():
    lines = [b"GET / HTTP/1.1\r\nHost: x\r\n", *[LONG_LINE] * 5]
    for pieces in ([b"".join(lines) + b"\r\n"], [*lines], [GET + lines[0], *lines[1:]]):
        async with serving() as served:
            received = await served.send(*pieces)
            *first, refused = [b"HTTP/1." + answer for answer in received.split(b"HTTP/1.")[1:]]
            assert len(first) == (GET in pieces[0])
            assert_problem(refused, 400, "malformed")
            assert b"longer than 32768 bytes" in refused
            assert served.refusals == [400]


@on_both_loops
async def test_a_head_that_is_just_short_enough_is_taken_and_many_of_them_too():
    head = b"GET / HTTP/1.1\r\nHost: x\r\n" + LONG_LINE * 4
    async with serving() as served:
        answers = await served.send(*[head + b"\r\n"] * 5, head + b"Connection: close\r\n\r\n")
        assert answers.count(b"HTTP/1.1 200 OK") == 6


@on_both_loops
async def test_a_bad_chunk_after_a_good_one_is_400_at_once():
    async with serving() as served:
        answer = await served.send(*chunked(b"abc")[:2], b"zz\r\nabc\r\n")
        status, headers, _ = parsed(answer)
        assert (status, headers["connection"]) == (400, "close")
        assert answer.count(b"HTTP/1.1") == 1


def test_an_unread_body_that_turns_bad_closes_the_connection_and_is_no_bug(caplog):
    @on_both_loops
    async def scenario():
        async with serving() as served:
            head = chunked()[0].replace(b"POST", b"GET").replace(b"Connection: close\r\n", b"")
            answer = await served.send(head + b"1\r\na\r\n", b"zz\r\nabc\r\n")
            assert parsed(answer)[0] == 200

    scenario(asyncio.new_event_loop)
    assert caplog.records == []


@on_both_loops
async def test_the_callers_request_id_comes_back():
    async with serving() as served:
        answer = await served.send(
            b"GET /none HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine\r\nConnection: close\r\n\r\n"
        )
        assert parsed(answer)[1]["x-request-id"] == "mine"


@on_both_loops
async def test_a_request_that_can_not_be_read_keeps_its_id():
    async with serving() as served:
        for wrong in (b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", b"Content-Length: -1\r\n"):
            for sent, kept in ((b"keep-me", "keep-me"), (b"not me!", "made-here"), (b"x" * 65, "made-here")):
                answer = await served.send(
                    b"POST / HTTP/1.1\r\nHost: x\r\nx-request-id: " + sent + b"\r\n" + wrong + b"\r\n"
                )
                status, headers, _ = parsed(answer)
                assert (status, headers["x-request-id"]) == (400, kept)


@on_both_loops
async def test_unknown_addresses_and_methods_are_problems():
    async with serving() as served:
        answer = await served.send(GET_AND_CLOSE.replace(b"GET / ", b"GET /none "))
        assert_problem(answer, 404, "not-found")
        headers = assert_problem(
            await served.send(GET_AND_CLOSE.replace(b"GET", b"PUT")), 405, "method-not-allowed"
        )
        assert headers["allow"] == "GET,HEAD,POST"


@on_both_loops
async def test_a_bug_is_500_without_internals():
    async def fail(_request):
        raise ZeroDivisionError("a secret")

    async def run_out(_request):
        raise TimeoutError("a secret")

    for handler in (fail, run_out):
        async with serving(handler) as served:
            answer = await served.send(GET)
            assert_problem(answer, 500, "internal")
            assert b"secret" not in answer
            assert served.refusals == [500]


@on_both_loops
async def test_a_bug_after_the_answer_began_cuts_it_off():
    async def begin(request):
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        raise ZeroDivisionError

    async with serving(begin) as served:
        answer = await served.send(GET)
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"half\r\n")  # the last chunk is missing


# Expect ------------------------------------------------------------------------------------------


@on_both_loops
async def test_another_expectation_is_417():
    async with serving() as served:
        answer = await served.send(post(b"", "Expect: miracles", "Connection: close"))
        assert_problem(answer, 417, "expectation-failed")


@on_both_loops
async def test_continue_is_said_when_the_body_is_wanted():
    async with serving() as served:
        reader, writer = await served.connect()
        request = post(b"abc", "Expect: 100-continue", "Connection: close")
        writer.write(request[:-3])
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"abc")
        status, _, body = parsed(await until_closed(reader))
        assert (status, body) == (200, b"abc")
        writer.close()


@on_both_loops
async def test_a_bug_after_continue_is_500_like_any_other():
    async def fail(request):
        await read_body(request, BODY_BYTES, 60)
        raise ZeroDivisionError

    async with serving(fail) as served:
        request = post(b"abc", "Expect: 100-continue").replace(b"POST", b"GET")
        answer = await served.send(request[:-3], request[-3:])
        assert_problem(answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"), 500, "internal")


@on_both_loops
async def test_continue_is_not_said_for_a_body_that_is_refused_or_here():
    async with serving(body_timeout_s=SOON_S) as served:
        too_long = post(b"a" * (BODY_BYTES + 1), "Expect: 100-continue", "Connection: close")
        assert parsed(await served.send(too_long[:-BODY_BYTES]))[0] == 413
        here = post(b"abc", "Expect: 100-continue", "Connection: close")
        assert parsed(await served.send(here))[0] == 200


# Bodies ------------------------------------------------------------------------------------------


@on_both_loops
async def test_bodies_come_whole_however_they_are_sent():
    async with serving() as served:
        whole = post(b"abcdef", "Connection: close")
        expected = b"abcdef"
        for pieces in ([whole], [whole[:-6], whole[-6:]], [whole[:-3], whole[-3:]], chunked(b"abc", b"def")):
            status, _, body = parsed(await served.send(*pieces))
            assert (status, body) == (200, expected)
            status, _, body = parsed(await served.send(b"".join(pieces)))
            assert (status, body) == (200, expected)
        status, _, body = parsed(await served.send(post(b"", "Connection: close")))
        assert (status, body) == (200, b"")


@on_both_loops
async def test_a_compressed_body_stays_compressed():
    async with serving() as served:
        request = post(b"\x1f\x8b\x08", "Content-Encoding: gzip", "Connection: close")
        assert parsed(await served.send(request))[2] == b"\x1f\x8b\x08"


@on_both_loops
async def test_a_body_that_stalls_is_408_and_the_connection_closes():
    async with serving(read_timeout_s=SOON_S, body_timeout_s=60) as served:
        answer = await served.send(post(b"abc")[:-1])
        status, headers, body = parsed(answer)
        assert (status, headers["connection"]) == (408, "close")
        assert b"/problems/request-timeout" in body
        assert answer.endswith(body)


@on_both_loops
async def test_a_dripping_body_does_not_push_its_end_away():
    async with serving(read_timeout_s=SOON_S, body_timeout_s=60) as served:
        reader, writer = await served.connect()

        async def drip():
            while not reader.at_eof():
                writer.write(b"x")
                await asyncio.sleep(SOON_S / 10)

        writer.write(post(bytes(BODY_BYTES))[:-BODY_BYTES])
        dripping = asyncio.create_task(drip())
        status, headers, body = parsed(await until_closed(reader))
        dripping.cancel()
        writer.close()
        assert (status, headers["connection"]) == (408, "close")
        assert b"/problems/request-timeout" in body


@on_both_loops
async def test_a_body_over_the_limit_is_413_and_the_connection_stays():
    too_long = b"a" * (BODY_BYTES + 1)
    one_chunk = chunked(too_long)
    one_chunk[0] = one_chunk[0].replace(b"Connection: close\r\n", b"")
    async with serving() as served:
        for pieces in (
            [post(too_long)],
            [post(too_long)[:-9], too_long[:9]],
            one_chunk,
            [b"".join(one_chunk)],
        ):
            answer = await served.send(*pieces, GET_AND_CLOSE)
            status, _, body = parsed(answer)
            assert status == 413
            assert b"/problems/body-too-large" in body
            assert parsed(answer[answer.index(b"HTTP/1.1 200") :])[2] == b"ok"
        exact = await served.send(post(b"a" * BODY_BYTES, "Connection: close"))
        assert parsed(exact)[0] == 200


@on_both_loops
async def test_a_client_that_hangs_up_within_its_body_is_noticed():
    async with serving() as served:
        for request in (post(b"abc")[:-1], chunked(b"abc")[0]):
            _, writer = await served.connect()
            writer.write(request)
            await next_turns()
            writer.transport.abort()
            assert isinstance(await served.gone.get(), ClientGone)
        assert served.refusals == []  # nobody is answered


@on_both_loops
async def test_a_client_that_hung_up_before_the_body_is_read_is_noticed():
    started, lost = asyncio.Event(), asyncio.Event()

    async def until_lost():
        started.set()
        await lost.wait()

    async with serving(before_body=until_lost) as served:
        _, writer = await served.connect()
        writer.write(post(b"abc")[:-1])
        await started.wait()
        writer.transport.abort()
        await served.listener._edge.empty.wait()
        lost.set()
        assert isinstance(await served.gone.get(), ClientGone)


# Clients that don't read, that send ahead, that leave ---------------------------------------------


@on_both_loops
async def test_an_answer_that_nobody_reads_ends_the_connection():
    async def much(_request):
        return web.Response(body=bytes(50_000_000))

    async with serving(much, unread_timeout_s=SOON_S) as served:
        _, writer = await served.connect()
        writer.write(GET)
        await next_turns()
        writer.transport.pause_reading()
        await served.listener._edge.empty.wait()
        writer.transport.abort()


class Buffer:
    """A transport whose client takes what `sizes` say."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = list(sizes)
        self.aborted = False

    def get_write_buffer_size(self):
        return self.sizes.pop(0)

    def abort(self):
        self.aborted = True

    def is_closing(self):
        return False


async def test_a_reader_may_be_slow_as_long_as_it_reads():
    async with serving() as served:
        _, writer = await served.connect()
        writer.write(GET)
        await next_turns()
        (connection,) = served.listener._runner.server.connections
        transport, connection.transport = connection.transport, Buffer(100, 60, 60, 60)
        connection.pause_writing()
        connection._stop_unread_timer()
        connection._unread_overdue()
        assert not connection.transport.aborted
        connection._unread_overdue()
        assert connection.transport.aborted
        connection._stop_unread_timer()
        connection.resume_writing()
        connection.transport = transport
        writer.close()


@on_both_loops
async def test_a_slow_reader_gets_the_whole_answer():
    size = 20_000_000

    async def much(_request):
        return web.Response(body=bytes(size))

    async with serving(much) as served:
        answer = await served.send(GET_AND_CLOSE)
        assert len(parsed(answer)[2]) == size


@on_both_loops
async def test_a_thousand_requests_sent_ahead_wait_in_a_bounded_queue():
    waiting = []

    async def number(request):
        waiting.append(len(request.protocol._messages))
        return web.Response(text=f"<{request.query['n']}>")

    async with serving(number) as served:
        requests = [f"GET /?n={n} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for n in range(1000)]
        answer = await served.send(b"".join(requests), GET_AND_CLOSE.replace(b"/ ", b"/?n=last "))
        bodies = [part.partition(">")[0] for part in answer.decode().split("<")[1:]]
        assert bodies == [*map(str, range(1000)), "last"]
        assert max(waiting) <= 32


@on_both_loops
async def test_a_handler_outlives_its_client():
    started, release, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(_request):
        started.set()
        await release.wait()
        finished.set()
        return web.Response(text="ok")

    async with serving(work) as served:
        _, writer = await served.connect()
        writer.write(GET)
        await started.wait()
        writer.transport.abort()
        await served.listener._edge.empty.wait()
        release.set()
        await finished.wait()


async def test_read_body_works_under_another_server():
    seen = []

    async def echo(request):
        try:
            return web.Response(body=await read_body(request, BODY_BYTES, SOON_S))
        except Problem as problem:
            seen.append(problem.slug)
            return web.Response(status=problem.status)

    app = web.Application()
    app.router.add_post("/", echo)
    server = TestServer(app)
    await server.start_server(lingering_time=SOON_S)
    for request, status in ((post(b"abc", "Connection: close"), 200), (post(b"abc")[:-1], 408)):
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(request)
        assert parsed(await until_closed(reader))[0] == status
        writer.close()
    await server.close()
    assert seen == ["request-timeout"]


@on_both_loops
async def test_what_stands_behind_an_upgrade_is_not_left_waiting():
    async with serving() as served:
        upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        answer = await served.send(upgrade + GET)
        assert parsed(answer)[1]["connection"] == "close"
