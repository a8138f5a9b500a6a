"""The rejects file: written as CSV that a spreadsheet may open, and cut back to a watermark."""

from __future__ import annotations

import csv
import os
import stat
from pathlib import Path

import pytest

from ledgerd.scheduler.rejects import RejectsFile


def lines(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.fixture
def rejects(tmp_path: Path) -> RejectsFile:
    return RejectsFile(tmp_path / "bank.csv")


def test_lies_beside_the_csv_and_reads_back(rejects: RejectsFile) -> None:
    rows = ["a,b", 'say "₹"', "two\nlines", ""]
    rejects.append([(2, "first", rows[0]), (3, "second", rows[1])])
    rejects.append([(4, "third", rows[2]), (6, "fourth", rows[3])])
    assert rejects.path.name == "bank.csv.rejects.csv"
    assert lines(rejects.path) == [
        ["line", "reason", "row"],
        ["2", "first", rows[0]],
        ["3", "second", rows[1]],
        ["4", "third", rows[2]],
        ["6", "fourth", rows[3]],
    ]


def test_is_its_owners_alone(rejects: RejectsFile) -> None:
    before = os.umask(0)
    try:
        rejects.append([(2, "bad", "x")])
    finally:
        os.umask(before)
    assert stat.S_IMODE(rejects.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_cell_is_a_formula(rejects: RejectsFile, start: str) -> None:
    rejects.append([(2, "bad", start + "HYPERLINK(1)")])
    assert lines(rejects.path)[1][2].startswith("'")


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (0, []),
        (1, []),
        (2, ["2"]),
        (3, ["2", "3"]),
        (4, ["2", "3"]),
        (5, ["2", "3", "5"]),
        (9, ["2", "3", "5"]),
    ],
)
def test_is_cut_back_to_a_line(rejects: RejectsFile, line: int, kept: list[str]) -> None:
    rejects.append([(2, "a", "x"), (3, "b", "y\nz"), (5, "c", "w")])
    rejects.keep_through(line)
    assert rejects.path.exists() == bool(kept)
    if kept:
        assert [row[0] for row in lines(rejects.path)[1:]] == kept
    rejects.append([(6, "d", "v")])
    assert [row[0] for row in lines(rejects.path)] == ["line", *kept, "6"]


def test_a_line_that_was_cut_off_goes(rejects: RejectsFile) -> None:
    rejects.append([(2, "a", "x"), (3, "b", "y,z")])
    rejects.path.write_bytes(rejects.path.read_bytes()[:-4])
    rejects.keep_through(9)
    assert [row[0] for row in lines(rejects.path)] == ["line", "2"]


def test_where_there_is_none_there_is_nothing_to_cut(rejects: RejectsFile) -> None:
    rejects.keep_through(5)
    assert not rejects.path.exists()
