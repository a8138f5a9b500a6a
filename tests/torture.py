"""`python -m tests.torture --minutes 60 --seed 1`: every long harness in turn, and the page that tells of it.

Each harness offers `torture(budget_s, seed) -> figures`, and raises at the first thing that is not so.
The figures go into docs/reliability.md between its markers, with the commit and the machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
FIGURES = re.compile(r"(<!-- figures: .*? -->\n).*(<!-- end of figures -->)", re.DOTALL)
# What is run, and its share of the time.
HARNESSES = {
    "crashes": ("tests.crash.__main__", 0.65),
    "simulation": ("tests.simulation.many", 0.16),
    "overload": ("tests.overload.__main__", 0.04),
    "fuzzing": ("tests.fuzz.__main__", 0.06),
    "damage": ("tests.damage.__main__", 0.04),
    "canaries": ("tests.canaries.__main__", 0.05),
}


def torture(minutes: float, seed: int, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Run these harnesses for about so long; raises what the first one raises that finds something."""
    shares = sum(HARNESSES[name][1] for name in names)
    modules = {name: (import_module(HARNESSES[name][0]), HARNESSES[name][1] / shares) for name in names}
    found = {}
    for name, (module, share) in modules.items():
        began_s = time.monotonic()
        _say(f"== {name}")
        found[name] = module.torture(minutes * 60 * share, seed)
        _say(f"   {time.monotonic() - began_s:.0f} s: {found[name]}")
    return found


def write_page(found: dict[str, dict[str, int]], minutes: float, seed: int) -> None:
    """Put the figures where they are read."""
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {minutes:.0f} minutes, seed {seed}, at {_commit()}: {_machine()}.",
        "",
        "| harness | what | count |",
        "|---|---|--:|",
        *(f"| {name} | {what} | {count:,} |" for name, of in found.items() for what, count in of.items()),
        "",
    ]
    text = PAGE.read_text(encoding="utf-8")
    new, times = FIGURES.subn(lambda match: match[1] + "\n".join(["", *lines, ""]) + match[2], text)
    assert times == 1, f"{PAGE} has lost its markers"
    PAGE.write_text(new, encoding="utf-8")


def _commit() -> str:
    said = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return said.stdout.strip() or "unknown"


def _machine() -> str:
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.release()},"
        f" Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=HARNESSES, default=[*HARNESSES], help="these harnesses")
    options = parser.parse_args()
    began_s = time.monotonic()
    try:
        found = torture(options.minutes, options.seed, options.only)
    except Exception as error:  # noqa: BLE001 - whatever it found, that is the news
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    write_page(found, (time.monotonic() - began_s) / 60, options.seed)
    _say(f"nothing lost, nothing doubled: see {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
