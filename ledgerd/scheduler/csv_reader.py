"""A streaming CSV reader over bytes, in bounded memory, that gives the same rows however the bytes are cut.

What holds: a record ends at LF or CRLF outside quotes; it is strict UTF-8 without NUL, at most 64 KiB and 100
lines long. What cannot be read becomes a reason instead of fields, and costs its own first line alone:
reading goes on at the next, so that an unclosed quote swallows nothing. Blocks without quotes, nearly all of
them, are split without the csv module, into columns where that will do. Used by
scheduler/import_process.py, scheduler/import_batches.py and scheduler/rejects.py.
"""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

RECORD_BYTES_MAX: Final = 64 * 1024
RECORD_LINES_MAX: Final = 100  # without it a hostile file has each of its lines read thousands of times
BOM: Final = b"\xef\xbb\xbf"
_NEVER_CLOSED: Final = "a quoted field is never closed"
_OPEN_AT_END: Final = "unexpected end of data"  # as the csv module has it

Lines = deque[tuple[bytes, int]]  # each with its size, more than its bytes where some were not kept

# (line on which the record starts, offset in bytes of its end, its fields or why there are none, its text)
Row = tuple[int, int, list[str] | str, str]


class NotTextError(Exception):
    """The file begins like UTF-16 or like no text at all; the message says what to do."""


class _UnreadableError(Exception):
    """A line that no record may contain; the message is the reason."""


class PlainBlock:
    """Whole lines that hold no quote, and where they begin; gives rows, blank lines left out, or columns."""

    def __init__(self, line: int, offset: int, block: bytes, text: str) -> None:
        self._line = line
        self._offset = offset
        self._block = block
        self._text = text

    def columns(self, count: int) -> list[list[str]] | None:
        """See `columns_of`."""
        lines = self._text.count("\n")
        fields = self._text.replace("\n", ",\n,").split(",")  # a newline counts as a field of each line
        width = count + 1
        if len(fields) != lines * width + 1 or fields[count::width] != ["\n"] * lines:
            return None
        del fields[-1]  # what follows the last newline
        return [fields[position::width] for position in range(count)]

    def __iter__(self) -> Iterator[Row]:
        line, offset = self._line, self._offset
        for raw, size in zip(self._text.split("\n")[:-1], map(len, self._block.split(b"\n")), strict=False):
            line += 1
            offset += size + 1
            if raw:
                yield line, offset, raw.split(","), raw


def columns_of(rows: PlainBlock | list[Row], count: int) -> Sequence[Sequence[str]] | None:
    """The fields by column; None unless each row has `count` of them, at least two."""
    if isinstance(rows, PlainBlock):
        return rows.columns(count)
    fields = [row[2] for row in rows]
    if not rows or any(isinstance(each, str) or len(each) != count for each in fields):
        return None
    return list(zip(*fields, strict=True))


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
        return list(self.feed_block(chunk))

    def feed_block(self, chunk: bytes) -> PlainBlock | list[Row]:
        """As `feed`, without making rows where columns may do."""
        data = self._rest + chunk
        cut = data.rfind(b"\n") + 1
        dropped, block, self._rest = self._dropped, data[:cut], data[cut:]
        if block:
            self._dropped = 0
        if len(self._rest) > self._bytes_max:
            self._dropped += len(self._rest) - (self._bytes_max + 1)
            self._rest = self._rest[: self._bytes_max + 1]
        if not block:
            return []
        block = self._begin(block)
        is_plain = not (self._pending or dropped or b'"' in block or b"\0" in block)
        plain = self._plain(block) if is_plain else None
        return self._parse(block, dropped, is_end=False) if plain is None else plain

    def close(self) -> list[Row]:
        """Return the rows of a last record that no newline ended."""
        block, dropped = self._rest, self._dropped
        self._rest, self._dropped = b"", 0
        return self._parse(self._begin(block), dropped, is_end=True)

    def _begin(self, block: bytes) -> bytes:
        """Look at the first line of a file, and take the byte order mark off."""
        if self.offset > 0 or self._pending:
            return block
        first_line = block.partition(b"\n")[0]
        if block.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in first_line:
            raise NotTextError("the file is not UTF-8 text (is it UTF-16?): save it as CSV in UTF-8")
        if block.startswith(BOM):
            self.offset += len(BOM)
            return block[len(BOM) :]
        return block

    def _plain(self, block: bytes) -> PlainBlock | None:
        """Whole lines without quotes; None when one of them needs a closer look."""
        end = 0
        while end < len(block):
            end = block.rfind(b"\n", end, end + self._bytes_max) + 1
            if end == 0:  # a line is longer
                return None
        try:
            text = block.decode()
        except UnicodeDecodeError:
            return None
        if "\r" in text:
            text = text.replace("\r\n", "\n")
            if "\r" in text:
                return None
        plain = PlainBlock(self.line, self.offset, block, text)
        self.line += text.count("\n")
        self.offset += len(block)
        return plain

    def _parse(self, block: bytes, dropped: int, *, is_end: bool) -> list[Row]:
        """The rows of lines of any kind; keeps those of a record still open in `_pending` unless the file has
        ended.
        """
        *whole, rest = block.split(b"\n")
        pieces = [piece + b"\n" for piece in whole] + [rest] * bool(rest)
        sized = [(piece, len(piece)) for piece in pieces]
        if dropped:
            sized[0] = (sized[0][0], sized[0][1] + dropped)
        lines: Lines = deque(chain(self._pending, sized))
        self._pending = []
        rows: list[Row] = []
        taken: list[tuple[bytes, int]] = []
        quoted = _Quoted(self._bytes_max)
        reader = csv.reader(self._texts(lines, taken), strict=True)
        while lines or taken:
            try:
                if quoted.count and quoted.never_closes(lines):
                    taken.append(lines.popleft())
                    fields: list[str] | str = _NEVER_CLOSED
                else:
                    fields = next(reader)
                quoted.passed(taken)
            except (csv.Error, _UnreadableError) as error:
                is_open = not lines and str(error) == _OPEN_AT_END
                if is_open and not is_end and not _is_full(taken):
                    self._pending = taken
                    break
                fields = _reason(error, len(taken))
                quoted.seen(taken[1:], ended_by_a_line=str(error) not in {_OPEN_AT_END, _NEVER_CLOSED})
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
        taken_bytes = 0
        while lines:
            if not taken:
                taken_bytes = 0
            elif _is_full(taken) or taken_bytes + lines[0][1] > self._bytes_max:
                raise _UnreadableError(_NEVER_CLOSED)
            piece, size = lines.popleft()
            taken.append((piece, size))
            taken_bytes += size
            yield _text(piece, self._bytes_max)


def _text(piece: bytes, bytes_max: int) -> str:
    if len(piece) > bytes_max:
        raise _UnreadableError(f"the row is longer than {bytes_max} bytes")
    if b"\0" in piece:
        raise _UnreadableError("the row has a NUL byte")
    try:
        return piece.decode()
    except UnicodeDecodeError:
        raise _UnreadableError("the row is not valid UTF-8") from None


class _Quoted:
    """What is known of the lines that come next: how many of them stay within quotes when they begin there,
    as they did for a record that was never closed.

    A record that is open behind its own line goes the same way through them, so they need not be read anew
    for each: without this, a file whose lines each leave a quote open takes a hundred times as long.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0  # of those lines
        self.count = 0
        self._ends = False  # the line after them can't be read from within quotes

    def seen(self, lines: list[tuple[bytes, int]], *, ended_by_a_line: bool) -> None:
        """Note the lines behind the first of a record that failed, the last of which ended it, or a limit."""
        self._ends = ended_by_a_line and bool(lines)
        self.count = len(lines) - self._ends
        self._bytes = sum(size for _, size in lines[: self.count])

    def passed(self, taken: list[tuple[bytes, int]]) -> None:
        """Note that a record took these lines."""
        if len(taken) > 1 or not self.count:
            self.count, self._bytes, self._ends = 0, 0, False
        else:
            self.count -= 1
            self._bytes -= taken[0][1]

    def never_closes(self, lines: Lines) -> bool:
        """Return whether a record that begins with the first of these lines is known never to close."""
        first = lines[0][0]
        if b'"' not in first or self._state(first, "") != _OPEN_AT_END:
            return False
        while not self._ends:
            if self.count == len(lines):
                return False  # what follows has not come
            piece, size = lines[self.count]
            if self.count >= RECORD_LINES_MAX or self._bytes + size > self._bytes_max:
                return True
            state = self._state(piece, '"')
            if state is None:
                return False
            if state == _OPEN_AT_END:
                self.count += 1
                self._bytes += size
            else:
                self._ends = True
        return True

    def _state(self, piece: bytes, before: str) -> str | None:
        """Read one line and return why it is no whole record, or None when it is one."""
        try:
            next(csv.reader([before + _text(piece, self._bytes_max)], strict=True))
        except (csv.Error, _UnreadableError) as error:
            return str(error)
        return None


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
