"""Room on the disk: below a reserve, what writes is refused before it is tried.

The reserve is for what is under way and can't be refused: projections of what was acknowledged, merges of the
once index, WALs up to their checkpoints, logins. It is looked at now and then, not for each payment.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ledgerd.storage.ports import NamedStore, StorageFull

LOOK_S = 1.0  # between two looks


class Room:
    """How much is free, and whether that `is_short` of the reserve (both in bytes). Without `free_bytes`, as
    for a database in memory, there is always room.
    """

    def __init__(self, reserve_bytes: int = 0, free_bytes: Callable[[], int] | None = None) -> None:
        self.reserve_bytes = reserve_bytes
        self.free_bytes: int | None = None
        self.is_short = False
        self._free_bytes = free_bytes

    def look(self) -> bool:
        """Look, and return whether that changes anything. A disk that can't be looked at is as it was."""
        if self._free_bytes is None:
            return False
        try:
            self.free_bytes = self._free_bytes()
        except OSError:
            return False
        was_short, self.is_short = self.is_short, self.free_bytes < self.reserve_bytes
        return self.is_short != was_short

    def check(self) -> None:
        """Raise StorageFull when there is too little."""
        if self.is_short:
            raise StorageFull("the disk has less room than [storage] reserve_mib keeps free")


def free_bytes(folder: Path) -> int:
    """Return the bytes that this user may still write to a folder's disk; raises OSError."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


class Reserved:
    """The store for those whose writes can wait: they raise StorageFull while there is no room."""

    def __init__(self, store: NamedStore, room: Room) -> None:
        self._store = store
        self._room = room

    async def read(self, name: str, *params: Any) -> Any:
        """Run a named read."""
        return await self._store.read(name, *params)

    async def write(self, name: str, *params: Any) -> Any:
        """Run a named write."""
        self._room.check()
        return await self._store.write(name, *params)
