"""The worlds of tests/http, with a Client of ledgerd.client in front of them, or of a stub's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ledgerd.client import Client
from tests.client.stub import IMPATIENT, Stub
from tests.http.conftest import borrower, loan, open_world, world
from tests.http.outside import World

__all__ = ["borrower", "loan", "open_world", "world"]


@asynccontextmanager
async def client_of(world: World, url: str | None = None, **options: Any) -> AsyncIterator[Client]:
    """A client of a world that may pay and look, at once and again within a moment."""
    made = await world.service.services.accounts.create_client("payer", ["payments:write", "ops"])
    world.secrets.add(made.client_secret)
    url = url or str(world.client.make_url("/"))
    async with Client(url, made.client_id, made.client_secret, **{**IMPATIENT, **options}) as client:
        yield client


async def paid_on_statement(client: Client, loan: str) -> dict[str, int]:
    """What the statement shows: paise by transaction_id. None may stand there twice."""
    past = [each async for page in client.statement(loan, 500) for each in page.past_transactions]
    found = {each.transaction_id: int(each.amount_paid_paise) for each in past}
    assert len(found) == len(past)
    return found


@pytest.fixture
async def client(world: World) -> AsyncIterator[Client]:
    async with client_of(world) as opened:
        yield opened


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    async with Stub.serving() as served:
        yield served
