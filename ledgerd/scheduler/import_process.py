"""The importing process: streams one CSV file and answers with its transactions, in batches with watermarks.

Run by scheduler/importer.py as `python -m ledgerd.scheduler.import_process`, so that a large file takes
nothing from the service's event loop. It holds no database, writes nothing but its answers, and ends when its
parent does. Identity numbers leave it as keyed hashes alone.
"""

from __future__ import annotations

import gc
import hashlib
import os
import secrets
import stat
import sys
import threading
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal, cast

import msgspec

from ledgerd.domain.transactions import Columns, RowParser, resolve_columns
from ledgerd.scheduler.csv_reader import RECORD_BYTES_MAX, CsvReader, NotTextError, Row
from ledgerd.scheduler.import_batches import Batches, Send
from ledgerd.scheduler.import_protocol import (
    LENGTH_BYTES,
    Failed,
    Finished,
    KnownImport,
    Request,
    Started,
    framed,
)
from ledgerd.storage.vault import Vault

if TYPE_CHECKING:
    from hashlib import _Hash

NICENESS: Final = 10  # payments come first
HEADER_BYTES_MAX: Final = RECORD_BYTES_MAX


class UnusableFileError(Exception):
    """The file can't be imported; the message is one line for the operator."""


def import_stream(request: Request, send: Send) -> None:
    """Answer a request to its end. Raises UnusableFileError, or OSError where the file can't be read."""
    with open_regular(request.path) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        matched, hashes = _furthest_known(file, size_bytes, request.known)
        columns, header_bytes, header_lines, is_header_ended = _read_header(file)
        start_bytes, start_lines = header_bytes, header_lines
        if matched is not None:  # an import may have ended within the header
            start_bytes, start_lines = max((header_bytes, header_lines), _start_after(matched, size_bytes))
        prefix = hashes.get(start_bytes) or _hash_through(file, start_bytes)
        send(
            Started(
                size_bytes,
                start_bytes,
                start_lines,
                prefix.digest(),
                {
                    "aadhar_id": columns.identity,
                    "date": columns.date,
                    "transaction_type": columns.kind,
                    "amount": columns.amount,
                },
                None if matched is None else matched.import_id,
                matched is not None and matched.tail_bytes is not None and size_bytes > matched.bytes_done,
            )
        )
        vault = _hashing_vault(request)
        parser = RowParser(columns, lambda text: _identity_key(vault, text))
        reader = CsvReader(start_bytes, start_lines)
        _stream_rows(file, request.chunk_bytes, reader, prefix, parser, send, is_header_ended)


def open_regular(path: str) -> FileIO:
    """Open a file for reading; refuse what is no regular file before that can block."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise UnusableFileError("not a regular file")
    file = open(path, "rb", buffering=0, opener=_open_without_blocking)  # noqa: SIM115 - the caller's
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # it was swapped in between
        file.close()
        raise UnusableFileError("not a regular file")
    return file


def _open_without_blocking(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)


def _furthest_known(
    file: FileIO, size_bytes: int, known: list[KnownImport]
) -> tuple[KnownImport | None, dict[int, _Hash]]:
    """The known import of a beginning of this file that lets reading start furthest on.

    Of those that are alike, one whose last record was not whole, then one that was cut off. Also the running
    hashes at the places where reading may start then.
    """
    at: dict[int, list[KnownImport]] = {}
    for entry in known:
        if entry.bytes_done <= size_bytes:
            at.setdefault(entry.bytes_done, []).append(entry)
    tails = {entry.tail_bytes for entries in at.values() for entry in entries if entry.tail_bytes is not None}
    same: list[KnownImport] = []
    hashes: dict[int, _Hash] = {}
    prefix, done = hashlib.sha256(), 0
    for stop in sorted(tails | at.keys()):
        _hash_on(file, prefix, stop - done)
        done = stop
        digest = prefix.digest()
        same += [entry for entry in at.get(stop, ()) if entry.digest == digest]
        hashes[stop] = prefix.copy()
    furthest = max(
        same,
        key=lambda entry: (
            _start_after(entry, size_bytes)[0],
            entry.bytes_done,
            not entry.has_ended,
            entry.import_id,
        ),
        default=None,
    )
    return furthest, hashes


def _start_after(entry: KnownImport, size_bytes: int) -> tuple[int, int]:
    """Bytes and lines after which a file that begins as this import did is read on."""
    if entry.tail_bytes is not None and entry.tail_lines is not None and size_bytes > entry.bytes_done:
        return entry.tail_bytes, entry.tail_lines
    return entry.bytes_done, entry.lines_done


def _hash_through(file: FileIO, end: int) -> _Hash:
    file.seek(0)
    prefix = hashlib.sha256()
    _hash_on(file, prefix, end)
    return prefix


def _hash_on(file: FileIO, prefix: _Hash, count: int) -> None:
    while count > 0:
        chunk = file.read(min(count, 1024 * 1024))
        if not chunk:
            raise UnusableFileError("the file became shorter while it was read")
        prefix.update(chunk)
        count -= len(chunk)


def _read_header(file: FileIO) -> tuple[Columns, int, int, bool]:
    """The columns, the bytes and lines of the header, and whether a newline ended it."""
    file.seek(0)
    reader = CsvReader()
    rows: list[Row] = []
    is_ended = True
    while not rows and file.tell() <= HEADER_BYTES_MAX:
        line = _read_line(file)
        if not line:
            is_ended = False
            rows = reader.close()
            break
        rows = reader.feed(line)
    if not rows:
        raise UnusableFileError("the file has no header")
    fields = rows[0][2]
    if isinstance(fields, str):
        raise UnusableFileError(f"the header can't be read: {fields}")
    columns = resolve_columns(fields)
    if isinstance(columns, str):
        raise UnusableFileError(columns)
    return columns, reader.offset, reader.line, is_ended


def _read_line(file: FileIO) -> bytes:
    """The next line with its newline, or what of it the file or our patience has."""
    start = file.tell()
    block = b""
    while b"\n" not in block and len(block) <= HEADER_BYTES_MAX:
        more = file.read(4096)
        if not more:
            break
        block += more
    line = block[: block.find(b"\n") + 1] or block
    file.seek(start + len(line))
    return line


def _stream_rows(
    file: FileIO,
    chunk_bytes: int,
    reader: CsvReader,
    prefix: _Hash,
    parser: RowParser[bytes],
    send: Send,
    is_header_ended: bool,
) -> None:
    """Read from where the reader stands to the end of the file, hashing up to each watermark."""
    file.seek(reader.offset)
    unhashed, hashed_bytes = bytearray(), reader.offset
    batches = Batches(reader, prefix, parser, send)

    def hash_up_to(offset: int) -> None:
        nonlocal hashed_bytes
        if offset > hashed_bytes:
            prefix.update(unhashed[: offset - hashed_bytes])
            del unhashed[: offset - hashed_bytes]
            hashed_bytes = offset

    while chunk := file.read(chunk_bytes):
        unhashed += chunk
        batches.add(reader.feed_block(chunk))
        hash_up_to(reader.offset)
        if reader.is_skipping:  # no watermark falls within these bytes, which may be gigabytes
            batches.close()
            hash_up_to(hashed_bytes + len(unhashed))
        elif batches.is_full:
            batches.close()
    batches.end()
    ended_at = reader.offset
    batches.add(reader.close())
    hash_up_to(reader.offset)
    tail = batches.whole() if reader.offset > ended_at or not is_header_ended else None
    send(Finished(tail, reader.offset, reader.line, prefix.digest()))


def _hashing_vault(request: Request) -> Vault:
    """A vault that checks and hashes as the service's own; it seals nothing, and its sealing key is thrown
    away.
    """
    kind = cast(Literal["aadhaar", "opaque"], request.identity_kind)
    return Vault({0: secrets.token_bytes(32)}, 0, request.index_key, kind, secrets.token_bytes)


def _identity_key(vault: Vault, text: str) -> bytes | None:
    identity = vault.parse(text)
    return None if identity is None else vault.identity_key(identity)


def _end_with(stream: BinaryIO) -> None:
    """End this process when the stream does, whatever it is doing."""
    stream.read(1)
    os._exit(3)


def main() -> None:
    """Answer the one request on stdin."""
    os.nice(NICENESS)
    gc.disable()  # rows are counted out; nothing here is in a cycle
    inbound, outbound = sys.stdin.buffer, sys.stdout.buffer
    length = int.from_bytes(inbound.read(LENGTH_BYTES), "big")
    request = msgspec.msgpack.decode(inbound.read(length), type=Request)
    threading.Thread(target=_end_with, args=(inbound,), daemon=True).start()

    def send(message: msgspec.Struct) -> None:
        outbound.write(framed(message))
        outbound.flush()

    try:
        import_stream(request, send)
    except BrokenPipeError:
        os._exit(3)
    except (UnusableFileError, NotTextError) as error:
        send(Failed(str(error)))
    except OSError as error:
        send(Failed(error.strerror or type(error).__name__))
    except Exception as error:  # noqa: BLE001 - its message may hold a row; where it arose does not
        send(Failed(_where(error)))
    os._exit(0)  # a daemon thread sits in stdin, which an orderly exit would wait for


def _where(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = "" if trace is None else f" in {trace.tb_frame.f_code.co_qualname}, line {trace.tb_lineno}"
    return f"unexpected {type(error).__name__}{place}"


if __name__ == "__main__":
    main()
