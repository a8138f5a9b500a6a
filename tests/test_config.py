"""What can be set: the shipped file against the defaults, and values as the parts take them."""

import itertools
import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from ledgerd.config import KEYS, Clock, Config, Port, Score, Storage
from ledgerd.domain.calendar import parse_day

SHIPPED = Path(__file__).parent.parent / "config.toml"


# The shipped file ---------------------------------------------------------------------------------


def test_the_shipped_file_holds_every_key_with_its_default():
    shipped = tomllib.loads(SHIPPED.read_text(encoding="utf-8"))
    defaults = Config()
    for section, key in KEYS:
        assert shipped[section].pop(key) == getattr(getattr(defaults, section), key), (section, key)
    assert all(not leftover for leftover in shipped.values())


def test_every_key_of_the_shipped_file_has_a_comment():
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    keys = [index for index, line in enumerate(lines) if re.match(r"\w+ = ", line)]
    assert len(keys) == len(KEYS)
    assert [lines[index] for index in keys if not lines[index - 1].startswith("# ")] == []


BOUNDS = [
    (section, key)
    for (section, key), annotation in KEYS.items()
    if get_args(annotation)[:1] == (int,) and annotation not in {Port, Score}
]
UNITS = {"_s": "Seconds", "_days": "Days", "_bytes": "Bytes"}


def comment(section, key):
    """What stands above a key, in one line."""
    text = SHIPPED.read_text(encoding="utf-8")
    _, _, rest = text.partition(f"\n[{section}]\n")
    above = rest[: re.search(rf"^{key} = ", rest, re.MULTILINE).start()]
    lines = itertools.takewhile(lambda line: line.startswith("#"), reversed(above.splitlines()))
    return " ".join(line.removeprefix("# ") for line in reversed(list(lines)))


@pytest.mark.parametrize(("section", "key"), BOUNDS)
def test_a_bound_says_its_unit_first_and_what_happens_at_it(section, key):
    said = comment(section, key)
    unit = [unit for ending, unit in UNITS.items() if key.endswith(ending)]
    assert re.match(unit[0] if unit else r"([A-Z][a-z]+ )?[A-Za-z]+s\b", said), said
    assert re.search(r"\. (Past|Above|Below) it\b", said), said


# Values ------------------------------------------------------------------------------------------


def test_money_and_percents_come_out_as_integers():
    lending, scoring = Config().lending, Config().scoring
    assert lending.min_annual_income_paise == 15_000_000
    assert lending.max_amount_paise == 500_000
    assert lending.max_apr_hundredths == 10_000
    assert lending.min_due_percent_hundredths == 300
    assert scoring.base_balance_paise == 1_000_000
    assert scoring.step_balance_paise == 1_500_000


def test_dates_and_zones_come_out_ready():
    assert Config().clock.sandbox_start_day is None
    assert Config().clock.zone.key == "Asia/Kolkata"
    clock = Clock(timezone="UTC", sandbox_start="2026-01-31")
    assert clock.sandbox_start_day == parse_day("2026-01-31")
    assert clock.zone.key == "UTC"


def test_a_database_in_memory_has_no_paths():
    storage = Storage(url="sqlite:///:memory:")
    paths = (storage.tables_path, storage.journal_path, storage.lock_path, storage.socket_path)
    assert paths == (None, None, None, None)
