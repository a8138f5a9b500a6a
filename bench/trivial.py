"""The cheapest server there is, to prove a load generator against: each request is answered 201 at once.

`python -m bench.trivial [--stall-after N --stall-s S]` prints its port. After the Nth request it sleeps once,
on purpose, and everyone waits.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import cast

import uvloop

from bench.traffic import message_bytes

ANSWER = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Trivial(asyncio.Protocol):
    """Answers a connection; `server_counts` holds the requests of all, and is shared."""

    def __init__(self, server_counts: list[int], stall_after: int, stall_s: float) -> None:
        self.server_counts = server_counts
        self.stall_after, self.stall_s = stall_after, stall_s
        self.transport: asyncio.WriteTransport | None = None
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.WriteTransport, transport)  # uvloop's is none by isinstance

    def data_received(self, data: bytes) -> None:
        assert self.transport
        self.received += data
        while (length := message_bytes(self.received)) is not None and length <= len(self.received):
            self.received = self.received[length:]
            self.server_counts[0] += 1
            if self.server_counts[0] == self.stall_after:
                time.sleep(self.stall_s)
            self.transport.write(ANSWER)


async def serve(stall_after: int, stall_s: float) -> None:
    counts = [0]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Trivial(counts, stall_after, stall_s), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.trivial")
    parser.add_argument("--stall-after", type=int, default=0)
    parser.add_argument("--stall-s", type=float, default=0.0)
    options = parser.parse_args()
    uvloop.run(serve(options.stall_after, options.stall_s))


if __name__ == "__main__":
    main()
