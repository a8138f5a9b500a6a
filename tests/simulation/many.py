"""Playing many seeds on all cores, and what is worth telling of them."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable

from tests.simulation.seeds import play

SHOW_EVERY_S = 5.0
SEEDS_AT_ONCE = 100


class Failed(Exception):
    """A seed that failed; the message says which, why, and how to play it again."""


def one(seed: int) -> tuple[int, Counter[str], str]:
    """Play one seed: what happened, or how it failed."""
    try:
        return seed, play(seed), ""
    except Exception:  # noqa: BLE001 - whatever shows it
        return seed, Counter(), traceback.format_exc()


def simulate(seeds: Iterable[int]) -> Counter[str]:
    """Play seeds, and return what happened in all of them; Failed at the first that does."""
    total: Counter[str] = Counter()
    shown_s = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        for seed, counts, failure in pool.imap(one, seeds, chunksize=4):
            if failure:
                raise Failed(f"{failure}\nseed {seed} of {_commit()} fails; again: {_again(seed)}")
            total += counts
            total["seeds"] += 1
            if time.monotonic() - shown_s > SHOW_EVERY_S:
                shown_s = time.monotonic()
                sys.stderr.write(f"{total['seeds']} seeds, {total['days']} days\n")
    return total


def torture(budget_s: float, seed: int) -> dict[str, int]:
    """Play seeds from `seed` on for about so long, and return the figures."""
    end_s = time.monotonic() + budget_s
    total: Counter[str] = Counter()
    while time.monotonic() < end_s:
        total += simulate(range(seed, seed + SEEDS_AT_ONCE))
        seed += SEEDS_AT_ONCE
    return figures(total)


def figures(total: Counter[str]) -> dict[str, int]:
    """What is worth telling of many lives."""
    failures = sum(count for name, count in total.items() if name.startswith("disk: "))
    return {
        "seeds": total["seeds"],
        "simulated days": total["days"],
        "calls": total["calls"],
        "payments": total["payments"],
        "replays": total["pay 200"],
        "bills": total["bills"],
        "outcomes unknown": sum(count for name, count in total.items() if name.endswith(" 500")),
        "refused as busy": sum(count for name, count in total.items() if name.endswith(" 503")),
        "starts": total["starts"],
        "processes killed": total["killed front"] + total["killed store"],
        "power cuts": total["power cuts"],
        "torn writes": total["torn writes"],
        "failures of the disk": failures,
        "faults": total["killed front"] + total["killed store"] + total["power cuts"] + failures,
    }


def _commit() -> str:
    said = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or "an unknown commit"


def _again(seed: int) -> str:
    return f"make simulate SEEDS=1 FIRST={seed}"
