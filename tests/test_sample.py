"""The sample: valid, the same for a seed, and as rich as it is told to be."""

from __future__ import annotations

import csv
from collections import Counter
from datetime import date
from pathlib import Path
from random import Random

from stdnum.in_ import aadhaar

from ledgerd.sample import aadhaar_number, write_sample


def test_numbers_are_valid() -> None:
    random = Random(1)
    numbers = [aadhaar_number(random) for _ in range(500)]
    assert all(aadhaar.is_valid(number) for number in numbers)
    assert {number[0] for number in numbers} == set("23456789")


def test_a_seed_gives_the_same_file_and_another_another(tmp_path: Path) -> None:
    first = write_sample(tmp_path / "a.csv", 20, seed=1)
    again = write_sample(tmp_path / "b.csv", 20, seed=1)
    other = write_sample(tmp_path / "c.csv", 20, seed=2)
    assert first == again != other
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_balances_are_forced_to_the_paisa(tmp_path: Path) -> None:
    rich, poor = "234123412346", "999999990019"
    forced = {rich: 568_450_00, poor: -5_01}
    people = write_sample(tmp_path / "a.csv", 30, seed=3, rows_each=7, balances_paise=forced)
    balances: Counter[str] = Counter()
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            paise = int(row["Amount"].replace(".", ""))
            balances[row["AADHAR ID"]] += paise if row["Transaction_type"] == "CREDIT" else -paise
            date.fromisoformat(row["Date"])
    assert len(people) == 30
    assert set(balances) == {rich, poor, *people}
    assert (balances[rich], balances[poor]) == (568_450_00, -5_01)
