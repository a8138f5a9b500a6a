"""`python -m tests.canaries [names]`: give a copy of the code one fault after another, and see that the
harness named for each notices. `--list` shows them.

The harness must pass on a copy without a fault, and then fail as a test fails: a fault that is no code, or a
harness that never began, shows nothing. One canary that lives makes the run fail.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.canaries.harness import Harness
from tests.canaries.table import CANARIES, Canary

ROOT = Path(__file__).parent.parent.parent
COPIED = ("ledgerd", "tests", "bench", "docs", "pyproject.toml", "config.toml")
UNDEFINED = "F821,F811,E9"  # what ruff says of text that is no program


class Wrong(Exception):
    """The run can't tell anything about a canary."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.canaries", description=__doc__)
    parser.add_argument("names", nargs="*", help="canaries, by words of their names (all)")
    parser.add_argument("--list", action="store_true", help="show the table")
    options = parser.parse_args()
    chosen = [
        canary
        for canary in CANARIES
        if not options.names or any(name in canary.name for name in options.names)
    ]
    if options.list:
        for canary in chosen:
            sys.stdout.write(f"{canary.name:<50} {canary.killed_by.name:<45} {canary.breaks}\n")
        return 0
    alive = [canary.name for canary, is_killed in sing(chosen) if not is_killed]
    sys.stdout.write(f"{len(chosen)} canaries, {len(chosen) - len(alive)} killed\n")
    return 1 if alive else 0


def torture(budget_s: float, seed: int) -> dict[str, int]:
    """Try all, however long it takes and whatever the seed; see tests.torture."""
    alive = [canary.name for canary, is_killed in sing(CANARIES) if not is_killed]
    assert not alive, f"alive: {', '.join(alive)}"
    return {"canaries": len(CANARIES), "canaries_killed": len(CANARIES)}


def sing(canaries: Iterable[Canary]) -> Iterator[tuple[Canary, bool]]:
    """Try canaries, telling about each."""
    proven: dict[Harness, str | None] = {}
    for canary in canaries:
        harness = canary.killed_by
        if harness not in proven:
            proven[harness] = why_not(harness)
        why = proven[harness]
        started_s = time.monotonic()
        is_killed = False
        if why is None:
            try:
                is_killed, why = noticed(canary)
            except Wrong as wrong:
                why = str(wrong)
        told = f"killed by {harness.name}" if is_killed else f"ALIVE: {why}"
        sys.stdout.write(f"{canary.name:<50} {told} ({time.monotonic() - started_s:.0f} s)\n")
        sys.stdout.flush()
        yield canary, is_killed


def why_not(harness: Harness) -> str | None:
    """Return why a harness can tell nothing: it isn't here, or it fails on code without a fault."""
    if not (ROOT / harness.needs).exists():
        return f"its harness is missing: {harness.needs}"
    with copied() as folder:
        code, output = run(harness, folder)
    return None if code == 0 else f"{harness.name} fails without a fault ({code}):\n{output[-2_000:]}"


def noticed(canary: Canary) -> tuple[bool, str]:
    """Return whether the canary's harness notices it, and what it said."""
    with copied() as folder:
        apply(canary, folder)
        code, output = run(canary.killed_by, folder)
    return canary.killed_by.has_noticed(code, output), f"exit code {code}\n{output[-2_000:]}"


def apply(canary: Canary, folder: Path) -> None:
    """Make the canary's changes in the copy; raises Wrong when they don't fit the code any more."""
    files = set()
    for name, before, after in canary.changes:
        path = folder / "ledgerd" / name
        text = path.read_text(encoding="utf-8")
        if text.count(before) != 1:
            raise Wrong(f"{name} has changed: {before!r} stands there {text.count(before)} times")
        path.write_text(text.replace(before, after), encoding="utf-8")
        files.add(str(path))
    linter = Path(sys.executable).with_name("ruff")
    lint = subprocess.run(
        [linter, "check", "--isolated", "--no-cache", "--quiet", "--select", UNDEFINED, *sorted(files)],
        capture_output=True,
        text=True,
        check=False,
    )
    if lint.returncode != 0:
        raise Wrong(f"the fault is no code: {lint.stdout}{lint.stderr}")


@contextmanager
def copied() -> Iterator[Path]:
    """A copy of what the harnesses need, for as long as it is used."""
    with tempfile.TemporaryDirectory(prefix="canary-") as name:
        folder = Path(name)
        for part in COPIED:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(
                    source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "results")
                )
            else:
                shutil.copy(source, folder / part)
        yield folder


def run(harness: Harness, folder: Path) -> tuple[int, str]:
    """Run a harness on the copy; -1 for one that took too long. Nothing that it starts outlives it."""
    with tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            [sys.executable, *harness.arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(harness.budget_s)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return code, output.read()


if __name__ == "__main__":
    raise SystemExit(main())
