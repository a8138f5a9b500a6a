"""`python -m tests.simulation --seeds N --first K`: play many seeds on all cores, each twice.

It ends at the first seed that fails, and says how to play it again.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.many import Failed, figures, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many (1000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    options = parser.parse_args()
    started_s = time.monotonic()
    try:
        total = simulate(range(options.first, options.first + options.seeds))
    except Failed as failed:
        sys.stderr.write(f"{failed}\n")
        return 1
    for name, count in figures(total).items():
        sys.stdout.write(f"{count:>12,} {name}\n")
    sys.stdout.write(f"{time.monotonic() - started_s:>12,.0f} seconds\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
