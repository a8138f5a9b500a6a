"""`python -m tests.damage`: sound databases are damaged by chance until the time is over; each damage is
found by `ledgerd verify`, or does no harm.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from tests.damage.book import copy_of, findings
from tests.damage.damages import Shelf, damaged
from tests.damage.edits import DEPENDS, edits

DAMAGES_A_BOOK = 500


def torture(budget_s: float, seed: int) -> dict[str, int]:
    """Damage for about so long. AssertionError names the seed of what was not found."""
    ends_s = time.monotonic() + budget_s
    counts = dict.fromkeys(["damages", "found", "harmless", "former", "edits", "edits found"], 0)
    columns, books = set[str](), 0
    while books == 0 or time.monotonic() < ends_s:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            shelf = asyncio.run(Shelf.fill(folder, seed + books))
            for edit in edits(shelf.book, Random(seed + books)):
                place = copy_of(shelf.book, folder / "copy")
                if edit.make(place):
                    found = bool(findings(place))
                    assert found or edit.listed or edit.name in DEPENDS, (
                        f"not found in book {seed + books}: {edit}"
                    )
                    columns.add(edit.name.partition(" ")[0])
                    counts["edits"] += 1
                    counts["edits found"] += found
            first = (seed + books) * DAMAGES_A_BOOK
            for number in range(first, first + DAMAGES_A_BOOK):
                counts[damaged(shelf, folder / "copy", number)] += 1
                counts["damages"] += 1
                if time.monotonic() > ends_s:
                    break
        books += 1
    return counts | {"columns edited": len(columns), "books": books}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.damage", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(2**31))
    arguments = parser.parse_args()
    sys.stdout.write(f"seed {arguments.seed}\n")
    sys.stdout.write(f"{json.dumps(torture(arguments.minutes * 60, arguments.seed), indent=2)}\n")


if __name__ == "__main__":
    main()
