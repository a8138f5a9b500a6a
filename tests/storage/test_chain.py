"""The hash chain: fixed bytes, and every part of an event counts."""

from __future__ import annotations

import hashlib

import pytest

from ledgerd.storage.chain import GENESIS, batch_digest, event_hash


def test_a_hash_covers_the_one_before_the_loan_the_version_the_key_and_the_body() -> None:
    text = bytes(32) + bytes(7) + b"\x05" + bytes(7) + b"\x02" + b"\x00\x03" + b"keybody"
    assert event_hash(GENESIS, 5, 2, b"key", b"body") == hashlib.sha256(text).digest()


@pytest.mark.parametrize(
    "other",
    [
        (b"x" * 32, 5, 2, b"key", b"body"),
        (GENESIS, 6, 2, b"key", b"body"),
        (GENESIS, 5, 3, b"key", b"body"),
        (GENESIS, 5, 2, b"kez", b"body"),
        (GENESIS, 5, 2, b"ke", b"ybody"),  # the same bytes, cut elsewhere
        (GENESIS, 5, 2, None, b"keybody"),
        (GENESIS, 5, 2, b"key", b"bodz"),
    ],
)
def test_any_other_event_has_another_hash(other: tuple[bytes, int, int, bytes | None, bytes]) -> None:
    assert event_hash(*other) != event_hash(GENESIS, 5, 2, b"key", b"body")


def test_a_digest_covers_every_hash_in_order_and_the_digest_before() -> None:
    a, b = b"a" * 32, b"b" * 32
    assert batch_digest(GENESIS, [a, b]) == hashlib.sha256(bytes(32) + a + b).digest()
    digests = {batch_digest(GENESIS, [a, b]), batch_digest(GENESIS, [b, a]), batch_digest(a, [a, b])}
    digests |= {batch_digest(GENESIS, [a]), batch_digest(batch_digest(GENESIS, [a]), [b])}
    assert len(digests) == 5
