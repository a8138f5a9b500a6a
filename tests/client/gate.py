"""A port that leads to a service, with a gate in it: after so many bytes of answers it breaks, or holds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Gate:
    """Connections to `port` go to `target`. `url` stays the same when the service behind is another."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.connections = 0
        self.reached = asyncio.Event()  # `after_bytes` have passed
        self._after_bytes: int | None = None
        self._breaks = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @classmethod
    @asynccontextmanager
    async def to(cls, target: int) -> AsyncIterator[Gate]:
        gate = cls(target)
        server = await asyncio.start_server(gate._accept, "127.0.0.1", 0)
        gate.port = server.sockets[0].getsockname()[1]
        try:
            yield gate
        finally:
            server.close()
            for task in gate._tasks:
                task.cancel()
            await asyncio.gather(*gate._tasks, return_exceptions=True)

    def break_after(self, count: int) -> None:
        """Cut the connection on which that many bytes of answers, counted from now, have passed."""
        self._after_bytes, self._breaks = count, True
        self.reached.clear()

    def hold_after(self, count: int) -> None:
        """Let no byte of answers through after so many, until `open`."""
        self._after_bytes, self._breaks = count, False
        self.reached.clear()

    def open(self) -> None:
        """Let everything through, on new connections."""
        self._after_bytes = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError):
                there, back = await asyncio.open_connection("127.0.0.1", self.target)
                try:
                    await asyncio.gather(self._pass(reader, back, None), self._pass(there, writer, self))
                finally:
                    back.transport.abort()
        finally:
            writer.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: Gate | None
    ) -> None:
        with suppress(ConnectionError):
            while piece := await reader.read(4096):
                if gate is not None and gate._after_bytes is not None:
                    piece = piece[: gate._after_bytes]
                    gate._after_bytes -= len(piece)
                writer.write(piece)
                await writer.drain()
                if gate is not None and gate._after_bytes == 0:
                    gate.reached.set()
                    if gate._breaks:
                        gate.open()
                        break
                    await asyncio.Event().wait()
        writer.transport.abort()
