"""`python -m tests.fuzz`: every target with as many inputs as fit into the minutes, and requests cut."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestClient
from hypothesis import Phase, given, seed, settings

from ledgerd.config import Server
from tests.fuzz.targets import TARGETS, Target
from tests.hostile.served_document import document_of, lasting, tokens_of, walk
from tests.hostile.test_wire import cut_by_chance
from tests.hostile.wire import TIMEOUT_S, wired
from tests.http.outside import config_in, opened
from tests.process import serving

EXAMPLES_A_ROUND = 500
EXAMPLES_OF_A_CALL = 50
FEWER = {"large csv": 20}
REQUESTS_A_ROUND = 100


def torture(budget_s: float, seed: int) -> dict[str, int]:
    """Fuzz for about so long; return how many inputs each target had. AssertionError names the seed."""
    ends_s = time.monotonic() + budget_s
    tried = dict.fromkeys([*(target.name for target in TARGETS), "requests"], 0)
    tried["calls of the document"] = _walk(seed)
    for target in TARGETS:
        for worst in target.worst:
            target.holds(worst)
    rounds = 0
    while rounds == 0 or time.monotonic() < ends_s:
        for target in TARGETS:
            tried[target.name] += _round(target, seed + rounds)
        first = (seed + rounds) * REQUESTS_A_ROUND
        asyncio.run(_requests(range(first, first + REQUESTS_A_ROUND)))
        tried["requests"] += REQUESTS_A_ROUND
        rounds += 1
    return tried


def _round(target: Target, number: int) -> int:
    count = 0

    @seed(number)
    @settings(
        max_examples=FEWER.get(target.name, EXAMPLES_A_ROUND),
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
    )
    @given(target.inputs)
    def holds(given_input: Any) -> None:
        nonlocal count
        count += 1
        target.holds(given_input)

    try:
        holds()
    except BaseException as error:
        error.add_note(f"target {target.name}, seed {number}")
        raise
    return count


def _walk(number: int) -> int:
    """Walk the served document, with more examples than `make test` has."""
    with tempfile.TemporaryDirectory() as folder, serving(lasting(Path(folder))) as service:
        walked = walk(service, document_of(service), tokens_of(service), EXAMPLES_OF_A_CALL, number)
    assert not walked.failures, f"seed {number}: {walked.failures}"
    assert all(status < 500 for _, status in walked.answers), f"seed {number}: {walked.answers}"
    return walked.answers.total()


async def _requests(seeds: range) -> None:
    async def client(server: Any, **options: Any) -> TestClient:
        made = TestClient(server, **options)
        await made.start_server()
        return made

    with tempfile.TemporaryDirectory() as folder:
        config = config_in(Path(folder), server=Server(body_timeout_s=TIMEOUT_S))
        async with opened(client, config) as world, wired(world) as wire:
            await cut_by_chance(wire, seeds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    arguments = parser.parse_args()
    sys.stdout.write(f"seed {arguments.seed}\n")
    sys.stdout.write(f"{json.dumps(torture(arguments.minutes * 60, arguments.seed), indent=2)}\n")


if __name__ == "__main__":
    main()
