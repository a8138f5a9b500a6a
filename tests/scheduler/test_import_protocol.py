"""The messages of the import: they come back whole, and none shows a key."""

from __future__ import annotations

import msgspec
import pytest

from ledgerd.scheduler.import_protocol import (
    LENGTH_BYTES,
    Answer,
    Batch,
    Failed,
    Finished,
    Request,
    Started,
    framed,
)

BATCH = Batch(10, 2, b"d", b"\x90", [(2, "reason", "row")])


@pytest.mark.parametrize(
    "message",
    [
        Started(10, 5, 1, b"d", {"date": 0}, None, False),
        BATCH,
        Finished(None, 10, 2, b"d"),
        Finished(BATCH, 10, 2, b"d"),
        Failed("why"),
    ],
)
def test_an_answer_comes_back_whole(message: Answer) -> None:
    frame = framed(message)
    assert int.from_bytes(frame[:LENGTH_BYTES], "big") == len(frame) - LENGTH_BYTES
    assert msgspec.msgpack.decode(frame[LENGTH_BYTES:], type=Answer) == message


def test_a_request_does_not_show_its_key() -> None:
    assert "secret" not in repr(Request("bank.csv", "aadhaar", b"secret", [], 1))
