"""What the importing process and its parent say to each other: length-prefixed MessagePack over a pipe.

The parent sends one Request and then keeps the pipe open: its end means that the parent is gone. The child
answers with Started, then Batches, then Finished; or with Failed at any time. Used by scheduler/importer.py
(the parent) and scheduler/import_process.py (the child).
"""

import msgspec

LENGTH_BYTES = 4
FRAME_BYTES_MAX = 64 * 1024 * 1024

NO_ROWS = msgspec.msgpack.encode(([], []))

Reject = tuple[int, str, str]  # line, reason, the row with its numbers masked


class KnownImport(msgspec.Struct, array_like=True, frozen=True):
    """An earlier import: the first `bytes_done` bytes of some file, by their digest.

    Where that file ended within a record, the record began at `tail_bytes` after `tail_lines` lines, and is
    read again once the file has grown.
    """

    import_id: int
    file_name: str
    bytes_done: int
    lines_done: int
    digest: bytes
    has_ended: bool
    tail_bytes: int | None
    tail_lines: int | None


class Request(msgspec.Struct, array_like=True, frozen=True):
    """What to import. `identity_kind` is "aadhaar" or "opaque"; `index_key` is the vault's.

    The file is read `chunk_bytes` at a time; a part of a batch has about as many rows as a chunk.
    """

    path: str
    identity_kind: str
    index_key: bytes
    known: list[KnownImport]
    chunk_bytes: int

    def __repr__(self) -> str:
        """Tell the path alone: a key is never shown."""
        return f"Request({self.path!r})"


class Started(msgspec.Struct, array_like=True, frozen=True, tag="started"):
    """Where the import starts: behind the longest known beginning of the file, or behind its header.

    `matched` names the import that left off there; `replaces_tail` says that its last rows are read again.
    """

    size_bytes: int
    start_bytes: int
    start_lines: int
    digest: bytes
    columns: dict[str, int]
    matched: int | None
    replaces_tail: bool


class Batch(msgspec.Struct, array_like=True, frozen=True, tag="batch"):
    """Some rows, and how far the file is read with them; `digest` is SHA-256 of its first `bytes_done` bytes.

    A batch comes in parts, whose rows are from anywhere in it: all but the last stand where it begins.

    `rows` is MessagePack, which the parent hands on unread: [[[kind, rows of it], ..], sums]. Rows are a flat
    list of identity key, amount in paise, day number, again and again; sums one of identity key, paise: what
    all rows of the part add to that balance.
    """

    bytes_done: int
    lines_done: int
    digest: bytes
    rows: bytes
    rejects: list[Reject]


class Finished(msgspec.Struct, array_like=True, frozen=True, tag="finished"):
    """The end of the file. `tail` holds what was read from a last record that no newline ended, if there was
    one.
    """

    tail: Batch | None
    bytes_done: int
    lines_done: int
    digest: bytes


class Failed(msgspec.Struct, array_like=True, frozen=True, tag="failed"):
    """The file can't be imported, or not to its end; the reason is one line for the operator."""

    reason: str


Answer = Started | Batch | Finished | Failed


def framed(message: msgspec.Struct) -> bytes:
    """Encode a message with its length in front."""
    payload = msgspec.msgpack.encode(message)
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload
