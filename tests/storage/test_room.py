"""Room on the disk, and who waits for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ledgerd.storage.ports import StorageFull
from ledgerd.storage.room import Reserved, Room, free_bytes


class Disk:
    def __init__(self, free: int | None) -> None:
        self.free = free

    def look(self) -> int:
        if self.free is None:
            raise OSError
        return self.free


def test_it_is_short_below_the_reserve_and_says_when_that_changes() -> None:
    disk = Disk(100)
    room = Room(100, disk.look)
    assert [room.look(), room.is_short, room.free_bytes] == [False, False, 100]
    disk.free = 99
    assert [room.look(), room.is_short] == [True, True]
    assert [room.look(), room.is_short] == [False, True]
    with pytest.raises(StorageFull, match="reserve_mib"):
        room.check()
    disk.free = 100
    assert [room.look(), room.is_short] == [True, False]
    room.check()


def test_a_disk_that_cannot_be_looked_at_is_as_it_was() -> None:
    disk = Disk(0)
    room = Room(1, disk.look)
    room.look()
    disk.free = None
    assert [room.look(), room.is_short] == [False, True]


def test_memory_has_room() -> None:
    room = Room(1)
    assert [room.look(), room.is_short, room.free_bytes] == [False, False, None]


def test_a_real_disk_is_asked(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) > 0
    with pytest.raises(OSError, match="No such file"):
        free_bytes(tmp_path / "none")


async def test_writes_that_can_wait_do_and_reads_go_on() -> None:
    class Store:
        async def read(self, name: str, *params: Any) -> Any:
            return (name, params)

        async def write(self, name: str, *params: Any) -> Any:
            return (name, params)

    disk = Disk(0)
    room = Room(1, disk.look)
    reserved = Reserved(Store(), room)
    assert await reserved.write("w", 1) == ("w", (1,))
    room.look()
    with pytest.raises(StorageFull):
        await reserved.write("w", 1)
    assert await reserved.read("r", 2) == ("r", (2,))
