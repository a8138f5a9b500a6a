"""The two processes of the service, with a link between them in the place of the sockets.

Registry, committer, actors, billing, clock, engine, journal and projections are the real ones. What stands
here is what http/, storage/process.py, storage/remote.py and server.py do around them, in few lines.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from ledgerd.actors.messages import Accepted, Overloaded, Replayed, View
from ledgerd.actors.registry import ActorLimits, Registry
from ledgerd.app import _open_clock
from ledgerd.domain.commands import Disburse, Rejection, Repay, payment_key
from ledgerd.domain.events import LoanDisbursed, PaymentRecorded, Terms, decode_event
from ledgerd.http import present
from ledgerd.http.payments import outcome
from ledgerd.http.problems import Problem
from ledgerd.ids import Ids
from ledgerd.metrics import Metrics
from ledgerd.scheduler.billing import Billing
from ledgerd.storage.engine import Engine
from ledgerd.storage.ports import (
    AppendReply,
    BatchLost,
    Entry,
    Loaded,
    Opened,
    StorageFull,
    StoreError,
)
from ledgerd.storage.process import _append_args, _load_args
from ledgerd.storage.remote import _decoders, _plain, no_room
from ledgerd.storage.room import LOOK_S, Room
from ledgerd.storage.sqlite import is_disk_failure
from ledgerd.storage.wire import encoder
from tests.simulation.disk import Disk
from tests.simulation.machine import Process

ZONE = ZoneInfo("Asia/Kolkata")
METRICS = Metrics()
LINK_S = 0.002
TICK_S = 1e-6
Answer = tuple[int, dict[str, Any]]  # a status, and a receipt, a problem, a loan ..
UNKNOWN: Answer = (500, {})
BUSY: Answer = (503, {})


class Sizes(msgspec.Struct, frozen=True):
    """A seed's limits and batches."""

    limits: ActorLimits
    slice_events: int
    index_keys: int
    window: int


class Store:
    """The store's process: an engine, served as storage/process.py does."""

    def __init__(self, process: Process, disk: Disk, sizes: Sizes) -> None:
        self.process = process
        self._disk = disk
        self._sizes = sizes
        self._engine: Engine | None = None
        self._appends: asyncio.Queue[tuple[bytes, Callable[[Any], None]]] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        process.on_end.append(disk.drop)
        process.begin(self._serve_appends())

    def hear(self, method: str, args: bytes, reply: Callable[[Any], None]) -> None:
        """Take a call; `reply` hears (how it failed or None, the result as bytes)."""
        if method == "append":
            self._appends.put_nowait((args, reply))
        else:
            self._begin(self._answer(method, args, reply))

    def hang_up(self) -> None:
        """The front has gone: finish what is under way, project, close, end."""
        self.process.begin(self._close())

    def _begin(self, work: Any) -> None:
        task = self.process.begin(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_appends(self) -> None:
        while True:
            args, reply = await self._appends.get()
            try:
                assert self._engine is not None
                result = await self._engine.append(*_append_args.decode(args))
            except BatchLost as lost:
                reply(("full", encoder.encode(lost.epoch)))
            except StoreError as error:
                reply(("refused", encoder.encode(str(error))))
            except Exception:  # noqa: BLE001 - nothing is known of the batch
                self._fail_stop()
            else:
                reply((None, encoder.encode(result)))
            self._appends.task_done()

    def _fail_stop(self) -> None:
        self.process.machine.processes[0].receive(self.process.kill, 0.0)  # the world's: not from within

    async def _answer(self, method: str, args: bytes, reply: Callable[[Any], None]) -> None:
        failed: Any = None
        result: Any
        try:
            result = encoder.encode(await self._call(method, args))
        except StorageFull as error:
            failed, result = "full", encoder.encode(str(error))
        except StoreError as error:
            failed, result = "refused", encoder.encode(str(error))
        except sqlite3.Error as error:
            if method == "write" and is_disk_failure(error):
                self._fail_stop()
                return
            failed, result = "broken", encoder.encode(f"{type(error).__name__}: {error}")
        except Exception as error:  # a bug
            self.process.machine.errors.append(error)
            raise
        reply((failed, result))

    async def _call(self, method: str, args: bytes) -> Any:
        if method == "open":
            return await self._open()
        assert self._engine is not None
        if method == "load":
            return await self._engine.load(*_load_args.decode(args))
        name: Callable[..., Awaitable[Any]] = getattr(self._engine, method)
        return await name(*msgspec.msgpack.decode(args))

    async def _open(self) -> Opened:
        try:
            self._engine = self._disk.engine(self.process, self._sizes.slice_events, self._sizes.index_keys)
            opened = await self._engine.start()
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error
        self._engine.projector.add_done_callback(self._on_projector_end)
        return opened

    def _on_projector_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._fail_stop()

    async def _close(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._appends.join()
        if self._engine is not None:
            with suppress(sqlite3.Error):
                await self._engine.close()
        self._disk.close()
        self._fail_stop()  # ended


class Link:
    """The front's end: see storage/remote.py. What is sent on one channel arrives in order."""

    def __init__(self, front: Process, store: Store, on_lost: Callable[[], None]) -> None:
        self._front = front
        self._store = store
        self._on_lost = on_lost
        self._waiting: dict[int, tuple[asyncio.Future[Any], Any]] = {}
        self._last_id = 0
        self._arrives_s = {"there append": 0.0, "there": 0.0, "back append": 0.0, "back": 0.0}
        self.lost = False
        self.opened = Opened(0, 0, 0)
        store.process.on_end.append(lambda: front.receive(self._lose, 0.001))
        front.on_end.append(lambda: store.process.receive(store.hang_up, 0.001))

    def _after_s(self, channel: str) -> float:
        machine = self._front.machine
        behind_s = self._arrives_s[channel] + TICK_S  # timers of one moment ring in any order
        self._arrives_s[channel] = max(behind_s, machine.now_s + machine.delay_s(LINK_S))
        return self._arrives_s[channel] - machine.now_s

    def _call(self, method: str, args: Any, decoder: Any = None) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._front.create_future()
        if self.lost or self._front.killed:
            future.set_exception(StoreError("the store has ended: the outcome is unknown"))
            return future
        self._last_id += 1
        number = self._last_id
        self._waiting[number] = (future, decoder or _decoders.get(method, _plain))
        channel = "append" if method == "append" else ""
        reply = partial(self._send_back, f"back {channel}".strip(), number)
        hear = partial(self._store.hear, method, encoder.encode(args), reply)
        self._store.process.receive(hear, self._after_s(f"there {channel}".strip()))
        return future

    def _send_back(self, channel: str, number: int, result: Any) -> None:
        if not self._store.process.killed:
            self._front.receive(partial(self._reply, number, *result), self._after_s(channel))

    def _reply(self, number: int, failed: str | None, result: bytes) -> None:
        future, decoder = self._waiting.pop(number, (None, _plain))
        if future is None or future.done():
            return
        if failed is None:
            future.set_result(decoder.decode(result))
        elif failed == "refused":
            future.set_exception(StoreError(_plain.decode(result)))
        elif failed == "full":
            future.set_exception(no_room(_plain.decode(result)))
        else:
            future.set_exception(RuntimeError(f"in the store: {_plain.decode(result)}"))

    def _lose(self) -> None:
        self.lost = True
        waiting, self._waiting = self._waiting, {}
        for future, _ in waiting.values():
            if not future.done():
                future.set_exception(StoreError("the store has ended: the outcome is unknown"))
        self._on_lost()

    # The seam

    async def open(self) -> None:
        self.opened = await self._call("open", (), _decoders["open"])

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
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError


class Front:
    """The front's process: from a call's parsed body on to its answer."""

    def __init__(
        self,
        process: Process,
        store: Store,
        sizes: Sizes,
        wall_s: Callable[[], float],
        free_bytes: Callable[[], int],
    ) -> None:
        self.process = process
        self._free_bytes = free_bytes
        self.up = False
        self.draining = False
        self._sizes = sizes
        self._wall_s = wall_s
        self._link = Link(process, store, self._break_down)
        self._jobs: set[asyncio.Task[Any]] = set()
        process.begin(self._serve())

    async def _serve(self) -> None:
        chance, link, sizes = self.process.machine.chance, self._link, self._sizes
        try:
            await link.open()
            self._clock = await _open_clock(
                SimpleNamespace(
                    config=SimpleNamespace(clock=SimpleNamespace(sandbox_start_day=None, zone=ZONE)),
                    chance=SimpleNamespace(time_s=self._wall_s),
                    store=link,
                    given_clock=None,
                    begin=self._begin,
                )
            )
            await link.write("interrupt_runs", self._clock.now_ms())
        except (StoreError, RuntimeError):  # one line on stderr, and the end of the process
            self._break_down()
            return
        self._ids = Ids(self._wall_s, chance.getrandbits)
        room = Room(1, self._free_bytes)
        self._registry = Registry(
            link, link.opened, self._clock, sizes.limits, METRICS, self._on_broken, room
        )
        self._billing = Billing(
            link, self._registry, self._clock, self._ids, sizes.window, METRICS, _score_nobody
        )
        self.up = True
        self._begin(self._billing.catch_up(0))
        self._begin(self._watch_room(room))

    async def _watch_room(self, room: Room) -> None:
        while True:
            self._clock.today()
            if room.look() and not room.is_short:
                self._begin(self._billing.catch_up(0))
            await asyncio.sleep(LOOK_S)

    def _begin(self, work: Any) -> asyncio.Task[Any]:
        task = self.process.create_task(work)
        self._jobs.add(task)
        task.add_done_callback(self._job_ended)
        return task

    def _job_ended(self, task: asyncio.Task[Any]) -> None:
        self._jobs.discard(task)
        if not task.cancelled():
            task.exception()  # logged, when the service has not ended

    def _on_broken(self, _error: BaseException) -> None:
        self._break_down()

    def _break_down(self) -> None:
        """Nothing can be made durable any more: answer what waits, and end."""
        self.up = False
        self.process.machine.processes[0].receive(self.process.kill, 0.05)

    def ring(self) -> None:
        """What the alarm does in the night."""
        if self.up and not self.draining and not self.process.killed:
            self._begin(self._billing.tonight())

    def stop(self) -> None:
        """What SIGTERM does."""
        if self.up and not self.draining and not self.process.killed:
            self.draining = True
            self.process.begin(self._drain())

    async def _drain(self) -> None:
        await self._billing.close()
        await self._registry.drain()
        self._registry.close()
        self._break_down()

    # Calls -----------------------------------------------------------------------------------------

    async def answer(self, kind: str, args: dict[str, Any]) -> Answer:
        """Answer one call, as http/ does."""
        if self.draining or not self.up:
            return BUSY
        try:
            handler: Callable[..., Awaitable[Answer]] = getattr(self, f"_{kind}")
            return await handler(**args)
        except Problem as problem:
            return problem.status, {"problem": problem.slug, **msgspec.to_builtins(problem.extras)}
        except (Overloaded, StorageFull):
            return BUSY
        except (StoreError, RuntimeError):
            return UNKNOWN

    async def _pay(
        self,
        caller: str,
        borrower_id: int | None,
        loan_id: int,
        transaction_id: str,
        amount_paise: int,
        for_bill: int | None,
    ) -> Answer:
        command = Repay(
            caller,
            transaction_id,
            amount_paise,
            self._ids.new(),
            self._clock.now_ms(),
            borrower_id,
            for_bill,
        )
        reply = outcome(loan_id, await self._registry.ask(loan_id, command))
        return reply.status, msgspec.to_builtins(reply.body)

    async def _apply(
        self, borrower_id: int, key: str | None, terms: tuple[int, int, int, int, str]
    ) -> Answer:
        amount_paise, apr_hundredths, rate, tenure, plan = terms
        command = Disburse(
            borrower_id,
            Terms(amount_paise, apr_hundredths, rate, tenure, plan, self._clock.today(), 30, 15, 300),
            self._clock.now_ms(),
            key,
        )
        answer = await self._registry.ask(self._ids.new(), command, new=True)
        if isinstance(answer, Rejection):
            raise Problem(answer.code, "")
        assert isinstance(answer, Accepted | Replayed)
        await self._link.project_through(self._registry.committer.head_seq)
        assert isinstance(answer.event, LoanDisbursed)
        shown = {"loan_id": answer.loan_id, "disbursed_on": answer.event.terms.disbursed_on}
        return (201 if isinstance(answer, Accepted) else 200), shown

    async def _view(self, borrower_id: int | None, loan_id: int) -> Answer:
        answer = await self._registry.ask(loan_id, None, borrower_id)
        if isinstance(answer, Rejection):
            raise Problem(answer.code, "")
        assert isinstance(answer, View)
        return 200, self._seen(answer, present.loan_summary(answer))

    def _seen(self, view: View, shown: Any) -> dict[str, Any]:
        return {"version": view.version, "today": view.today, **msgspec.to_builtins(shown)}

    async def _page(self, loan_id: int, limit: int) -> Answer:
        answer = await self._registry.ask(loan_id, None, None)
        if isinstance(answer, Rejection):
            raise Problem(answer.code, "")
        rows = await self._link.read("payments_page", loan_id, answer.version, None, limit)
        issued = await self._link.read("issued_bills", loan_id, answer.version)
        bills = {bill.number: bill for bill in (*issued, *answer.issued)}
        return 200, {
            **self._seen(answer, present.loan_summary(answer)),
            "payment_ids": [row[4] for row in rows],
            "bills": msgspec.to_builtins(present.bills(answer.loan, list(bills.values()))),
        }

    async def _look_up(self, caller: str, transaction_id: str) -> Answer:
        owner = await self._link.read("owner_of", payment_key(caller, transaction_id))
        if owner is None:
            raise Problem("payment-not-found", "")
        event = decode_event(owner.body)
        assert isinstance(event, PaymentRecorded)
        return 200, msgspec.to_builtins(present.receipt(owner.loan_id, event, replayed=False))


async def _score_nobody() -> None: ...
