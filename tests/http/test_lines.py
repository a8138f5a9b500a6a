"""Lines of a stream. That any cut gives the same ones is tried in tests/fuzz."""

from __future__ import annotations

from ledgerd.http.lines import Lines


def test_of_a_line_without_end_little_is_kept():
    lines = Lines(100)
    for _ in range(1_000):
        assert lines.split(b"x" * 1_000) == []
    assert len(lines._begun) == 101
    assert lines.split(b"x\nnext") == [b"x" * 101]
    assert lines.end() == [b"next"]
    assert lines.end() == []
