"""`python -m tests.mutation`: make one small change after another, and see that some test fails for each.

Every mutant runs in a child of its own, forked from a process that has loaded the libraries already, and
against the tests of its module alone, until the first that fails. One that changes nothing that can be seen
stands in docs/teeth.md, with why; any other that survives is listed, and below the share that must be killed
the run fails.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.mutation.child import TIMEOUT_MIN_S, UNCHANGED, Child
from tests.mutation.modules import MODULES, Module
from tests.mutation.mutants import mutants_of

ROOT = Path(__file__).parent.parent.parent
SURVIVOR = re.compile(r"- `(.+?)`: (.+)")
KILLED_MIN = 0.85


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("modules", nargs="*", help="some of the modules, by the end of their paths")
    parser.add_argument("--sample", type=int, default=0, help="so many mutants of each module (0: all)")
    parser.add_argument("--seed", type=int, default=1, help="which of them")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--results", type=Path, help="keep what became of each mutant in this file")
    options = parser.parse_args()
    os.nice(10)
    chosen = [
        module
        for module in MODULES
        if not options.modules or any(module.path.endswith(f"{name}.py") for name in options.modules)
    ]
    known = known_survivors()
    results = run(chosen, options.sample, options.seed, options.processes)
    if options.results:
        options.results.write_text(json.dumps(results, indent=1), encoding="utf-8")
    return report(results, known)


def known_survivors() -> dict[str, dict[str, str]]:
    """Return those that docs/teeth.md lists: by module, each with why."""
    known: dict[str, dict[str, str]] = {}
    path = ""
    for line in (ROOT / "docs" / "teeth.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("### "):
            path = line.removeprefix("### ")
        elif path and (match := SURVIVOR.fullmatch(line)):
            known.setdefault(path, {})[match[1]] = match[2]
    return known


def run(modules: list[Module], sample: int, seed: int, processes: int) -> dict[str, dict[str, str]]:
    """Return what became of every mutant, by module."""
    Child.load_libraries()
    results: dict[str, dict[str, str]] = {}
    running: list[Child] = []
    for module in modules:
        started_s = time.monotonic()
        results[module.path] = {}
        unchanged = Child(module, UNCHANGED, "unchanged")
        while (outcome := unchanged.outcome()) is None:
            time.sleep(0.01)
        if outcome != "survived":
            raise RuntimeError(f"{module.path}: its tests fail without a mutant")
        timeout_s = TIMEOUT_MIN_S + 3 * (time.monotonic() - started_s)
        for number, key in chosen_mutants(module, sample, seed):
            while len(running) >= processes:
                reap(running, results)
            running.append(Child(module, number, key, timeout_s))
        while running:
            reap(running, results)
        counts = Counter(results[module.path].values())
        seconds = time.monotonic() - started_s
        sys.stdout.write(f"{module.path}: {dict(counts)} in {seconds:.0f} s\n")
        sys.stdout.flush()
    return results


def chosen_mutants(module: Module, sample: int, seed: int) -> Iterator[tuple[int, str]]:
    tree = ast.parse((ROOT / module.path).read_text(encoding="utf-8"))
    mutants = list(enumerate(mutant.key for mutant in mutants_of(tree, module.only)))
    if sample and sample < len(mutants):
        mutants = sorted(random.Random(seed).sample(mutants, sample))
    yield from mutants


def reap(running: list[Child], results: dict[str, dict[str, str]]) -> None:
    """Wait until one has ended."""
    while True:
        for child in running:
            if (outcome := child.outcome()) is not None:
                running.remove(child)
                results[child.module.path][child.key] = outcome
                if outcome != "killed":
                    sys.stdout.write(f"{outcome}: {child.module.path}: {child.key}\n")
                    sys.stdout.flush()
                return
        time.sleep(0.01)


def report(results: dict[str, dict[str, str]], known: dict[str, dict[str, str]]) -> int:
    """Tell, and return the exit code."""
    total: Counter[str] = Counter()
    unknown = 0
    for path, outcomes in results.items():
        reasons = known.get(path, {})
        for key, outcome in outcomes.items():
            total[outcome] += 1
            if outcome == "survived" and key not in reasons:
                unknown += 1
                sys.stdout.write(f"not yet looked at: {path}: {key}\n")
            elif outcome != "survived" and key in reasons:
                sys.stdout.write(f"listed, but {outcome}: {path}: {key}\n")
    share = 1 - total["survived"] / max(total.total(), 1)
    sys.stdout.write(
        f"{total.total()} mutants: {total['killed']} killed, {total['timeout']} timed out,"
        f" {total['survived']} survived ({unknown} of them not yet looked at): {share:.1%}\n"
    )
    return 0 if share >= KILLED_MIN else 1


if __name__ == "__main__":
    raise SystemExit(main())
