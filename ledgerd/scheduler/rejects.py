"""The rejects file beside a CSV: `<file>.rejects.csv`, with a line for each row that was not imported, and
why.

A line is on disk before the import's watermark passes its row, so that none is lost; when an import goes on,
lines beyond the watermark are cut off first, so that none is doubled. The file has a bound, so that a hostile
CSV can't fill the disk: its last line then says that more was rejected. Without rejects there is no file.
Used by scheduler/importer.py.
"""

from __future__ import annotations

import csv
import errno
import io
import os
import stat
from pathlib import Path
from typing import Final

from ledgerd.scheduler.csv_reader import CsvReader
from ledgerd.scheduler.import_protocol import Reject
from ledgerd.storage.folders import sync_folder

HEADER: Final = ("line", "reason", "row")
FULL: Final = "from here on bad rows are counted but not written: the file has reached its bound"
_LAST_LINE_BYTES: Final = 128
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run such a cell


class RejectsFile:
    """The rejects of one file, at most `bytes_max` long. Its methods block: call them in a thread.

    Each raises OSError, also when something that is no file of ours stands at its path: nothing is followed
    or emptied there.
    """

    def __init__(self, csv_path: Path, bytes_max: int) -> None:
        self.path = csv_path.with_name(csv_path.name + ".rejects.csv")
        self._bytes_max = bytes_max
        self._is_full = False

    def keep_through(self, line: int) -> None:
        """Cut off what is about rows after this line of the CSV; the whole file when nothing is left."""
        try:
            file = self._open(os.O_RDWR)
        except FileNotFoundError:
            return
        with file:
            kept_bytes, self._is_full = _kept_through(file, line)
            file.truncate(kept_bytes)
        if kept_bytes == 0:
            self.path.unlink()
            sync_folder(self.path.parent)

    def append(self, rejects: list[Reject]) -> int:
        """Add lines and sync them to disk; return how many there was room for. After keep_through."""
        if self._is_full:
            return 0
        with self._open(os.O_RDWR | os.O_CREAT) as file:
            size = file.seek(0, os.SEEK_END)
            lines = [] if size else [_line(HEADER)]
            size += sum(map(len, lines))
            written = 0
            for line, reason, row in rejects:
                text = _line((line, reason, _inert(row)))
                if size + len(text) + _LAST_LINE_BYTES > self._bytes_max:
                    lines.append(_line((line, FULL, "")))
                    self._is_full = True
                    break
                size += len(text)
                lines.append(text)
                written += 1
            is_new = file.tell() == 0
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            sync_folder(self.path.parent)
        return written

    def _open(self, flags: int) -> io.BufferedRandom:
        # For its owner alone: these are rows of people's bank history.
        flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self.path, flags, 0o600)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
                raise _not_ours() from None
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _not_ours()
        return os.fdopen(descriptor, "r+b")


def _kept_through(file: io.BufferedRandom, line: int) -> tuple[int, bool]:
    """How many bytes of a rejects file are its header and what is about rows up to `line` (0 without any such
    row), and whether the last of them says that the file is full.
    """
    reader = CsvReader()
    kept_bytes, is_full = 0, False
    while chunk := file.read(64 * 1024):
        for _, end, fields, _ in reader.feed(chunk):
            if isinstance(fields, list) and tuple(fields) == HEADER:
                continue
            is_kept = isinstance(fields, list) and fields[0].isdecimal() and int(fields[0]) <= line
            if not is_kept:
                return kept_bytes, is_full
            kept_bytes, is_full = end, fields[1:] == [FULL, ""]
    return kept_bytes, is_full


def _line(cells: tuple[str | int, ...]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerow(cells)
    return text.getvalue().encode()


def _not_ours() -> OSError:
    return OSError(errno.EEXIST, "not a regular file: move it away, the rejects have to go there")


def _inert(cell: str) -> str:
    cell = cell.replace("\0", "\ufffd")  # which neither we nor a spreadsheet would read back
    return "'" + cell if cell.startswith(_FORMULA_STARTS) else cell
