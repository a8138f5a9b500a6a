"""Imports a CSV of bank transactions, each row exactly once, through a process of its own.

A file is known by its content: the digest of its first bytes. The import starts behind the longest beginning
that is known, and each batch moves rows and watermark in one transaction, so that a kill at any moment loses
and doubles nothing. Batches are taken one by one as they become durable: a slow disk holds the reading
process back through its pipe. Used by scheduler/scoring.py and by `ledgerd import-transactions`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from ledgerd.scheduler.import_protocol import (
    FRAME_BYTES_MAX,
    LENGTH_BYTES,
    NO_ROWS,
    Answer,
    Batch,
    Failed,
    Finished,
    KnownImport,
    Reject,
    Request,
    Started,
    framed,
)
from ledgerd.scheduler.rejects import RejectsFile
from ledgerd.storage.ports import NamedStore, StorageFull

T = TypeVar("T")

CHUNK_BYTES = 256 * 1024  # of the CSV, some 6,000 rows: about what one transaction of the store adds
PIPE_BYTES = 4 * 1024 * 1024  # what is read ahead of the store: many parts, so that neither waits

_ANSWERS = msgspec.msgpack.Decoder(Answer)

Progress = Callable[[int, int, int], None]  # bytes done, bytes in all, rows a second


class Identities(msgspec.Struct, frozen=True):
    """How ids become identity keys: as in a vault of this kind ("aadhaar", "opaque") with this key."""

    kind: str
    index_key: bytes

    def __repr__(self) -> str:
        """Tell the kind alone: a key is never shown."""
        return f"Identities({self.kind!r})"


class ImportFailed(Exception):
    """A file was not imported to its end; what came before stays. The message is one line with its name."""


class ImportSummary(msgspec.Struct, frozen=True):
    """What one import did; `is_new` is False when the content was known already and nothing was done.

    `rejects_left_out` is how many rejected rows found no room in the rejects file.
    """

    path: str
    is_new: bool
    size_bytes: int
    rows_imported: int
    rows_rejected: int
    rejects_path: str | None
    rejects_left_out: int
    seconds: float
    rows_per_s: int


async def import_file(
    store: NamedStore,
    identities: Identities,
    path: Path,
    rejects_bytes: int,
    time_s: Callable[[], float],
    on_progress: Progress | None = None,
) -> ImportSummary:
    """Import what is new in a file. `rejects_bytes` bounds its rejects file; `time_s` gives Unix seconds.

    Raises ImportFailed when the file can't be read, is no such CSV, another import gets in the way, or
    the disk has no room.
    """
    path = path.absolute()  # noqa: ASYNC240 - looks at no disk
    answer = await store.read("known_imports")
    known = msgspec.convert(answer["imports"], list[KnownImport])
    request = Request(str(path), identities.kind, identities.index_key, known, CHUNK_BYTES)
    rejects = RejectsFile(path, rejects_bytes)
    run = _Run(store, path, rejects, {entry.import_id: entry for entry in known}, answer["last_id"], time_s)
    async with _importing_process(request) as process:
        while not run.is_finished:
            try:
                await run.take(await _next_answer(process, path))
            except StorageFull as error:
                raise ImportFailed(f"{path}: {error}: it goes on where it was when there is room") from None
            if on_progress is not None:
                on_progress(run.bytes_done, max(run.bytes_done, run.size_bytes), run.rows_per_s)
    return run.summary()


class _Run:
    """One import, as the answers of its process come in."""

    def __init__(
        self,
        store: NamedStore,
        path: Path,
        rejects: RejectsFile,
        known: dict[int, KnownImport],
        last_id: int,
        time_s: Callable[[], float],
    ) -> None:
        self.size_bytes = 0
        self.bytes_done = 0
        self.is_finished = False
        self._store = store
        self._path = path
        self._known = known
        self._last_id = last_id
        self._time_s = time_s
        self._rejects = rejects
        self._started: Started | None = None
        self._import_id: int | None = None
        self._rows_before = 0  # when an import goes on that was cut off
        self._rows_imported = 0
        self._rows_rejected = 0
        self._rejects_left_out = 0
        self._started_s = time_s()

    @property
    def seconds(self) -> float:
        """Since the import began; never below 0, whatever is done to the clock."""
        return max(0.0, self._time_s() - self._started_s)

    @property
    def rows_per_s(self) -> int:
        """The speed so far, rejected rows included."""
        return int((self._rows_imported + self._rows_rejected) / (self.seconds or 1.0))

    async def take(self, message: Answer) -> None:
        """Make one answer durable."""
        match message:
            case Started():
                self._started = message
                self.size_bytes = message.size_bytes
                self.bytes_done = message.start_bytes
            case Batch():
                await self._begin()
                await self._keep(message.rejects)
                mark = (message.bytes_done, message.lines_done, message.digest)
                self._advance(
                    await self._store.write(
                        "import_batch",
                        self._import_id,
                        [self.bytes_done, self._rows_before + self._rows_imported],
                        *mark,
                        message.rows,
                        len(message.rejects),
                    ),
                    message,
                )
            case Finished():
                await self._finish(message)
                self.is_finished = True
            case Failed():
                raise ImportFailed(f"{self._path}: {message.reason}")

    def summary(self) -> ImportSummary:
        """What was done."""
        rejects_path = str(self._rejects.path) if self._rows_rejected else None
        is_new = self._import_id is not None
        return ImportSummary(
            str(self._path),
            is_new,
            self.bytes_done,
            self._rows_imported,
            self._rows_rejected,
            rejects_path,
            self._rejects_left_out,
            round(self.seconds, 3),
            self.rows_per_s,
        )

    async def _begin(self) -> None:
        """Take over the import that was cut off here, or begin one, before the first rows."""
        if self._import_id is not None:
            return
        started = self._started
        assert started is not None, "the process says where it starts before anything else"
        matched = self._known.get(started.matched or 0)
        is_continued = matched is not None and matched.file_name == str(self._path)
        kept_lines = started.start_lines if is_continued else 0
        await self._to_rejects(lambda: self._rejects.keep_through(kept_lines))
        reply = await self._store.write(
            "import_begin",
            str(self._path),
            self._last_id,
            started.matched,
            started.replaces_tail,
            [started.start_bytes, started.start_lines, started.digest],
            started.columns,
            int(self._time_s() * 1000),
        )
        self._check(reply)
        self._import_id = reply["import_id"]
        self._rows_before = reply["rows_imported"]

    async def _finish(self, message: Finished) -> None:
        matched = self._known.get(self._started.matched or 0) if self._started is not None else None
        is_known = matched is not None and matched.has_ended and message.bytes_done == matched.bytes_done
        if self._import_id is None and is_known:
            return
        await self._begin()
        tail = message.tail
        if tail is not None:
            await self._keep(tail.rejects)
        reply = await self._store.write(
            "import_end",
            self._import_id,
            [self.bytes_done, self._rows_before + self._rows_imported],
            [message.bytes_done, message.lines_done, message.digest],
            tail is not None,
            NO_ROWS if tail is None else tail.rows,
            0 if tail is None else len(tail.rejects),
            int(self._time_s() * 1000),
        )
        self._advance(reply, message)

    async def _keep(self, rejects: list[Reject]) -> None:
        if rejects:
            written = await self._to_rejects(lambda: self._rejects.append(rejects))
            self._rows_rejected += len(rejects)
            self._rejects_left_out += len(rejects) - written

    async def _to_rejects(self, work: Callable[[], T]) -> T:
        """Rejects that can't be written stop the import: none may be lost."""
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            raise ImportFailed(
                f"{self._rejects.path}: {error.strerror}: let the service write beside the CSV"
            ) from None

    def _advance(self, reply: dict[str, Any], message: Batch | Finished) -> None:
        self._check(reply)
        self._rows_imported += reply["rows_imported"]
        self.bytes_done = message.bytes_done

    def _check(self, reply: dict[str, Any]) -> None:
        if "refused" in reply:
            raise ImportFailed(f"{self._path}: another import got in the way; try again when it has ended")


@asynccontextmanager
async def _importing_process(request: Request) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the importing process; it is gone when the block is left, however it is left."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ledgerd.scheduler.import_process",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=PIPE_BYTES,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(framed(request))
        yield process
    finally:
        await _reap(process)


async def _next_answer(process: asyncio.subprocess.Process, path: Path) -> Answer:
    assert process.stdout is not None
    try:
        length = int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES), "big")
        assert length <= FRAME_BYTES_MAX, "the importing process is our own"
        payload = await process.stdout.readexactly(length)
    except asyncio.IncompleteReadError:
        raise ImportFailed(f"{path}: the importing process ended before the file did") from None
    answer: Answer = _ANSWERS.decode(payload)
    return answer


async def _reap(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    if process.returncode is None:
        process.kill()
    process.stdin.close()
    while await process.stdout.read(64 * 1024):  # a pipe that is not read to its end is never closed
        pass
    await process.wait()
