"""A stage with a small ledger, of which a load is a matter of a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from bench.stage import FULL, Stage

TINY = msgspec.structs.replace(
    FULL,
    rounds=1,
    loans=20,
    earlier_payments=200,
    statements=((2, 10), (1, 60)),
    short_s=1,
    million=80,
    billed_while_paid=10,
    resident=60,
    idle_s=0.2,
    peers=(),
)


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The ledgers are made once for all tests of a process, as in a run."""
    folder: Path = tmp_path_factory.mktemp("stage")
    staged = Stage(folder, TINY, lambda _text: None)
    yield staged
    staged.close()
