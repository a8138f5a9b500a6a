"""Splits a stream of bytes into its lines, in bounded memory. Used by batches.py for NDJSON."""

from __future__ import annotations


class Lines:
    """The lines of what comes in pieces, without those that are blank.

    Of a line that comes in pieces and is longer than `line_bytes_max`, one byte more than that is kept, so
    that it can be told from one that is not.
    """

    def __init__(self, line_bytes_max: int) -> None:
        self._kept_max = line_bytes_max + 1
        self._begun = b""  # of the line whose end has not come

    def split(self, piece: bytes) -> list[bytes]:
        """Return the lines that end in this piece."""
        first, *others = piece.split(b"\n")
        begun = self._begun + first[: self._kept_max - len(self._begun)]
        if not others:
            self._begun = begun
            return []
        self._begun = others.pop()[: self._kept_max]
        return [line for line in (begun, *others) if line and not self._is_blank(line)]

    def _is_blank(self, line: bytes) -> bool:
        return len(line) < self._kept_max and line.isspace()  # of a longer one not all may be here

    def end(self) -> list[bytes]:
        """Return the last line, when it has no end of its own."""
        return self.split(b"\n")
