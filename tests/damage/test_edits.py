"""Every column of every table is changed, and rows are deleted, added and exchanged: verify finds each, but
for those of an exact list.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.damage.book import copy_of, dump, findings, make
from tests.damage.edits import COLUMNS, DEPENDS, UNKNOWABLE, edits
from tests.storage.books import Place


async def test_every_edit_is_found_but_for_an_exact_list(tmp_path: Path) -> None:
    book = Place(tmp_path)
    await make(book)
    rows = dump(book)
    assert rows is not None
    assert {table for _, table in rows} == set(COLUMNS)
    assert all(len(found) >= 2 for found in rows.values()), "a table without rows"
    assert findings(book) == []
    wrong, made, listed = [], set[str](), set[str]()
    for edit in edits(book, Random(1)):
        place = copy_of(book, tmp_path / "copy")
        if not edit.make(place):
            continue
        made.add(edit.name.partition(" ")[0])
        if edit.listed:
            listed.add(edit.listed)
        if edit.name not in DEPENDS and bool(found := findings(place)) == bool(edit.listed):
            wrong.append(f"{edit.name}: {found or 'not found'}")
    assert not wrong, "\n".join(["", *wrong])
    assert listed == set(UNKNOWABLE)
    every = {f"{table}.{column}" for table, columns in COLUMNS.items() for column in columns}
    assert every - made == {"meta.value"}, "whose rows are changed one by one"
