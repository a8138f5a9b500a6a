"""The store process: the engine behind a Unix socket. `python -m ledgerd.storage.process FD` is started by
the service.

It serves one socket and ends with it: at end of file it finishes what it was doing, projects the rest and
closes. It ignores the signals that stop the service, which drains first. When the journal can't commit it
ends at once, without an answer.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sqlite3
import sys
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from ledgerd.storage.engine import Engine
from ledgerd.storage.files import open_engine
from ledgerd.storage.journal import VersionGap
from ledgerd.storage.ports import Entry, StoreError
from ledgerd.storage.wire import Frames, Reply, Request, encoder

_append_args = msgspec.msgpack.Decoder(tuple[int, list[Entry]])
_load_args = msgspec.msgpack.Decoder(tuple[list[int]])
_request = msgspec.msgpack.Decoder(Request)

EXIT_BROKEN = 70


class Server:
    """Answers the seam's calls, each in its own task; appends reach the journal in the order they came."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.ended = asyncio.Event()
        self._frames = Frames(self._on_frame, self.ended.set)
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, descriptor: int) -> None:
        """Serve until the other side hangs up, then close."""
        end = socket.socket(fileno=descriptor)
        await asyncio.get_running_loop().create_connection(lambda: self._frames, sock=end)
        await self.ended.wait()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.engine is not None:
            await self.engine.close()

    def _on_frame(self, frame: memoryview) -> None:
        task = asyncio.get_running_loop().create_task(self._answer(_request.decode(frame)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, request: Request) -> None:
        failed: Any = None
        result: Any
        try:
            # Encoded in here: what can't be encoded is a bug that its caller has to hear of, too.
            result = msgspec.Raw(encoder.encode(await self._call(request.method, request.args)))
        except StoreError as error:
            failed, result = "refused", str(error)
        except OSError as error:  # a backup's folder
            failed, result = "refused", f"{error.filename}: {error.strerror}"
        except (VersionGap, sqlite3.Error) as error:
            if request.method == "append":
                fail_stop(error)
            failed, result = "broken", f"{type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001 - a bug in a named read or write is its caller's to hear of
            traceback.print_exc()
            failed, result = "broken", f"{type(error).__name__}: {error}"
        self._frames.send(encoder.encode(Reply(request.id, failed, msgspec.Raw(encoder.encode(result)))))

    async def _call(self, method: str, args: msgspec.Raw) -> Any:
        if method == "open":
            tables, journal, lock, slice_events = msgspec.msgpack.decode(args)
            self.engine = await open_engine(
                Path(tables), Path(journal), Path(lock), slice_events, os.getppid()
            )
            self.engine.projector.add_done_callback(self._on_projector_end)
            return self.engine.opened
        engine = self.engine
        if engine is None:
            raise StoreError("the store is not open")
        if method == "append":
            return await engine.append(*_append_args.decode(args))
        if method == "load":
            return await engine.load(*_load_args.decode(args))
        name: Callable[..., Awaitable[Any]] = getattr(engine, method)
        return await name(*msgspec.msgpack.decode(args))

    def _on_projector_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            fail_stop(error)


def fail_stop(error: BaseException) -> None:
    """End at once: what is on disk is the only truth, and callers retry by transaction_id."""
    traceback.print_exception(error)
    sys.stderr.write("ledgerd: the store stops: what it had not acknowledged is unknown\n")
    sys.stderr.flush()
    os._exit(EXIT_BROKEN)


def main() -> None:
    """Serve the socket that was inherited as a file descriptor."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    async def run() -> None:
        await Server().serve(int(sys.argv[1]))

    uvloop.run(run())


if __name__ == "__main__":
    main()
