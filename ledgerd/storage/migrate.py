"""Numbered .sql migrations, forward only, each in one transaction with the number it brings the file to."""

from __future__ import annotations

import sqlite3
from importlib.resources import files
from typing import Literal

from ledgerd.storage.ports import StoreError

FileKind = Literal["journal", "tables"]


def migrations(kind: FileKind) -> list[tuple[int, str]]:
    """Return (number, SQL text) of each migration of a file, in order."""
    folder = files("ledgerd.storage").joinpath("migrations", kind)
    found = [
        (int(item.name[:4]), item.read_text("utf-8"))
        for item in folder.iterdir()
        if item.name.endswith(".sql")
    ]
    return sorted(found)


def schema_version(connection: sqlite3.Connection) -> int:
    """Return the number of the last migration that the file has seen; 0 for a new one."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def check_schema(connection: sqlite3.Connection, kind: FileKind) -> None:
    """Refuse a file from another version of ledgerd, with what to do."""
    check_made(connection, kind)
    have, want = schema_version(connection), migrations(kind)[-1][0]
    if have > want:
        raise StoreError(
            f"the {kind} file has schema {have}, this ledgerd knows {want}: install the newer ledgerd"
        )
    if have < want:
        raise StoreError(
            f"the {kind} file has schema {have}, this ledgerd needs {want}: run `ledgerd migrate`"
        )


def check_made(connection: sqlite3.Connection, kind: FileKind) -> None:
    """Refuse a file that no ledgerd has made: an empty one, perhaps cut to nothing."""
    if schema_version(connection) == 0:
        raise StoreError(f"the {kind} file is empty or not ledgerd's: restore it from a backup")


def migrate(connection: sqlite3.Connection, kind: FileKind) -> int:
    """Bring a file up to date and return how many migrations ran."""
    if (have := schema_version(connection)) > migrations(kind)[-1][0]:
        raise StoreError(
            f"the {kind} file has schema {have}, newer than this ledgerd: install the newer ledgerd"
        )
    ran = 0
    for number, sql in migrations(kind):
        if number <= schema_version(connection):
            continue
        connection.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version = {number};\nCOMMIT;")
        ran += 1
    return ran
