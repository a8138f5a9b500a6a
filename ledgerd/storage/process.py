"""The store process: the engine behind two Unix sockets. The service starts it as
`python -m ledgerd.storage.process FD FD FORMAT LEVEL`, and it logs to the same stream in the same shape.

An event loop serves the first socket, which takes every call but `append`. The second takes the appends: a
thread that does nothing else reads, commits and answers, so that a batch changes hands as seldom as it can.

It ends with its sockets: at end of file it finishes what it was doing, projects the rest and closes. It
ignores the signals that stop the service, which drains first. When the journal can't commit, or a sync
fails in any transaction, it ends at once, without an answer.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import socket
import sqlite3
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, cast

import msgspec
import uvloop

from ledgerd.observe import Format, configure_logging, log
from ledgerd.storage.backup import advice
from ledgerd.storage.engine import Engine
from ledgerd.storage.files import open_engine
from ledgerd.storage.ports import BatchLost, Entry, StorageFull, StoreError
from ledgerd.storage.sqlite import is_disk_failure
from ledgerd.storage.wire import Frames, Reply, Request, encoder, receive, transmit

_append_args = msgspec.msgpack.Decoder(tuple[int, list[Entry]])
_load_args = msgspec.msgpack.Decoder(tuple[list[int]])
_request = msgspec.msgpack.Decoder(Request)

EXIT_BROKEN = 70
CALL_FAILED = "a call of the store failed"
STOPS = "the store stops: what it had not acknowledged is unknown"
# How long a thread may keep the interpreter's lock when another wants it. The projector computes for
# milliseconds; a batch that waits for it holds up dozens of callers.
SWITCH_INTERVAL_S = 0.0005


class Server:
    """Answers the seam's calls, each in its own task, and appends in the order they came."""

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.ended = asyncio.Event()
        self._frames = Frames(self._on_frame, self.ended.set)
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, calls: int, appends: int) -> None:
        """Serve both sockets (file descriptors) until the other side hangs up, then close."""
        calls_end, appends_end = socket.socket(fileno=calls), socket.socket(fileno=appends)
        await asyncio.get_running_loop().create_connection(lambda: self._frames, sock=calls_end)
        appending = threading.Thread(target=self._serve_appends, args=(appends_end,), name="appends")
        appending.start()
        await self.ended.wait()
        if self.engine is not None:
            self.engine.stop_waiting_for_room()  # else calls that wait for it would never end
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(appending.join)
        if self.engine is not None:
            await self.engine.close()

    def _serve_appends(self, end: socket.socket) -> None:
        try:
            with end:
                while (frame := receive(end)) is not None:
                    reply = self._append(_request.decode(frame))
                    with suppress(OSError):  # the service is gone; the next frame says so
                        transmit(end, encoder.encode(reply))
        except BaseException as error:  # noqa: BLE001 - nothing is known of the batch
            fail_stop(error)

    def _append(self, request: Request) -> Reply:
        try:
            reply = self._opened_engine().append_here(*_append_args.decode(request.args))
        except BatchLost as lost:
            return Reply(request.id, "full", msgspec.Raw(encoder.encode(lost.epoch)))
        except StoreError as error:
            return Reply(request.id, "refused", msgspec.Raw(encoder.encode(str(error))))
        return Reply(request.id, None, msgspec.Raw(encoder.encode(reply)))

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
        except StorageFull as error:
            failed, result = "full", str(error)
        except StoreError as error:
            failed, result = "refused", str(error)
        except OSError as error:  # a backup's folder
            where = f"{error.filename}: " if error.filename else ""
            failed, result = "refused", f"{where}{error.strerror}{advice(error)}"
        except sqlite3.Error as error:
            if request.method == "write" and is_disk_failure(error):
                fail_stop(error)
            failed, result = "broken", f"{type(error).__name__}: {error}"
        except Exception as error:  # noqa: BLE001 - a bug in a named read or write is its caller's to hear of
            log.exception(CALL_FAILED, method=request.method)
            failed, result = "broken", f"{type(error).__name__}: {error}"
        self._frames.send(encoder.encode(Reply(request.id, failed, msgspec.Raw(encoder.encode(result)))))

    async def _call(self, method: str, args: msgspec.Raw) -> Any:
        if method == "open":
            tables, journal, lock, slice_events, index_keys = msgspec.msgpack.decode(args)
            self.engine = await open_engine(
                Path(tables), Path(journal), Path(lock), slice_events, index_keys, os.getppid()
            )
            self.engine.projector.add_done_callback(self._on_projector_end)
            return self.engine.opened
        engine = self._opened_engine()
        if method == "load":
            return await engine.load(*_load_args.decode(args))
        name: Callable[..., Awaitable[Any]] = getattr(engine, method)
        return await name(*msgspec.msgpack.decode(args))

    def _opened_engine(self) -> Engine:
        if self.engine is None:
            raise StoreError("the store is not open")
        return self.engine

    def _on_projector_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            fail_stop(error)


def fail_stop(error: BaseException) -> NoReturn:
    """End at once: what is on disk is the only truth, and callers retry by transaction_id."""
    try:
        if isinstance(error, sqlite3.Error) and is_disk_failure(error):
            log.error(STOPS, error=f"{error} ({error.sqlite_errorname})")
        else:
            log.error(STOPS, exc_info=error)
    finally:  # also when the log can't be written
        os._exit(EXIT_BROKEN)


def main() -> None:
    """Serve the sockets that were inherited as file descriptors, and log as the service does."""
    faulthandler.enable()
    configure_logging(cast("Format", sys.argv[3]), sys.argv[4])
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    async def run() -> None:
        await Server().serve(int(sys.argv[1]), int(sys.argv[2]))

    uvloop.run(run())


if __name__ == "__main__":
    main()
