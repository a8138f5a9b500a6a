"""The actors over thousands of random schedules, and proof that those would notice a fault.

A failing seed is played alone by `run_seed(seed)`.
"""

from __future__ import annotations

from collections import Counter

import pytest

from tests.actors.faults import FAULTS, Fault, plant
from tests.actors.schedules import run_seed

SEEDS = 3_000
ROUNDS = 10
SEEDS_TO_NOTICE_MAX = 200


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS // ROUNDS))
def test_every_answer_follows_from_what_is_on_disk(first: int):
    seen: Counter[str] = Counter()
    for seed in range(first, first + SEEDS // ROUNDS):
        try:
            seen += run_seed(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    # The schedules reach what they are for.
    assert seen["messages"] > 5_000
    assert seen["fallbacks"] > 300
    for kind in ("Accepted", "Replayed", "View", "transaction-id-conflict", "ActorFailed", "StoreError"):
        assert seen[kind] > 100, kind


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_fault_is_noticed(fault: Fault, monkeypatch: pytest.MonkeyPatch):
    plant(fault, monkeypatch)
    assert noticed_by(SEEDS_TO_NOTICE_MAX) is not None


def noticed_by(seeds: int) -> int | None:
    """Return the first seed that fails."""
    for seed in range(seeds):
        try:
            run_seed(seed)
        except Exception:  # noqa: BLE001 - whatever shows it
            return seed
    return None
