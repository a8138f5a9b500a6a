"""The client counts what it sends and what comes back, however the answers are cut."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bench import client

Answer = Callable[[int], bytes]


async def load_of(
    requests: list[bytes], answer: Answer, connections: int = 2
) -> tuple[client.Answers, list[bytes]]:
    """Load a server that answers the nth request with `answer(n)`, a byte at a time; b"" hangs up."""
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                served += 1
                for byte in answer(served):
                    writer.write(bytes([byte]))
                    await writer.drain()
                if not answer(served):
                    return
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    bodies: list[bytes] = []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        load = client.Load(requests, lambda _request, _status, body: bodies.append(body))
        answers = await load.run(port, connections)
    return answers, bodies


async def test_every_request_is_sent_once_and_counted():
    requests = [client.get(f"/{number}", "token") for number in range(10)]
    answers, bodies = await load_of(requests, lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert answers.sent == answers.statuses[200] == len(answers.took_s) == 10
    assert bodies == [b"ok"] * 10
    assert answers.broken == 0
    assert 0 < answers.percentile_ms(0.5) <= answers.percentile_ms(0.99)


async def test_a_connection_that_ends_within_a_request_is_counted():
    requests = [client.post("/", "token", b"{}")] * 3
    answers, _ = await load_of(
        requests, lambda number: b"" if number == 2 else b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", 1
    )
    assert answers.sent == 2
    assert answers.statuses[503] == 1
    assert answers.broken == 1


def test_payments_are_the_same_for_a_name_and_others_for_another():
    loans, tokens = ["a" * 16, "b" * 16], ["one", "two"]

    def some(name: str) -> list[bytes]:
        made = client.payments(loans, tokens, name)
        return [next(made) for _ in range(20)]

    assert some("x") == some("x")
    assert not set(some("x")) & set(some("y"))
    assert len(set(client.batch(loans, "x", 100))) == 100
