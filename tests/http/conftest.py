"""Worlds: a whole service each, called over HTTP. See tests/http/outside.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from ledgerd.config import Config
from tests.http.outside import Caller, Time, World, config_in, opened

OpenWorld = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture
def open_world(aiohttp_client: Any, tmp_path: Path) -> OpenWorld:
    """Opens a World: `open_world(storage=.., ..)` with some sections of the configuration in the place of the
    usual ones, `time` going on from another World's.
    """

    def open_one(time: Time | None = None, **sections: Any) -> AbstractAsyncContextManager[World]:
        config: Config = config_in(tmp_path, **sections)
        return opened(aiohttp_client, config, time)

    return open_one


@pytest.fixture
async def world(open_world: OpenWorld) -> AsyncIterator[World]:
    """The usual world: in memory, a sandbox, any text an identity, everybody scored well enough."""
    async with open_world() as opened_world:
        yield opened_world


@pytest.fixture
def asked(world: World, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the service asks its store from now on: the kind of call, and with what."""
    seen: list[tuple[Any, ...]] = []

    def watch(kind: str) -> None:
        call = getattr(world.service.store, kind)

        def noted(*params: Any) -> Any:
            seen.append((kind, *params))
            return call(*params)

        monkeypatch.setattr(world.service.store, kind, noted)

    for kind in ("append", "load", "read", "write"):
        watch(kind)
    return seen


@pytest.fixture
async def borrower(world: World) -> Caller:
    """Somebody registered, scored and logged in."""
    return await world.borrower()


@pytest.fixture
async def loan(world: World, borrower: Caller) -> str:
    """The borrower's loan of 5,000 at 14 % a year over 12 cycles, lent today."""
    return (await world.lend(borrower))["loan_id"]
