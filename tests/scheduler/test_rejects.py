"""The rejects file: written as CSV that a spreadsheet may open, and cut back to a watermark."""

from __future__ import annotations

import csv
import os
import socket
import stat
from pathlib import Path

import pytest

from ledgerd.scheduler.rejects import FULL, RejectsFile


def lines(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.fixture
def rejects(tmp_path: Path) -> RejectsFile:
    return RejectsFile(tmp_path / "bank.csv", 1_000_000)


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


@pytest.mark.parametrize("row", ["\0", "a\rb", "a\r\nb", "\n" * 99, '"', '"x"y', "\ufffd", "=1", "x" * 1000])
def test_whatever_was_rejected_is_read_back(rejects: RejectsFile, row: str) -> None:
    rejects.append([(2, "a", row), (300, "b", row), (600, "c", row)])
    rejects.keep_through(599)
    assert [cells[0] for cells in lines(rejects.path)] == ["line", "2", "300"]


def test_a_line_that_was_cut_off_goes(rejects: RejectsFile) -> None:
    rejects.append([(2, "a", "x"), (3, "b", "y,z")])
    rejects.path.write_bytes(rejects.path.read_bytes()[:-4])
    rejects.keep_through(9)
    assert [row[0] for row in lines(rejects.path)] == ["line", "2"]


@pytest.mark.parametrize("rows_a_time", [1, 7, 1000])
def test_stays_within_its_bound_and_says_that_it_is_full(tmp_path: Path, rows_a_time: int) -> None:
    file = RejectsFile(tmp_path / "bank.csv", 4096)
    rejects = [(line, "bad", "₹" * (line % 50)) for line in range(2, 1002)]
    written = sum(file.append(rejects[start : start + rows_a_time]) for start in range(0, 1000, rows_a_time))
    assert 20 < written < 1000
    assert 4096 - 512 < file.path.stat().st_size <= 4096
    shown = lines(file.path)
    assert [int(line[0]) for line in shown[1:]] == list(range(2, written + 3))
    assert shown[-1] == [str(written + 2), FULL, ""]
    again = RejectsFile(tmp_path / "bank.csv", 4096)
    again.keep_through(2000)  # the import goes on behind them all
    assert again.append([(2001, "bad", "x")]) == 0
    assert lines(file.path) == shown
    again.keep_through(written + 1)  # it goes on just before the file was full
    assert again.append(rejects[written:]) == 0
    assert lines(file.path) == shown
    again.keep_through(3)
    assert again.append(rejects[2:4]) == 2
    assert [line[0] for line in lines(file.path)] == ["line", "2", "3", "4", "5"]


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "broken link", "socket"])
def test_nothing_else_at_its_path_is_written_to_or_followed(
    rejects: RejectsFile, tmp_path: Path, kind: str
) -> None:
    target = tmp_path / "target"
    if kind == "fifo":
        os.mkfifo(rejects.path)
    elif kind == "folder":
        rejects.path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(rejects.path))
    else:
        rejects.path.symlink_to(target)
        if kind == "link":
            target.write_text("line,reason,row\n9,theirs,x\n")
    for work in (lambda: rejects.keep_through(0), lambda: rejects.append([(2, "bad", "x")])):
        with pytest.raises(OSError, match="not a regular file: move it away"):
            work()
    assert target.exists() == (kind == "link")
    if kind == "link":
        assert target.read_text() == "line,reason,row\n9,theirs,x\n"


def test_where_there_is_none_there_is_nothing_to_cut(rejects: RejectsFile) -> None:
    rejects.keep_through(5)
    assert not rejects.path.exists()
