"""Files damaged as disks, kills and people damage them; each damage by chance, from a seed.

After a damage verify must find it, or both files say what they said before, but for what verify can't know
(edits.py) and, where a WAL was hit, for commits at its end: they are as if they had never been made.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.damage.book import FILES, Moments, copied, copy_of, dump, findings, make
from tests.damage.edits import knowable
from tests.storage.books import Place

PAGE_BYTES = 4096


class Shelf:
    """What damages are made of: a book, another one, and moments of a life that ends in a kill."""

    def __init__(self, book: Place, other: Place, moments: Moments) -> None:
        self.book, self.other, self.moments = book, other, moments
        whole = dump(book)
        assert whole is not None
        self.rows = whole

    @classmethod
    async def fill(cls, folder: Path, seed: int) -> Shelf:
        """Make everything."""
        places = []
        for name in ("book", "other"):
            (folder / name).mkdir()
            places.append(Place(folder / name))
            await make(places[-1], seed)
        return cls(places[0], places[1], Moments(places[0], folder, seed))


def bits(path: Path, chance: Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 1, 1, 8])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def bits_of_a_header(path: Path, chance: Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(100)] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def garbled(path: Path, chance: Random) -> None:
    data = bytearray(path.read_bytes())
    start, length = chance.randrange(len(data)), chance.choice([1, 4, 64, 512])
    data[start : start + length] = chance.randbytes(len(data[start : start + length]))
    path.write_bytes(data)


def zeroed_page(path: Path, chance: Random) -> None:
    data = bytearray(path.read_bytes())
    start = chance.randrange(0, len(data), PAGE_BYTES)
    data[start : start + PAGE_BYTES] = bytes(len(data[start : start + PAGE_BYTES]))
    path.write_bytes(data)


def copied_page(path: Path, chance: Random) -> None:
    """A page from elsewhere, as by a write that went astray."""
    data = bytearray(path.read_bytes())
    to, from_ = (chance.randrange(0, len(data), PAGE_BYTES) for _ in range(2))
    data[to : to + PAGE_BYTES] = data[from_ : from_ + PAGE_BYTES]
    path.write_bytes(data)


def cut(path: Path, chance: Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.choice([chance.randrange(len(data)), chance.randrange(100)])])


def cut_at_a_page(path: Path, chance: Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(0, len(data), PAGE_BYTES)])


def emptied(path: Path, chance: Random) -> None:
    path.write_bytes(b"")


def deleted(path: Path, chance: Random) -> None:
    path.unlink()


def more(path: Path, chance: Random) -> None:
    """Garbage behind the end."""
    with path.open("ab") as file:
        file.write(chance.randbytes(chance.choice([1, 24, PAGE_BYTES, 3 * (PAGE_BYTES + 24)])))


OF_BYTES = [bits, bits, bits_of_a_header, garbled, zeroed_page, copied_page, cut, cut_at_a_page, emptied,
            deleted, more]  # fmt: skip


def of_closed_files(shelf: Shelf, place: Path, chance: Random) -> str:
    """Both files are whole, and one of them is hit."""
    copy = copy_of(shelf.book, place)
    damage, file = chance.choice(OF_BYTES), chance.choice(FILES)
    damage(getattr(copy, file), chance)
    return f"{damage.__name__} of the {file}"


def of_a_wal(shelf: Shelf, place: Path, chance: Random) -> str:
    """What a kill left is hit, in a WAL or in what remembers where it ends."""
    copy = copy_of(shelf.moments.last, place)
    damage, file = chance.choice(OF_BYTES), chance.choice(FILES)
    kind = chance.choice(["-wal", "-wal", "-wal", "-shm", ""])
    path: Path = getattr(copy, file)
    damage(path.with_name(path.name + kind), chance)
    return f"{damage.__name__} of the {file}{kind}"


def of_people(shelf: Shelf, place: Path, chance: Random) -> str:
    """Whole files in the wrong place."""
    moments = shelf.moments
    copy = copy_of(chance.choice([shelf.book, moments.last, moments.closed]), place)
    file = chance.choice(FILES)
    path: Path = getattr(copy, file)
    what = chance.choice(["of an older moment", "of another base", "swapped", "another wal", "stale wal"])
    if what == "of an older moment":
        copied(chance.choice([shelf.book, moments.earlier]), place, [file])
    elif what == "of another base":
        copied(shelf.other, place, [file])
    elif what == "swapped":
        for suffix in ("", "-wal"):
            two = [one.with_name(one.name + suffix) for one in (copy.tables, copy.journal)]
            texts = [one.read_bytes() if one.exists() else b"" for one in two]
            for one, text in zip(two, reversed(texts), strict=True):
                one.write_bytes(text)
    else:
        of = moments.earlier if what == "stale wal" else moments.last
        name = file if what == "stale wal" else chance.choice(FILES)
        source: Path = getattr(of, name)
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
        path.with_name(f"{path.name}-wal").write_bytes(source.with_name(f"{source.name}-wal").read_bytes())
    return f"{file}: {what}"


DAMAGES: list[Callable[[Shelf, Path, Random], str]] = [of_closed_files, of_a_wal, of_people]


def damaged(shelf: Shelf, folder: Path, seed: int) -> str:
    """Do one damage: "found", "harmless" or, when commits at the end are gone, "former"."""
    chance = Random(seed)
    what = chance.choices(DAMAGES, [6, 4, 1])[0](shelf, folder, chance)
    place = Place(folder)
    try:
        if findings(place):
            return "found"
        after = dump(place)
        assert after is not None, "verify finds nothing, and SQLite can't read it"
        if knowable(after) == knowable(shelf.rows):
            return "harmless"
        assert shelf.moments.once_was(after, knowable), "verify finds nothing, and it says something else"
        return "former"
    except (AssertionError, sqlite3.Error) as error:
        error.add_note(f"seed {seed}: {what}")
        raise
