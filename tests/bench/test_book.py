"""A book that was made in bulk is a database like any other."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import msgspec

from bench.book import Group, read_book, write_book
from bench.service import last_seq, ledgerd, payments_after, write_config

GROUPS = [Group(20, 9), Group(2, 10), Group(3, days_ago=100)]


def test_a_book_passes_verify(tmp_path: Path):
    config = write_config(tmp_path, {"clock": {"sandbox_start": "2026-06-01"}})
    book = asyncio.run(write_book(config, GROUPS, seed=1))
    assert [len(group) for group in book.groups] == [20, 2, 3]
    assert book.payments_each == [9, 10, 0]
    assert (book.payments, book.events) == (200, 225)
    assert read_book(tmp_path) == book
    assert last_seq(config) == 225
    assert payments_after(config, 0) == 200
    verified = subprocess.run(ledgerd("verify", tmp_path), capture_output=True, check=True)
    found = msgspec.json.decode(verified.stdout)
    assert (found["loans"], found["payments"], found["differences"]) == (25, 200, 0)
