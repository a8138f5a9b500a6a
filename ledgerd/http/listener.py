"""Serves an application on one address: accepts, bounds every connection, and drains.

What holds: `close` ends every connection, gives running handlers their time first, and then cleans the
application up. Made and closed by the composition root.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from ledgerd.http.edge import EXPRESS, Edge, EdgeLimits
from ledgerd.http.protocol import HEADER_LINE_BYTES_MAX, Connection

_HEADERS_MAX: Final = 128
_READ_AHEAD_BYTES: Final = 65_536  # of one body; twice as much may lie in memory
_ACCEPT_QUEUE: Final = 1024
_CANCEL_TIMEOUT_S: Final = 0.1


class Listener:
    """Serves one application on one address."""

    def __init__(
        self,
        limits: EdgeLimits,
        request_id: Callable[[str | None], str],
        on_refusal: Callable[[int], None] = lambda _status: None,
    ) -> None:
        """See `Edge` for `request_id` and `on_refusal`."""
        self._edge = Edge(limits, request_id, on_refusal)
        self._runner: web.AppRunner | None = None
        self._sockets: asyncio.Server | None = None

    async def start(self, app: web.Application, host: str, port: int) -> int:
        """Start the application, accept connections, and return the port (of use when `port` is 0)."""
        self._edge.express = app.get(EXPRESS)
        runner = web.AppRunner(app, handler_cancellation=False)
        await runner.setup()
        manager = runner.server
        assert manager is not None
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {
            "loop": loop,
            "keepalive_timeout": self._edge.limits.keepalive_timeout_s,
            "lingering_time": self._edge.limits.body_timeout_s,
            "access_log": None,
            "auto_decompress": False,
            "max_line_size": HEADER_LINE_BYTES_MAX,
            "max_field_size": HEADER_LINE_BYTES_MAX,
            "max_headers": _HEADERS_MAX,
            "read_bufsize": _READ_AHEAD_BYTES,
        }
        try:
            self._sockets = await loop.create_server(
                lambda: Connection(manager, self._edge, **options), host, port, backlog=_ACCEPT_QUEUE
            )
        except BaseException:
            await runner.cleanup()
            raise
        self._runner = runner
        actual: int = self._sockets.sockets[0].getsockname()[1]
        return actual

    async def stop_accepting(self) -> None:
        """Refuse new connections; those that are open are served on."""
        if self._sockets is not None:
            self._sockets.close()
            self._sockets = None
        await asyncio.sleep(0)  # what was accepted already gets its protocol

    async def close(self, timeout_s: float) -> None:
        """Close idle connections, end the others with their present answer, clean the application up.

        Handlers that still run after `timeout_s` are cancelled.
        """
        await self.stop_accepting()
        if self._runner is None:
            return
        manager = self._runner.server
        assert manager is not None
        self._edge.draining = True
        for connection in manager.connections:
            if isinstance(connection, Connection):
                connection.close_if_idle()
        try:
            async with asyncio.timeout(timeout_s):
                if self._edge.open:
                    await self._edge.empty.wait()
                await manager.shutdown(None)  # handlers whose client is gone
        except TimeoutError:
            await manager.shutdown(_CANCEL_TIMEOUT_S)
        await self._runner.cleanup()
        self._runner = None
