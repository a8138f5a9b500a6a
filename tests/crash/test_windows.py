"""Killed in the windows that matter most, once each; `make torture` opens all of them over and over."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from tests.crash.rounds import Crashes

GROUPS = (
    ("journal-before-commit", "in-billing", "before-the-reply"),
    ("journal-after-commit", "tables-before-commit", "in-recovery"),
)


@pytest.mark.parametrize("windows", GROUPS)
async def test_a_kill_in_any_window_loses_nothing_and_doubles_nothing(
    tmp_path: Path, windows: tuple[str, ...]
):
    crashes = Crashes(tmp_path, Random(1))
    await crashes.open()
    for window in windows:
        await crashes.killed_in_window(window)
        await crashes.reckon()
    await crashes.verify()
    assert crashes.books.counts["acknowledged"] > 0
    assert crashes.books.counts["lost"] == crashes.books.counts["doubled"] == 0
