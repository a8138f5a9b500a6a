"""The real service when its disk fills under it: a limit on the size of its files stands for the disk."""

from __future__ import annotations

import asyncio
import resource
from pathlib import Path
from random import Random

from tests.crash.load import Load, api, check, open_books
from tests.process import ledgerd_here, serving, write_config

UNLIMITED = resource.RLIM_INFINITY
ROUNDS = 4
ANSWERS_BETWEEN = 150


async def test_a_disk_that_fills_again_and_again_loses_nothing_and_stops_nobody(tmp_path: Path):
    """What meets the full disk is unknown to its callers, the store reads again what it has, and all goes on
    as soon as there is room.
    """
    config_path = write_config(tmp_path)
    with serving(config_path) as service:
        books = await open_books(service, loans=3)
        wal = tmp_path / "ledgerd.journal.db-wal"

        def on_answer(answers: int) -> None:
            if answers % ANSWERS_BETWEEN == 0:
                limit_files(service.store_pid, wal.stat().st_size)
            elif answers % ANSWERS_BETWEEN == 20:
                limit_files(service.store_pid, UNLIMITED)
                load.stopping = answers > ROUNDS * ANSWERS_BETWEEN

        load = Load(books, Random(1), on_answer)
        await asyncio.wait_for(load.run(service, clients=16), 60)
        limit_files(service.store_pid, UNLIMITED)
        assert books.counts["answered 500"] > 0
        assert service.process.poll() is None
        await check(books, service)
        async with api(service, books.token) as caller:
            status, _ = await caller.get("/readyz")
            assert status == 200
    verified = ledgerd_here("verify", "--config", config_path)
    assert verified.code == 0, verified
    assert books.counts["lost"] == books.counts["doubled"] == 0


def limit_files(pid: int, size_bytes: int) -> None:
    """Let no file of a process grow past this."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size_bytes, UNLIMITED))
