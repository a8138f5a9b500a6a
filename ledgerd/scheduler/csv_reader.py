"""A streaming CSV reader over bytes, in bounded memory, that gives the same rows however the bytes are cut.

What holds: a record ends at LF or CRLF outside quotes; it is strict UTF-8 without NUL, at most 64 KiB and 100
lines long. What cannot be read becomes a reason instead of fields, and costs its own first line alone:
reading goes on at the next, so that an unclosed quote swallows nothing. Blocks without quotes, nearly all of
them, are split without the csv module. Used by scheduler/import_process.py and scheduler/rejects.py.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Final

RECORD_BYTES_MAX: Final = 64 * 1024
RECORD_LINES_MAX: Final = 100  # without it a hostile file has each of its lines read thousands of times
BOM: Final = b"\xef\xbb\xbf"
_NEVER_CLOSED: Final = "a quoted field is never closed"

# (line on which the record starts, offset in bytes of its end, its fields or why there are none, its text)
Row = tuple[int, int, list[str] | str, str]


class NotTextError(Exception):
    """The file begins like UTF-16 or like no text at all; the message says what to do."""


class _UnreadableError(Exception):
    """A line that no record may contain; the message is the reason."""


class CsvReader:
    """Fed with bytes in order, gives rows. `offset` and `line` say up to where everything has been given.

    Begins at the start of a file, or at an `offset` and `line` at which an earlier reader stood. Blank lines
    are counted but not given.
    """

    def __init__(self, offset: int = 0, line: int = 0, record_bytes_max: int = RECORD_BYTES_MAX) -> None:
        self.offset = offset
        self.line = line
        self._bytes_max = record_bytes_max
        self._rest = b""  # what follows the last newline
        self._dropped = 0  # how many more bytes of that line were not kept, once it was too long
        self._pending: list[tuple[bytes, int]] = []  # whole lines, and their sizes, of a record still open

    @property
    def is_skipping(self) -> bool:
        """Whether the reader is inside a line too long: `offset` won't stop before all that was fed."""
        return self._dropped > 0

    def feed(self, chunk: bytes) -> list[Row]:
        """Take the next bytes; return the rows that are complete with them."""
        data = self._rest + chunk
        cut = data.rfind(b"\n") + 1
        dropped, block, self._rest = self._dropped, data[:cut], data[cut:]
        if block:
            self._dropped = 0
        if len(self._rest) > self._bytes_max:
            self._dropped += len(self._rest) - (self._bytes_max + 1)
            self._rest = self._rest[: self._bytes_max + 1]
        return self._take(block, dropped, is_end=False) if block else []

    def close(self) -> list[Row]:
        """Return the rows of a last record that no newline ended."""
        block, dropped = self._rest, self._dropped
        self._rest, self._dropped = b"", 0
        return self._take(block, dropped, is_end=True)

    def _take(self, block: bytes, dropped: int, *, is_end: bool) -> list[Row]:
        if self.offset == 0 and not self._pending:
            block = self._begin(block)
        lines = block.split(b"\n")
        is_plain = not (is_end or self._pending or dropped or b'"' in block or b"\0" in block)
        if is_plain and (len(block) <= self._bytes_max or max(map(len, lines)) < self._bytes_max):
            rows = self._split(block, lines)
            if rows is not None:
                return rows
        pieces = [piece + b"\n" for piece in lines[:-1]] + lines[-1:] * bool(lines[-1])
        sized = [(piece, len(piece)) for piece in pieces]
        if dropped:
            sized[0] = (sized[0][0], sized[0][1] + dropped)
        return self._parse(deque(chain(self._pending, sized)), is_end=is_end)

    def _begin(self, block: bytes) -> bytes:
        """Look at the first line, and take the byte order mark off."""
        first_line = block.partition(b"\n")[0]
        if block.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in first_line:
            raise NotTextError("the file is not UTF-8 text (is it UTF-16?): save it as CSV in UTF-8")
        if block.startswith(BOM):
            self.offset += len(BOM)
            return block[len(BOM) :]
        return block

    def _split(self, block: bytes, lines: list[bytes]) -> list[Row] | None:
        """The rows of whole lines without quotes; None when one of them needs a closer look."""
        try:
            text = block.decode()
        except UnicodeDecodeError:
            return None
        if "\r" in text:
            text = text.replace("\r\n", "\n")
            if "\r" in text:
                return None
        line, offset = self.line, self.offset
        rows: list[Row] = []
        for raw, size in zip(text.split("\n")[:-1], map(len, lines), strict=False):
            line += 1
            offset += size + 1
            if raw:
                rows.append((line, offset, raw.split(","), raw))
        self.line, self.offset = line, offset
        return rows

    def _parse(self, lines: deque[tuple[bytes, int]], *, is_end: bool) -> list[Row]:
        """The rows of lines of any kind; keeps those of a record still open in `_pending` unless the file has
        ended.
        """
        self._pending = []
        rows: list[Row] = []
        taken: list[tuple[bytes, int]] = []
        reader = csv.reader(self._texts(lines, taken), strict=True)
        while lines or taken:
            try:
                fields: list[str] | str = next(reader)
            except (csv.Error, _UnreadableError) as error:
                is_open = not lines and str(error) == "unexpected end of data"
                if is_open and not is_end and not _is_full(taken):
                    self._pending = taken
                    break
                fields = _reason(error, len(taken))
                lines.extendleft(reversed(taken[1:]))
                del taken[1:]
                reader = csv.reader(self._texts(lines, taken), strict=True)
            line = self.line + 1
            self.line += len(taken)
            self.offset += sum(size for _, size in taken)
            if fields:
                text = b"".join(piece[: self._bytes_max] for piece, _ in taken).decode(errors="replace")
                rows.append((line, self.offset, fields, text.rstrip("\r\n")))
            taken.clear()
        return rows

    def _texts(self, lines: deque[tuple[bytes, int]], taken: list[tuple[bytes, int]]) -> Iterator[str]:
        """Hand the lines of one record after the other to the csv module, noting in `taken` which it took."""
        while lines:
            if taken and (_is_full(taken) or sum(size for _, size in taken) + lines[0][1] > self._bytes_max):
                raise _UnreadableError(_NEVER_CLOSED)
            piece, size = lines.popleft()
            taken.append((piece, size))
            if len(piece) > self._bytes_max:
                raise _UnreadableError(f"the row is longer than {self._bytes_max} bytes")
            if b"\0" in piece:
                raise _UnreadableError("the row has a NUL byte")
            try:
                yield piece.decode()
            except UnicodeDecodeError:
                raise _UnreadableError("the row is not valid UTF-8") from None


def _is_full(taken: list[tuple[bytes, int]]) -> bool:
    return len(taken) >= RECORD_LINES_MAX


def _reason(error: Exception, line_count: int) -> str:
    if line_count > 1 or str(error) == "unexpected end of data":
        return _NEVER_CLOSED
    if isinstance(error, _UnreadableError):
        return str(error)
    if "new-line character" in str(error):
        return "the row has a carriage return outside quotes"
    return "text follows a closing quote"
