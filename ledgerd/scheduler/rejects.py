"""The rejects file beside a CSV: `<file>.rejects.csv`, with a line for each row that was not imported, and
why.

A line is on disk before the import's watermark passes its row, so that none is lost; when an import goes on,
lines beyond the watermark are cut off first, so that none is doubled. Without rejects there is no file. Used
by scheduler/importer.py.
"""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import Final

from ledgerd.scheduler.csv_reader import CsvReader
from ledgerd.scheduler.import_protocol import Reject

HEADER: Final = ("line", "reason", "row")
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run such a cell


class RejectsFile:
    """The rejects of one file. Its methods block; the importer calls them in a thread."""

    def __init__(self, csv_path: Path) -> None:
        self.path = csv_path.with_name(csv_path.name + ".rejects.csv")

    def keep_through(self, line: int) -> None:
        """Cut off what is about rows after this line of the CSV; the whole file when nothing is left."""
        try:
            file = self.path.open("r+b")
        except FileNotFoundError:
            return
        with file:
            kept_bytes = _bytes_through(file, line)
            file.truncate(kept_bytes)
        if kept_bytes == 0:
            self.path.unlink()

    def append(self, rejects: list[Reject]) -> None:
        """Add lines and sync them to disk."""
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        # For its owner alone: these are rows of people's bank history.
        with os.fdopen(os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab") as file:
            is_new = file.tell() == 0
            if is_new:
                writer.writerow(HEADER)
            writer.writerows((line, reason, _inert(row)) for line, reason, row in rejects)
            file.write(text.getvalue().encode())
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _sync_folder(self.path.parent)


def _bytes_through(file: io.BufferedIOBase, line: int) -> int:
    """How many bytes of a rejects file are its header and what is about rows up to `line`; 0 without any such
    row.
    """
    reader = CsvReader()
    kept_bytes = 0
    while chunk := file.read(64 * 1024):
        for _, end, fields, _ in reader.feed(chunk):
            if isinstance(fields, list) and tuple(fields) == HEADER:
                continue
            is_kept = isinstance(fields, list) and fields[0].isdecimal() and int(fields[0]) <= line
            if not is_kept:
                return kept_bytes
            kept_bytes = end
    return kept_bytes


def _inert(cell: str) -> str:
    return "'" + cell if cell.startswith(_FORMULA_STARTS) else cell


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
