"""Cuts of power: what a killed service had written and not synced is undone, all of it or a random part.

`powercut.c`, built here and preloaded, writes down every write and sync of the database's files. After a kill
`cut` makes of each file what its disk may hold: what was synced, and of what came after it nothing, or any of
its 512-byte pieces. Names that were made, renamed or removed in a folder since its last sync are undone too,
from the last one back.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random

SOURCE = Path(__file__).with_name("powercut.c")
PIECE = 512
_RECORD = struct.Struct("<c3xIqqII")


class NoCompiler(Exception):
    """There is no C compiler here; the message says what to do."""


def build(folder: Path, source: Path = SOURCE) -> Path:
    """Build the library to be preloaded."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise NoCompiler(
            "power cuts and faults of the disk need a C compiler (Debian: apt install gcc libc6-dev)"
        )
    library = folder / f"{source.stem}.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(library), str(source)]
    subprocess.run([*command, "-ldl", "-lpthread"], check=True)
    return library


@dataclass(frozen=True)
class Record:
    """One line of what happened, as powercut.c writes it down."""

    kind: str
    path: Path
    offset: int
    old_size: int
    old: bytes
    new: bytes


class Recorder:
    """A life's record. `environment` is what the service is started with."""

    def __init__(self, library: Path, folder: Path, log: Path) -> None:
        self._library = library
        self._folder = folder
        self._log = log

    def environment(self, kill: str = "") -> dict[str, str]:
        """What preloads the library; `kill` is powercut.c's POWERCUT_KILL."""
        for path in self._log.parent.glob(f"{self._log.name}*"):  # and what was kept of unlinked files
            path.unlink()
        plan = {"POWERCUT_KILL": kill} if kill else {}
        return {
            "LD_PRELOAD": str(self._library),
            "POWERCUT_FOLDER": str(self._folder),
            "POWERCUT_LOG": str(self._log),
            **plan,
        }

    def records(self) -> list[Record]:
        """Everything that was written down, in order."""
        found = []
        data = self._log.read_bytes() if self._log.exists() else b""
        place = 0
        while place + _RECORD.size <= len(data):
            kind, name, offset, old_size, old, new = _RECORD.unpack_from(data, place)
            place += _RECORD.size
            if place + name + old + new > len(data):
                break  # killed as it wrote this
            path = Path(data[place : place + name].decode())
            content = data[place + name : place + name + old + new]
            found.append(Record(kind.decode(), path, offset, old_size, content[:old], content[old:]))
            place += name + old + new
        return found

    def killed_inside(self) -> bool:
        """Whether POWERCUT_KILL's call was reached."""
        return any(record.kind == "k" for record in self.records())

    def cut(self, chance: Random, counts: Counter[str]) -> None:
        """Make of each file what its disk holds after the power went."""
        counts["power cuts"] += 1
        unsynced: dict[Path, list[Record]] = {}
        names: dict[Path, list[tuple[int, Record]]] = {}
        for number, record in enumerate(self.records()):
            if record.kind in ("c", "r", "u"):
                names.setdefault(record.path.parent, []).append((number, record))
            if record.kind == "r" and record.path in unsynced:
                unsynced[_other(record)] = unsynced.pop(record.path)
            elif record.kind in ("s", "u"):
                unsynced.pop(record.path, None)
                if record.kind == "s":
                    names.pop(record.path, None)
            elif record.kind in ("w", "t"):
                unsynced.setdefault(record.path, []).append(record)
        for path, records in unsynced.items():
            if path.exists():
                counts["writes undone"] += _undo(path, records, chance)
        gone = []
        for changes in names.values():
            gone += changes[chance.choice([0, 0, chance.randint(0, len(changes))]) :]
        for _, record in sorted(gone, key=lambda change: change[0], reverse=True):
            _undo_name(record)
        counts["names undone"] += len(gone)
        for shared in self._folder.rglob("*-shm"):
            shared.unlink()


def _undo(path: Path, records: list[Record], chance: Random) -> int:
    """Take back what was not synced, and let some of it be; return how many writes were not let be whole."""
    content = bytearray(path.read_bytes())
    for record in reversed(records):
        if record.kind == "w":
            _put(content, record.offset, record.old)
        else:
            content.extend(record.old)
        del content[record.old_size :]
        content.extend(bytes(record.old_size - len(content)))
    likely = chance.choice([0.0, 0.0, 0.5, 0.9])
    undone = 0
    for record in records:
        if record.kind == "t":
            if chance.random() < likely:
                del content[record.offset :]
                content.extend(bytes(record.offset - len(content)))
            continue
        kept = 0
        for start in range(0, len(record.new), PIECE):
            if chance.random() < likely:
                _put(content, record.offset + start, record.new[start : start + PIECE])
                kept += 1
        undone += kept * PIECE < len(record.new)
    path.write_bytes(content)
    return undone


def _other(record: Record) -> Path:
    """The second name of a change of names."""
    return Path(record.new.decode())


def _undo_name(record: Record) -> None:
    if record.kind == "c" and record.path.is_dir():
        shutil.rmtree(record.path)
    elif record.kind == "c":
        record.path.unlink(missing_ok=True)
    elif _other(record).exists():
        _other(record).rename(record.path)


def _put(content: bytearray, offset: int, piece: bytes) -> None:
    content.extend(bytes(max(0, offset - len(content))))
    content[offset : offset + len(piece)] = piece
