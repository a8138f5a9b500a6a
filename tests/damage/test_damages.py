"""A few damages of bytes and files by chance; `make torture` does them by the thousand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from tests.damage.damages import Shelf, damaged

SEED = 1


async def test_a_damage_is_found_or_does_no_harm(tmp_path: Path) -> None:
    shelf = await Shelf.fill(tmp_path, SEED)
    came = Counter(damaged(shelf, tmp_path / "copy", seed) for seed in range(80))
    assert came["found"] > came["harmless"] > 4
    assert came["former"] > 3
