"""The service's end of the seam: starts the store process and speaks to it over two Unix sockets, one for
appends and one for everything else.

Each ends when the other does. When a socket ends before `close`, every call that waits fails with
StoreError ("unknown"), and `on_end` is called: the service must stop, since nothing can be made durable any
more.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ledgerd.domain.book import Book, Collected
from ledgerd.domain.events import BillIssued
from ledgerd.observe import log, logging_arguments
from ledgerd.storage.ports import (
    AppendReply,
    BatchLost,
    Entry,
    Loaded,
    Opened,
    StorageFull,
    StoredEvent,
    StoreError,
)
from ledgerd.storage.wire import Frames, Reply, Request, encoder

_reply = msgspec.msgpack.Decoder(Reply)
_decoders: dict[str, msgspec.msgpack.Decoder[Any]] = {
    "open": msgspec.msgpack.Decoder(Opened),
    "append": msgspec.msgpack.Decoder(AppendReply),
    "load": msgspec.msgpack.Decoder(list[Loaded]),
    "book_part": msgspec.msgpack.Decoder(tuple[Book, int | None]),
    "collected_part": msgspec.msgpack.Decoder(tuple[dict[int, Collected], int]),
    "events_of": msgspec.msgpack.Decoder(tuple[list[StoredEvent], int]),
    "owner_of": msgspec.msgpack.Decoder(StoredEvent | None),
    "issued_bills": msgspec.msgpack.Decoder(list[BillIssued]),
}
_plain: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder()

STOP_PATIENCE_S = 10.0


def no_room(told: int | str) -> StoreError:
    """Return the error of a full disk: a batch's comes with the epoch that goes on, another's with words."""
    return BatchLost(told) if isinstance(told, int) else StorageFull(told)


class RemoteStore:
    """See `ports.Store`."""

    def __init__(self, process: subprocess.Popen[bytes], on_end: Callable[[], None]) -> None:
        self._process = process
        self._on_end = on_end
        self._calls = Frames(self._on_frame, self._on_lost)
        self._appends = Frames(self._on_frame, self._on_lost)
        self._waiting: dict[int, tuple[asyncio.Future[Any], msgspec.msgpack.Decoder[Any]]] = {}
        self._last_id = 0
        self._closing = False
        self.opened = Opened(0, 0, 0)

    @classmethod
    async def start(
        cls,
        tables: Path,
        journal: Path,
        lock: Path,
        slice_events: int,
        index_keys: int,
        on_end: Callable[[], None],
    ) -> RemoteStore:
        """Start the store process and open the database in it (see `files.open_engine`). Raises StoreError
        with its reason when it can't.
        """
        (calls, their_calls), (appends, their_appends) = socket.socketpair(), socket.socketpair()
        with their_calls, their_appends:
            theirs = [their_calls.fileno(), their_appends.fileno()]
            process = subprocess.Popen(  # noqa: ASYNC220, S603 - our own module; a fork takes no time
                [sys.executable, "-m", "ledgerd.storage.process", *map(str, theirs), *logging_arguments()],
                pass_fds=theirs,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a Ctrl-C is for the service, which drains first
            )
        store = cls(process, on_end)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: store._calls, sock=calls)
        await loop.create_connection(lambda: store._appends, sock=appends)
        try:
            paths = [str(path.absolute()) for path in (tables, journal, lock)]
            store.opened = await store._call("open", [*paths, slice_events, index_keys])
        except BaseException:
            await store.close()
            raise
        return store

    def pid(self) -> int:
        """Return the id of the store process."""
        return self._process.pid

    def _call(
        self, method: str, args: Any, decoder: msgspec.msgpack.Decoder[Any] | None = None
    ) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        frames = self._appends if method == "append" else self._calls
        if frames.transport is None:
            future.set_exception(StoreError("the store has ended: what it had not acknowledged is unknown"))
            return future
        self._last_id += 1
        self._waiting[self._last_id] = (future, decoder or _decoders.get(method, _plain))
        frames.send(encoder.encode(Request(self._last_id, method, msgspec.Raw(encoder.encode(args)))))
        return future

    def _on_frame(self, frame: memoryview) -> None:
        reply = _reply.decode(frame)
        future, decoder = self._waiting.pop(reply.id, (None, _plain))
        if future is None or future.done():  # the other socket has ended, or its caller has gone
            return
        if reply.failed is None:
            try:
                future.set_result(decoder.decode(reply.result))
            except msgspec.MsgspecError as error:
                future.set_exception(RuntimeError(f"from the store: {error}"))
        elif reply.failed == "refused":
            future.set_exception(StoreError(_plain.decode(reply.result)))
        elif reply.failed == "full":
            future.set_exception(no_room(_plain.decode(reply.result)))
        else:
            future.set_exception(RuntimeError(f"in the store: {_plain.decode(reply.result)}"))

    def _on_lost(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for future, _ in waiting.values():
            if not future.done():
                future.set_exception(
                    StoreError("the store has ended: what it had not acknowledged is unknown")
                )
        if not self._closing:
            self._closing = True
            for frames in (self._calls, self._appends):  # one alone is of no use
                if frames.transport is not None:
                    frames.transport.abort()
            self._on_end()

    def append(self, epoch: int, entries: Sequence[Entry]) -> asyncio.Future[AppendReply]:
        return self._call("append", (epoch, entries))

    async def load(self, loan_ids: Sequence[int]) -> list[Loaded]:
        loaded: list[Loaded] = await self._call("load", (loan_ids,))
        return loaded

    async def read(self, name: str, *params: Any) -> Any:
        return await self._call("read", (name, *params), _decoders.get(name))

    async def write(self, name: str, *params: Any) -> Any:
        return await self._call("write", (name, *params))

    async def project_through(self, seq: int) -> int:
        projected: int = await self._call("project_through", (seq,))
        return projected

    async def backup(self, path: str) -> None:
        await self._call("backup", (path,))

    async def close(self) -> None:
        """Hang up, and wait until the store has closed its files."""
        self._closing = True
        for frames in (self._calls, self._appends):
            if frames.transport is not None:
                frames.transport.close()
        try:
            await asyncio.to_thread(self._process.wait, STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            log.error("the store did not close in time: killed", seconds=STOP_PATIENCE_S)
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
