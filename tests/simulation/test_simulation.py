"""Lives of the service on simulated time and a simulated disk, and proof that they would notice a fault.

A seed that fails is played alone by `make simulate SEEDS=1 FIRST=<seed>`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.actors.faults import Fault, plant
from tests.simulation.faults import FAULTS
from tests.simulation.seeds import play

SEEDS = 120
ROUNDS = 4
SEEDS_TO_NOTICE_MAX = 120
FATAL = ("killed front", "killed store", "power cuts")


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS // ROUNDS))
def test_every_answer_of_every_life_is_explained(first: int):
    seen: Counter[str] = Counter()
    for seed in range(first, first + SEEDS // ROUNDS):
        seen += play(seed)
    # The lives reach what they are for.
    for what in ("pay 201", "pay 200", "pay 500", "pay 503", "bills", "days", *FATAL):
        assert seen[what] > 0, what
    assert sum(count for name, count in seen.items() if name.startswith("disk: ")) > 0


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_is_noticed(fault: Fault, monkeypatch: pytest.MonkeyPatch):
    plant(fault, monkeypatch)
    assert noticed_by(SEEDS_TO_NOTICE_MAX) is not None


def noticed_by(seeds: int) -> int | None:
    """Return the first seed that fails."""
    for seed in range(seeds):
        try:
            play(seed, twice=False)
        except Exception:  # noqa: BLE001 - whatever shows it
            return seed
    return None


def test_a_life_does_not_depend_on_how_this_process_hashes():
    assert trace_of(7, "1") == trace_of(7, "2")


def trace_of(seed: int, hash_seed: str) -> str:
    program = "import sys; from tests.simulation.seeds import trace; print(trace(int(sys.argv[1])))"
    run = subprocess.run(
        [sys.executable, "-c", program, str(seed)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout
