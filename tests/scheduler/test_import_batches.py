"""Batches: in parts by the first bytes of their keys, with their sums; and no number in the clear."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerd.domain.transactions import Columns, RowParser
from ledgerd.sample import write_sample
from ledgerd.scheduler import import_batches
from ledgerd.scheduler.csv_reader import CsvReader
from ledgerd.scheduler.import_batches import Batches, mask_numbers
from ledgerd.scheduler.import_protocol import Batch
from tests.scheduler.test_import_process import answers, rows


def parts_of(path: Path, chunk_bytes: int) -> list[Batch]:
    return [message for message in answers(path, chunk_bytes=chunk_bytes) if isinstance(message, Batch)]


def test_a_batch_comes_in_parts_in_order_of_identities(tmp_path: Path) -> None:
    path = tmp_path / "bank.csv"
    write_sample(path, 50, seed=1, rows_each=16)
    size = path.stat().st_size
    header = path.read_bytes().index(b"\n") + 1
    parts = parts_of(path, chunk_bytes=size // 3 + 1)
    assert [part.bytes_done for part in parts] == [header, header, size]
    assert [(part.lines_done, part.digest) for part in parts[:2]] == [
        (1, hashlib.sha256(path.read_bytes()[:header]).digest())
    ] * 2
    assert [len(rows(part)) for part in parts] == [267, 267, 266]
    firsts = [sorted({row[0][:1] for row in rows(part)}) for part in parts]
    assert all(before[-1] <= after[0] for before, after in pairwise(firsts))


def fed(lines: list[str], chunks_a_batch: int) -> tuple[list[str], list[Batch]]:
    """Feed lines one by one; tell in which order chunks were added and parts sent."""
    events: list[str] = []
    sent: list[Batch] = []

    def send(message: msgspec.Struct) -> None:
        assert isinstance(message, Batch)
        events.append("part")
        sent.append(message)

    reader = CsvReader()
    parser = RowParser(Columns(0, 1, 2, 3, 4), lambda text: hashlib.sha256(text.encode()).digest()[:16])
    batches = Batches(reader, hashlib.sha256(), parser, send)
    for number, line in enumerate(lines, 1):
        events.append("chunk")
        batches.add(reader.feed_block(line.encode()))
        if number % chunks_a_batch == 0:
            batches.close()
    batches.end()
    return events, sent


def test_a_batch_is_sent_while_the_next_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_batches, "ROWS_A_PART_MIN", 1)
    line = "{},2024-01-01,CREDIT,1.00\n"
    events, sent = fed([line.format(number) for number in range(6)], chunks_a_batch=3)
    assert events == ["chunk"] * 3 + ["chunk", "part"] * 3 + ["part"] * 3
    assert [part.lines_done for part in sent] == [0, 0, 3, 3, 3, 6]


LARGEST = 10**15 - 1
ROWS = st.tuples(
    st.integers(0, 9),
    st.sampled_from(["CREDIT", "DEBIT"]),
    st.one_of(st.integers(0, 10**9), st.just(LARGEST)),
    st.sampled_from(["\n", "\n", ",too many\n"]),
)


@given(st.lists(st.lists(ROWS, min_size=1, max_size=9), max_size=9), st.integers(1, 4), st.integers(1, 5))
def test_every_good_row_comes_once_and_the_sums_are_theirs(
    chunks: list[list[tuple[int, str, int, str]]], chunks_a_batch: int, rows_a_part: int
) -> None:
    lines = [
        "".join(
            f"{who},2024-01-01,{kind},{paise // 100}.{paise % 100:02d}{end}"
            for who, kind, paise, end in chunk
        )
        for chunk in chunks
    ]
    with pytest.MonkeyPatch.context() as small:
        small.setattr(import_batches, "ROWS_A_PART_MIN", 1)
        small.setattr(import_batches, "ROWS_A_PART_MAX", rows_a_part)
        sent = fed(lines, chunks_a_batch)[1]
    came = []
    for part in sent:
        of_part = rows(part)
        assert len(of_part) <= rows_a_part
        came += of_part
        expected: dict[bytes, int] = {}
        for key, kind, paise, _ in of_part:
            expected[key] = expected.get(key, 0) + (paise if kind == "CREDIT" else -paise)
        flat = msgspec.msgpack.decode(part.rows)[1]
        assert dict(zip(flat[::2], flat[1::2], strict=True)) == expected
        assert len(flat) == 2 * len(expected)
    good = [row for chunk in chunks for row in chunk if row[3] == "\n"]
    assert sorted((row[0], row[1], row[2]) for row in came) == sorted(
        (hashlib.sha256(str(who).encode()).digest()[:16], kind, paise) for who, kind, paise, _ in good
    )
    assert sum(len(part.rejects) for part in sent) == sum(map(len, chunks)) - len(good)


def test_the_sum_of_a_part_fits_into_64_bits() -> None:
    assert import_batches.ROWS_A_PART_MAX * LARGEST < 2**63


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("12345678", "12345678"),
        ("123456789", "XXXXX6789"),
        ("a234123412346b", "aXXXXXXXX2346b"),
        ("2341-2341-2346 2024-01-01", "XXXX-XXXX-XXXX XXXX-01-01"),
        ("２３４１２３４１２３４６", "XXXXXXXX２３４６"),
        ("1" * 40, "X" * 36 + "1111"),
        ("2341.2341.2346", "XXXX.XXXX.2346"),
        ("2341_2341_2346", "XXXX_XXXX_2346"),
        ("2341 23412346", "XXXX XXXX2346"),
        ("23412341-2346", "XXXXXXXX-2346"),
        ("2341\t2341\t2346", "XXXX\tXXXX\t2346"),
        ("2341\u00a02341\u200b2346", "XXXX\u00a0XXXX\u200b2346"),
        ("2341 - 2341 - 2346", "XXXX - XXXX - 2346"),
        ("234 123 412 346", "XXX XXX XX2 346"),
        ("2 3 4 1 2 3 4 1 2 3 4 6", "X X X X X X X X 2 3 4 6"),
        ("2341,2341,2346,2024-01-01", "XXXX,XXXX,2346,2024-01-01"),
        ('"2341","2341","2346"', '"XXXX","XXXX","2346"'),
        ("2341;2341;2346;2024-01-01", "XXXX;XXXX;XXXX;XXXX-01-01"),
        ("2024-01-01,CREDIT,1234567.89", "2024-01-01,CREDIT,1234567.89"),
        ("2024-01-01,DEBIT,10.00,20.00", "2024-01-01,DEBIT,10.00,20.00"),
    ],
)
def test_masking(text: str, masked: str) -> None:
    assert mask_numbers(text) == masked
