"""What can be set: the shipped file against the defaults, and values as the parts take them."""

import re
import tomllib
from pathlib import Path

from ledgerd.config import KEYS, Clock, Config, Storage
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
