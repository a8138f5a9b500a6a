"""The worlds of tests/http, and one whose connections are told from the raw bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from ledgerd.config import Server
from tests.hostile.wire import TIMEOUT_S, Wire, wired
from tests.http.conftest import OpenWorld, asked, borrower, loan, open_world, world

__all__ = ["asked", "borrower", "loan", "open_world", "world"]


@pytest.fixture
async def wire(open_world: OpenWorld) -> AsyncIterator[Wire]:
    """A world with a listener of its own, where whatever does not come whole ends after a few seconds."""
    async with open_world(server=Server(body_timeout_s=TIMEOUT_S)) as opened, wired(opened) as found:
        yield found
