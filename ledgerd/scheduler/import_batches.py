"""What the importing process makes of rows: batches, each in parts, with what they add to the balances.

Rows of a batch leave by the first byte of their keys, so that each part concerns few pages of the store's
balances; only the last part moves the watermark. The parts of one batch are sent while the next is read.
Used by scheduler/import_process.py.
"""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ledgerd.domain.transactions import Kind, RowParser
from ledgerd.scheduler.csv_reader import CsvReader, PlainBlock, Row, columns_of
from ledgerd.scheduler.import_protocol import Batch, Reject

if TYPE_CHECKING:
    from hashlib import _Hash

CHUNKS_A_BATCH: Final = 64  # some 400,000 rows of 60 bytes each in memory; more rows, fewer sums
REJECTS_A_BATCH: Final = 1_000
ROWS_A_PART_MIN: Final = 64
ROWS_A_PART_MAX: Final = 9_000  # the sum of as many of the largest amounts fits into 64 bits
REJECT_CHARACTERS_MAX: Final = 1000

# What is masked but for its last four digits: twelve or more digits, whatever stands between them but letters
# and what parts a CSV's fields; twelve in three fields; nine or more in a row.
_NUMBERS: Final = re.compile(
    r"\d(?:(?:[^\w,\"]|_){0,16}\d){11,}|(?<!\d)\d{4}(?:[\W_]{1,8}\d{4}){2}(?!\d)|\d{9,}"
)
_DIGIT_BEFORE_THE_LAST_FOUR: Final = re.compile(r"\d(?=(?:[^\d]*\d){4})")
_ROW_VALUES: Final = 3
_first_byte: Final = itemgetter(0)

Send = Callable[[msgspec.Struct], None]
Values = list[Any]  # key, paise, day number of a row, and of the next, and so on
Alike = tuple[Kind, Values]
Mark = tuple[int, int, bytes]  # bytes, lines and digest, as in Batch


class Batches:
    """Rows from one watermark to the next, and the parts of the batch before that wait to be sent."""

    def __init__(self, reader: CsvReader, prefix: _Hash, parser: RowParser[bytes], send: Send) -> None:
        self._reader = reader
        self._prefix = prefix
        self._parser = parser
        self._send = send
        self._waiting: Iterator[Batch] = iter(())
        self._begin()

    def _begin(self) -> None:
        self._mark: Mark = (self._reader.offset, self._reader.line, self._prefix.digest())
        self._rows: defaultdict[tuple[int, Kind], Values] = defaultdict(list)
        self._row_count = 0
        self._rejects: list[Reject] = []
        self._chunks = 0

    @property
    def is_full(self) -> bool:
        return self._chunks >= CHUNKS_A_BATCH or len(self._rejects) >= REJECTS_A_BATCH

    def add(self, block: PlainBlock | list[Row]) -> None:
        """Sort the rows of a chunk out, and send the next part of the batch before."""
        for part in islice(self._waiting, 1):
            self._send(part)
        self._chunks += 1
        columns = columns_of(block, self._parser.count)
        parsed = None if columns is None else self._parser.columns(columns)
        if parsed is not None:  # as nearly always
            self._keep(*parsed)
            return
        good: list[tuple[bytes, Kind, int, int]] = []
        for line, _, fields, text in block:
            row = fields if isinstance(fields, str) else self._parser.row(fields)
            if isinstance(row, str):
                self._rejects.append((line, row, mask_numbers(text)[:REJECT_CHARACTERS_MAX]))
            else:
                good.append(row)
        if good:
            self._keep(*zip(*good, strict=True))

    def _keep(
        self, keys: Sequence[bytes], kinds: Sequence[Kind], paise: Sequence[int], days: Sequence[int]
    ) -> None:
        """Append each row to those like it; no step of Python's is taken for any."""
        alike = map(self._rows.__getitem__, zip(map(_first_byte, keys), kinds, strict=True))
        deque(map(list.extend, alike, zip(keys, paise, days, strict=True)), maxlen=0)
        self._row_count += len(keys)

    def close(self) -> None:
        """Make a batch of what there is, in a part for each chunk; the hash stands where the reader does."""
        if self._row_count or self._rejects:
            self._flush()
            rows_a_part = -(-self._row_count // self._chunks)
            parts = _parts(self._rows, min(max(rows_a_part, ROWS_A_PART_MIN), ROWS_A_PART_MAX))
            start, rejects = self._mark, self._rejects
            self._begin()
            self._waiting = _batch(start, self._mark, parts, rejects)

    def end(self) -> None:
        """Send whatever has not been sent."""
        self.close()
        self._flush()

    def whole(self) -> Batch:
        """The few rows of a last record as one batch."""
        (rows,) = map(_packed, _parts(self._rows, ROWS_A_PART_MAX))
        return Batch(self._reader.offset, self._reader.line, self._prefix.digest(), rows, self._rejects)

    def _flush(self) -> None:
        for part in self._waiting:
            self._send(part)


def mask_numbers(text: str) -> str:
    """Mask every run of nine or more digits, and of twelve or more with anything but letters between them, up
    to the last four.
    """
    return _NUMBERS.sub(lambda match: _DIGIT_BEFORE_THE_LAST_FOUR.sub("X", match[0]), text)


def _batch(start: Mark, end: Mark, parts: Iterator[list[Alike]], rejects: list[Reject]) -> Iterator[Batch]:
    """The parts of a batch, each packed when its turn comes."""
    part = next(parts)
    for following in parts:
        yield Batch(*start, _packed(part), [])
        part = following
    yield Batch(*end, _packed(part), rejects)


def _parts(rows: dict[tuple[int, Kind], Values], rows_a_part: int) -> Iterator[list[Alike]]:
    """Take the rows out, so many at a time, in order of the first bytes of their keys; at least one part."""
    part: list[Alike] = []
    room = rows_a_part * _ROW_VALUES
    for first, kind in sorted(rows):
        values = rows.pop((first, kind))
        while len(values) > room:
            part.append((kind, values[:room]))
            yield part
            values = values[room:]
            part, room = [], rows_a_part * _ROW_VALUES
        part.append((kind, values))
        room -= len(values)
    yield part


def _packed(part: list[Alike]) -> bytes:
    """Rows as Batch has them."""
    paise_of: defaultdict[bytes, int] = defaultdict(int)
    for kind, values in part:
        rows = iter(values)
        if kind == "CREDIT":
            for key, paise, _ in zip(rows, rows, rows, strict=True):
                paise_of[key] += paise
        else:
            for key, paise, _ in zip(rows, rows, rows, strict=True):
                paise_of[key] -= paise
    return msgspec.msgpack.encode((part, [*chain.from_iterable(paise_of.items())]))
