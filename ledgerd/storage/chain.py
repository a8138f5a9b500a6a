"""The hash chain of a loan, and the digest chain of the journal's batches.

Each event's hash covers its loan, version, once_key and body, and the hash before it: an edited, moved or
missing row of a loan shows. A cut tail of a loan shows in the digests, which cover every row of the journal
in order.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Final

GENESIS: Final = bytes(32)

_header = struct.Struct(">QQH").pack


def event_hash(previous: bytes, loan_id: int, version: int, once_key: bytes | None, body: bytes) -> bytes:
    """Return the 32-byte hash of an event that follows `previous` (GENESIS before the first)."""
    key = once_key or b""
    return hashlib.sha256(previous + _header(loan_id, version, len(key)) + key + body).digest()


def batch_digest(previous: bytes, hashes: Iterable[bytes]) -> bytes:
    """Return the digest of a batch after the digest `previous` (GENESIS before the first)."""
    return hashlib.sha256(previous + b"".join(hashes)).digest()
