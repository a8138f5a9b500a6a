"""`python -m tests.overload --minutes 2`: offer a real service twice what it holds, over and over.

First faults are planted in it, one after another, and each must be seen. Raises Failed when something is not
so.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.overload.faults import FAULTS, seen
from tests.overload.rounds import Failed, p99, ready

ROUND_S = 5.0
FAULT_S = 2.0


def torture(budget_s: float, seed: int) -> dict[str, int]:
    """See all faults, then go on for about so long; see tests.torture."""
    until_s = time.monotonic() + budget_s
    for fault, said in FAULTS.items():
        with tempfile.TemporaryDirectory(prefix="ledgerd-overload-") as folder:
            found = seen(fault, Path(folder), FAULT_S)
        progress(f'a service that {fault}: "{found}"')
        if said not in found:
            raise Failed(f"a service that {fault} was not seen: {found!r}")
    with tempfile.TemporaryDirectory(prefix="ledgerd-overload-") as folder, ready(Path(folder)) as overload:
        overload.warm(ROUND_S, seed)
        while not overload.rounds or time.monotonic() < until_s:
            last = overload.round(ROUND_S, seed + len(overload.rounds))
            over = last.over
            progress(
                f"round {len(overload.rounds)}: holds {overload.held_per_s:,.0f}/s;"
                f" of twice that {over.goodput_per_s():,.0f}/s done ({last.goodput:.2f}),"
                f" {over.total.refused / ROUND_S:,.0f}/s refused,"
                f" a new caller's answer takes {p99(last.answers_ms):.0f} ms (p99);"
                f" again after {last.again_after_s:.2f} s; memory {[round(mb) for mb in last.rss_mb]} MB;"
                f" generator {over.generator_cpu_share:.0%} of all cores"
            )
        overload.check()
    rounds = overload.rounds
    return {
        "faults seen": len(FAULTS),
        "rounds at twice what it holds": len(rounds),
        "payments offered": overload.offered,
        "refused": sum(each.over.total.refused for each in rounds),
        "goodput at twice, least of all rounds, % of what it holds": round(
            100 * min(each.goodput for each in rounds)
        ),
        "the same, median": round(100 * median(each.goodput for each in rounds)),
    }


def progress(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.overload", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        progress(f"{torture(options.minutes * 60, options.seed)}")
    except Failed as failed:
        sys.stderr.write(f"{failed}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
