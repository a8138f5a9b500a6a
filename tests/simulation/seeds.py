"""Playing a seed: its life, the laws over it, `ledgerd verify` of its files, and all of it a second time."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

from ledgerd.domain.scoring import ScoreRules
from ledgerd.storage.verify import verify_files
from tests.simulation.disk import FILES
from tests.simulation.laws import Laws
from tests.simulation.life import Life

MEMORY = Path("/dev/shm")


def play(seed: int, *, twice: bool = True) -> Counter[str]:
    """Play a seed, a second time too, and return what happened in it; an error names the seed."""
    try:
        with quiet():
            counts, trace = _play(seed)
            if twice:
                again, other = _play(seed)
                assert (again, other) == (counts, trace), "the same seed went another way"
            return counts
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise


def trace(seed: int) -> str:
    """Play a seed once, and return what tells it from another."""
    with quiet():
        return _play(seed)[1]


def _play(seed: int) -> tuple[Counter[str], str]:
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None, prefix="ledgerd-life-") as folder:
        life = Life(seed, Path(folder))
        life.live()
        laws = Laws(life)
        laws.check()
        laws.check_whole()
        rules = ScoreRules(1_000_000, 1_500_000, 10, 300, 900)
        journal, tables = (life.disk.path(name) for name in FILES)
        report = verify_files(tables, journal, rules, lambda *_: None)
        assert not report.differences, report
        life.counts["events"] += sum(len(each.states) - 1 for each in laws.histories.values())
        life.counts["payments"] += len(laws.owners)
        life.counts["bills"] += sum(
            len(state.issued) for each in laws.histories.values() if (state := each.states[-1])
        )
        return life.counts, life.trace


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the service logs of all that goes wrong to ourselves, and leave cycles for later."""
    before = structlog.get_config()
    structlog.configure(processors=[_drop])
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        structlog.configure(**before)
        if collecting:
            gc.enable()


def _drop(*_: object) -> dict[str, object]:
    raise structlog.DropEvent
