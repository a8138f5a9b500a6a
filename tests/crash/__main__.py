"""`python -m tests.crash`: crash the real service over and over, and hold it against what its clients know.

kills     SIGKILL of the front, the store or both, under load
windows   both kill themselves in each named window of the service in turn
power     both are killed, at an answer or at a call to the system, and what was not synced is undone
control   the same with synchronous=NORMAL, or with folders not synced: each must lose what was acknowledged
faults    a write or a sync fails, once or from then on, and each of them in turn; or each sync is slow

It ends at the first thing lost or doubled, says how to begin again there, and leaves the database as it is.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from tests.crash.disk_faults import Faults, Through
from tests.crash.power import NoCompiler, Recorder, build
from tests.crash.rounds import CALLS, WINDOWS, Crashes, progress, said
from tests.process import Service

VICTIMS: dict[str, Callable[[Service], object]] = {
    "both": lambda service: service.kill(),
    "store": lambda service: service.kill_store(),
    "front": lambda service: service.signal(signal.SIGKILL),
}
FIRST_LIFE = "first life"  # of a new database
CONTROLS = 6  # cuts with synchronous=NORMAL, each on a database of its own ..
CONTROLS_LOST_MIN = 2  # .. so many of which must lose something, or the others show nothing

Round = Callable[[int], Awaitable[None]]


class Lost(Exception):
    """A crash lost or doubled something, or the control lost nothing."""


async def kills(crashes: Crashes) -> Round:
    await crashes.open()

    async def one(number: int) -> None:
        await crashes.killed_at_an_answer(list(VICTIMS.values())[number % len(VICTIMS)])

    return one


async def windows(crashes: Crashes) -> Round:
    await crashes.open()
    names = list(WINDOWS)

    async def one(number: int) -> None:
        await crashes.killed_in_window(names[number % len(names)])

    return one


async def power(crashes: Crashes) -> Round:
    recorder = recorder_of(crashes)
    await crashes.open()
    calls = [None, *CALLS, FIRST_LIFE]

    async def one(number: int) -> None:
        call = calls[number % len(calls)]
        if call != FIRST_LIFE:
            await crashes.power_cut(recorder, call)
            return
        first = Crashes(crashes.folder / f"first-{number}", crashes.chance)
        await first.power_cut_in_first_life(recorder_of(first))
        await first.reckon()
        await first.verify()
        crashes.counts += first.counts + first.books.counts

    return one


async def faults(crashes: Crashes) -> Round:
    disk = Faults(crashes)
    await crashes.open()
    await disk.look()

    async def one(_number: int) -> None:
        await disk.strike(crashes.counts)

    return one


MODES = {"kills": kills, "windows": windows, "power": power, "faults": faults}
SHARES = {"kills": 0.2, "windows": 0.25, "power": 0.5, "faults": 0.05}  # of the time of a long run


def recorder_of(crashes: Crashes) -> Recorder:
    """Write down what is written to this database."""
    return Recorder(build(crashes.folder), crashes.folder / "db", crashes.folder / "record")


async def run(mode: str, seed: int, go_on: Callable[[int], bool]) -> Counter[str]:
    """Crash and reckon for as long as `go_on(rounds)`; return the counts. Raises Lost."""
    folder = Path(tempfile.mkdtemp(prefix="ledgerd-crash-"))
    crashes = Crashes(folder, Random(seed))
    number = 0
    try:
        one = await MODES[mode](crashes)
        with suppress(Through):
            while go_on(number):
                await one(number)
                await crashes.reckon()
                number += 1
                if number % 10 == 0:
                    progress(f"{mode}: {number} rounds, {said(crashes.books.counts)}")
        await crashes.verify()
    except AssertionError as error:
        again = f"python -m tests.crash --mode {mode} --rounds {number + 1} --seed {seed}"
        raise Lost(f"round {number} of {mode}: {error}\n{folder} has the database; again: {again}") from error
    counts = crashes.counts + crashes.books.counts
    missing = [window for window in WINDOWS if not counts[f"window {window}"]] if mode == "windows" else []
    if missing and number >= len(WINDOWS):
        raise Lost(f"these windows were never reached: {', '.join(missing)}")
    remove(folder)
    return counts


async def control(seed: int, mode: str = "NORMAL") -> int:
    """Cut the power of a service that does not sync its commits (with mode FOLDERS: its folders, in its first
    life); return how many lost something.
    """
    lost = 0
    for number in range(CONTROLS):
        folder = Path(tempfile.mkdtemp(prefix="ledgerd-control-"))
        crashes = Crashes(folder, Random(seed + number))
        recorder = recorder_of(crashes)
        if mode == "FOLDERS":
            await crashes.power_cut_in_first_life(recorder, CRASH_FOLDERS="unsynced")
        else:
            await crashes.open(CRASH_SYNCHRONOUS=mode)
            await crashes.power_cut(recorder, None, CRASH_SYNCHRONOUS=mode)
        try:
            await crashes.reckon()
            await crashes.verify()
        except AssertionError:
            lost += 1
        remove(folder)
    if lost < CONTROLS_LOST_MIN:
        raise Lost(f"control {mode}: only {lost} of {CONTROLS} cuts lost anything")
    return lost


def remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


def torture(budget_s: float, seed: int) -> dict[str, int]:
    """All modes in turn, for about so long together; return the figures. Raises Lost, NoCompiler."""
    figures = {"cuts with synchronous=NORMAL that lost something": asyncio.run(control(seed))}
    figures["cuts with synchronous=NORMAL"] = CONTROLS
    figures["cuts with unsynced folders that lost something"] = asyncio.run(control(seed, "FOLDERS"))
    figures["cuts with unsynced folders"] = CONTROLS
    total: Counter[str] = Counter()
    for mode, share in SHARES.items():
        end_s = time.monotonic() + budget_s * share
        total += asyncio.run(run(mode, seed, lambda _number, end_s=end_s: time.monotonic() < end_s))
    opened = [count for name, count in total.items() if name.startswith("window ")]
    return {
        **figures,
        "kills": total["kills"],
        "windows": len(opened),
        "least often a window was opened": min(opened, default=0),
        "power cuts": total["power cuts"],
        "writes undone": total["writes undone"],
        "names undone": total["names undone"],
        "disk faults": total["disk faults"],
        "disk faults that ended the service": total["disk faults that ended the service"],
        "acknowledged payments checked": total["acknowledged"],
        "looks that showed all that was known": total["looks"],
        "applications, each lent once": total["applications"],
        "outcomes unknown, then found there": total["unknown, was there"],
        "outcomes unknown, then found absent": total["unknown, was not"],
        "lost": total["lost"],
        "doubled": total["doubled"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.crash", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--mode", choices=[*MODES, "control"], default="kills")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        if options.mode == "control":
            for mode in ("NORMAL", "FOLDERS"):
                lost = asyncio.run(control(options.seed, mode))
                progress(f"{mode}: {lost} of {CONTROLS} cuts lost something, as they must")
            return 0
        counts = asyncio.run(run(options.mode, options.seed, lambda number: number < options.rounds))
    except (Lost, NoCompiler) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for name, count in sorted(counts.items()):
        progress(f"{count:>10,} {name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
