"""The reader: what it takes, what it refuses and why, and that no cut of the bytes changes either."""

from __future__ import annotations

import csv
import io
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerd.scheduler.csv_reader import (
    BOM,
    RECORD_BYTES_MAX,
    RECORD_LINES_MAX,
    CsvReader,
    NotTextError,
    Row,
)


def read(data: bytes, *cuts: int, record_bytes_max: int = RECORD_BYTES_MAX) -> list[Row]:
    """Read the data in pieces that end at the cuts."""
    reader = CsvReader(record_bytes_max=record_bytes_max)
    rows: list[Row] = []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for start, end in pairwise(edges):
        rows += reader.feed(data[start:end])
    rows += reader.close()
    assert reader.offset == len(data)
    return rows


def fields(data: bytes) -> list[list[str] | str]:
    return [row[2] for row in read(data)]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"a,b\nc,d\n", [["a", "b"], ["c", "d"]]),
        (b"a,b\r\nc,d\r\n", [["a", "b"], ["c", "d"]]),
        (b"a,b\nc,d\r\ne,f", [["a", "b"], ["c", "d"], ["e", "f"]]),
        (BOM + b"a,b\n", [["a", "b"]]),
        (BOM + b'"a",b\n', [["a", "b"]]),
        (b'"a,""b""",c\n', [['a,"b"', "c"]]),
        (b'"a\r\nb",c\nd,e\n', [["a\r\nb", "c"], ["d", "e"]]),
        (b'a"b,c\nd,e\n', [['a"b', "c"], ["d", "e"]]),
        (b"\n\r\na\n\nb\n\r\n", [["a"], ["b"]]),
        ("₹,नमस्ते\n".encode(), [["₹", "नमस्ते"]]),
        ("a\u2028b\x0bc\n".encode(), [["a\u2028b\x0bc"]]),
    ],
)
def test_reads(data: bytes, expected: list[list[str]]) -> None:
    assert fields(data) == expected


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"b,\xff\n", "the row is not valid UTF-8"),
        (b"b,\x00\n", "the row has a NUL byte"),
        (b"b,c\rd\n", "the row has a carriage return outside quotes"),
        (b'b,"c"d\n', "text follows a closing quote"),
        (b'b,"c\n', "a quoted field is never closed"),
        (b'b,"c\n"\xff\n', "a quoted field is never closed"),
        (b"b" * (RECORD_BYTES_MAX + 1) + b"\n", f"the row is longer than {RECORD_BYTES_MAX} bytes"),
        (b"b" * (5 * RECORD_BYTES_MAX) + b"\n", f"the row is longer than {RECORD_BYTES_MAX} bytes"),
    ],
)
def test_a_bad_row_costs_itself_alone(bad: bytes, reason: str) -> None:
    rows = read(b"a\n" + bad + b"z,1\n")
    assert rows[0][2] == ["a"]
    assert rows[1][0] == 2
    assert rows[1][2] == reason
    assert rows[-1][0] == 2 + bad.count(b"\n")
    assert rows[-1][2] == ["z", "1"]


def test_an_unclosed_quote_swallows_nothing() -> None:
    rows = read(b'a,"b\n' + b"c,d\n" * 1000)
    assert [row[2] for row in rows] == ["a quoted field is never closed"] + [["c", "d"]] * 1000


def test_a_record_may_be_as_long_as_the_limits_but_no_longer() -> None:
    assert fields(b'"' + b"\n" * (RECORD_LINES_MAX - 1) + b'"\n') == [["\n" * (RECORD_LINES_MAX - 1)]]
    assert fields(b'"' + b"\n" * RECORD_LINES_MAX + b'"\n')[0] == "a quoted field is never closed"
    assert fields(b"x" * (RECORD_BYTES_MAX - 1) + b"\n") == [["x" * (RECORD_BYTES_MAX - 1)]]
    half = b"x" * (RECORD_BYTES_MAX // 2)
    assert fields(b'"' + half + b"\n" + half + b'"\n')[0] == "a quoted field is never closed"


def test_lines_and_offsets_are_those_of_the_file() -> None:
    data = BOM + 'id\r\n\n"a\nb",c\n₹\nlast'.encode()
    rows = read(data)
    assert [(row[0], row[2]) for row in rows] == [(1, ["id"]), (3, ["a\nb", "c"]), (5, ["₹"]), (6, ["last"])]
    assert [data[: row[1]].decode("utf-8-sig") for row in rows] == [
        "id\r\n",
        'id\r\n\n"a\nb",c\n',
        'id\r\n\n"a\nb",c\n₹\n',
        'id\r\n\n"a\nb",c\n₹\nlast',
    ]
    assert rows[1][3] == '"a\nb",c'


@pytest.mark.parametrize(
    "data",
    [
        "a,b\nc,d\n".encode("utf-16"),
        "a,b\nc,d\n".encode("utf-16-le"),
        "a,b\nc,d\n".encode("utf-16-be"),
        b"\x7fELF\x00\x01",
    ],
)
def test_what_is_no_utf8_text_is_refused_as_a_whole(data: bytes) -> None:
    with pytest.raises(NotTextError, match="UTF-8"):
        read(data)


SMALL = 200  # as the longest record, so that the limit is met often
PIECES = st.sampled_from(
    [b"a", b",", b'"', b'""', b"\n", b"\r\n", b"\r", "₹".encode(), b"\xe2", b"\x00", b"12.50", b" ", b'","']
)
LONG = st.sampled_from([b"x" * SMALL, b"\n" * (RECORD_LINES_MAX - 1), b"y" * (SMALL + 50)])
FILES = st.lists(st.one_of(PIECES, PIECES, PIECES, PIECES, LONG), max_size=40).map(
    lambda p: b"h\n" + b"".join(p)
)


@given(FILES, st.lists(st.integers(0, 300), max_size=20), st.integers(1, 70))
def test_any_cut_of_the_bytes_gives_the_same_rows(data: bytes, cuts: list[int], step: int) -> None:
    whole = read(data, record_bytes_max=SMALL)
    assert read(data, *cuts, record_bytes_max=SMALL) == whole
    assert read(data, *range(step, len(data), step), record_bytes_max=SMALL) == whole


@given(FILES, st.integers(0, 300))
def test_a_reader_goes_on_where_another_stood(data: bytes, cut: int) -> None:
    first = CsvReader(record_bytes_max=SMALL)
    rows = first.feed(data[:cut])
    second = CsvReader(first.offset, first.line, record_bytes_max=SMALL)
    rows += second.feed(data[first.offset :]) + second.close()
    assert rows == read(data, record_bytes_max=SMALL)


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@given(st.lists(st.lists(TEXT, min_size=2, max_size=4), min_size=1, max_size=10))
def test_reads_back_what_the_csv_module_writes(table: list[list[str]]) -> None:
    out = io.StringIO()
    csv.writer(out).writerows(table)
    assert fields(b"h\n" + out.getvalue().encode()) == [["h"], *table]


@given(st.lists(st.text("ab,1. ", min_size=1, max_size=20), max_size=10), st.booleans())
def test_the_fast_path_reads_as_the_csv_module_does(lines: list[str], crlf: bool) -> None:
    end = "\r\n" if crlf else "\n"
    expected = list(csv.reader(lines))
    assert fields("".join(line + end for line in lines).encode()) == expected


@pytest.mark.parametrize("filler", [b"x" * 100_000, b'"' + b"x" * 60_000 + b"\n", b"x" * 60_000 + b"\n"])
def test_memory_is_bounded(filler: bytes) -> None:
    reader = CsvReader()
    reader.feed(b'h\n"')
    tracemalloc.start()
    for _ in range(40):
        reader.feed(filler)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


@given(FILES, st.integers(1, 12))
def test_what_is_known_of_open_quotes_changes_no_row(data: bytes, copies: int) -> None:
    """The reader that forgets it between any two lines reads the same."""
    data = b"h\n" + data[2:] * copies
    rows, offset, line = [], 0, 0
    while offset < len(data):
        reader = CsvReader(offset, line, record_bytes_max=SMALL)
        found = [*reader.feed(data[offset:]), *reader.close()]
        if not found:
            break
        rows.append(found[0])
        offset = found[0][1]
        line = data[:offset].count(b"\n")
    assert rows == read(data, record_bytes_max=SMALL)


def test_hostile_quotes_do_not_make_it_read_a_line_without_end() -> None:
    # each line leaves a quote open, whether or not it begins inside one
    rows = read(b"h\n" + b'x,a","b\n' * 500)
    assert [row[2] for row in rows[1:]] == ["a quoted field is never closed"] * 500
