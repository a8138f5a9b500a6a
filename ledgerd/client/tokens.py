"""The access token: fetched when it is first needed, renewed before it expires, and once for all who wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

RENEW_AT: Final = 0.8  # of a token's life


class Grant(msgspec.Struct, frozen=True):
    """What the service gives for the client's secret; `expires_in` is in seconds."""

    access_token: str
    expires_in: float


class Tokens:
    """The client's token as it stands. `fetch` gets a new one."""

    def __init__(self, fetch: Callable[[], Awaitable[Grant]]) -> None:
        self._fetch = fetch
        self._token: str | None = None
        self._renew_at_s = 0.0
        self._fetching: asyncio.Task[str] | None = None

    async def current(self) -> str:
        """Return a token that is not about to expire; what `fetch` raises is raised to all who wait."""
        if self._token is not None and time.monotonic() < self._renew_at_s:
            return self._token
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_task(self._renew())
            self._fetching.add_done_callback(self._fetched)
        return await asyncio.shield(self._fetching)  # one who gives up takes it from nobody else

    def forget(self, token: str) -> None:
        """Hear that this token was refused."""
        if token == self._token:
            self._token = None

    async def close(self) -> None:
        """Fetch nothing more."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    async def _renew(self) -> str:
        grant = await self._fetch()
        self._token = grant.access_token
        self._renew_at_s = time.monotonic() + RENEW_AT * grant.expires_in
        return grant.access_token

    def _fetched(self, fetching: asyncio.Task[str]) -> None:
        self._fetching = None
        if not fetching.cancelled():
            fetching.exception()  # whoever waited has it; perhaps nobody does any more
