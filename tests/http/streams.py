"""A caller who streams payments on a raw connection: it sends when it likes, and reads when it likes."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

PATH = "/api/make-payments/"


class Stream:
    """One call. What is sent goes out in chunks; results come back as lines of chunks."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.head = ""
        self._lines: deque[bytes] = deque()
        self._begun = b""
        self.ended = False  # as an answer ends, not cut off

    def send(self, *lines: Any) -> None:
        """Send payments, a line each; bytes go as they are."""
        texts = [line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines]
        self.send_bytes(b"".join(texts))

    def send_bytes(self, piece: bytes) -> None:
        self.writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))

    def end(self) -> None:
        self.writer.write(b"0\r\n\r\n")

    async def results(self, count: int) -> list[Any]:
        """The next results, so many."""
        return [await self._result() for _ in range(count)]

    async def rest(self) -> list[Any]:
        """All results up to the end of the answer."""
        found = []
        while (result := await self._result()) is not None:
            found.append(result)
        return found

    async def _result(self) -> Any:
        while not self._lines and not self.ended:
            await self._read_chunk()
        return json.loads(self._lines.popleft()) if self._lines else None

    async def _read_chunk(self) -> None:
        if not self.head:
            self.head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            assert self.head.startswith("HTTP/1.1 200 "), self.head
            assert "\r\nContent-Type: application/x-ndjson\r\n" in self.head
        size = int(await self.reader.readline(), 16)
        chunk = await self.reader.readexactly(size + 2)
        *whole, self._begun = (self._begun + chunk[:-2]).split(b"\n")
        self._lines.extend(whole)
        self.ended = size == 0


@asynccontextmanager
async def streaming(
    port: int, token: str, *headers: str, read_ahead_bytes: int | None = None
) -> AsyncIterator[Stream]:
    """Begin a stream with this token; the connection is cut when the block ends."""
    connection = socket.socket()
    if read_ahead_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_ahead_bytes)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=connection, limit=read_ahead_bytes or 65_536)
    lines = [
        *(f"POST {PATH} HTTP/1.1", "Host: x", f"Authorization: Bearer {token}", "X-Request-ID: mine"),
        *("Content-Type: application/x-ndjson", "Transfer-Encoding: chunked", *headers, "", ""),
    ]
    writer.write("\r\n".join(lines).encode())
    try:
        yield Stream(reader, writer)
    finally:
        writer.transport.abort()


def statuses(results: Iterable[Any]) -> list[int]:
    return [result["status"] for result in results]
