"""Places for databases, and every store behind the seam, opened the same way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ledgerd.storage import engine
from ledgerd.storage.engine import Engine
from ledgerd.storage.files import open_engine, open_memory
from ledgerd.storage.remote import RemoteStore
from tests.storage.books import Bare, Place, add_borrower

SLICE_EVENTS = 3  # small, so that a projection takes several transactions
INDEX_KEYS = 2  # likewise, so that a merge begins early

AnyStore = Engine | RemoteStore
Open = Callable[[], Awaitable[AnyStore]]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Room for a database; there is none yet."""
    return Place(tmp_path)


@pytest.fixture
def bare() -> Iterator[Bare]:
    opened = Bare()
    yield opened
    opened.close()


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines in this process project when they are asked to or closed, and not before."""
    monkeypatch.setattr(engine, "GATHER_S", 3_600)


async def open_store(kind: str, place: Place) -> AnyStore:
    if kind == "memory":
        return await open_memory()
    if kind == "files":
        return await open_engine(*place.paths, slice_events=SLICE_EVENTS, index_keys=INDEX_KEYS)
    return await RemoteStore.start(*place.paths, SLICE_EVENTS, INDEX_KEYS, lambda: None)


@asynccontextmanager
async def opened(kind: str, place: Place) -> AsyncIterator[AnyStore]:
    store = await open_store(kind, place)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture(params=["memory", "files", "process"])
async def store(request: pytest.FixtureRequest, place: Place, unhurried: None) -> AsyncIterator[AnyStore]:
    """Each store in turn, with the borrower of the loans in it."""
    async with opened(request.param, place) as store:
        await add_borrower(store)
        yield store
