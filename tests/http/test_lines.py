"""Lines of a stream, however it is cut into pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ledgerd.http.lines import Lines

TEXT = st.lists(
    st.sampled_from([b"a", b"bc", b" ", b"\r", b"\t", b"\n", b"\n\n", b"x" * 9, b" " * 9]), max_size=40
)


@given(TEXT, st.lists(st.integers(0, 100), max_size=10))
def test_any_cut_gives_the_same_lines(parts, cuts):
    text = b"".join(parts)
    whole = [line for line in text.split(b"\n") if line.strip() or len(line) > 8]
    lines, found = Lines(8), []
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    for start, end in pairwise(places):
        found += lines.split(text[start:end])
    found += lines.end()
    assert [line if len(line) <= 8 else None for line in found] == [
        line if len(line) <= 8 else None for line in whole
    ]


def test_of_a_line_without_end_little_is_kept():
    lines = Lines(100)
    for _ in range(1_000):
        assert lines.split(b"x" * 1_000) == []
    assert len(lines._begun) == 101
    assert lines.split(b"x\nnext") == [b"x" * 101]
    assert lines.end() == [b"next"]
    assert lines.end() == []
