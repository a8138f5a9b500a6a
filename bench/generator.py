"""One process of an open loop: `python -m bench.generator PLANFILE NUMBER`, started by `bench.openloop`.

It says "ready" once all connections are open, reads the time to start (CLOCK_MONOTONIC) from a line, sends
each request when it is due, and prints what it found as JSON. Requests are bytes on plain connections, one at
a time on each; answers need a Content-Length. That is far cheaper than an HTTP client.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import math
import os
import resource
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import BinaryIO, cast
from urllib.parse import urlsplit

import msgspec
import uvloop

from bench.histogram import Histogram
from bench.openloop import ANSWERED, REFUSED, OpenLoopResult, Plan, Slice, acknowledged_part
from bench.traffic import Phase, message_bytes, requests, schedule

TICK_S = 0.00025  # how often what is due is looked for
CONNECT_S = 10.0
CONNECTING_AT_ONCE = 64
RECONNECT_WAIT_S = 0.05


class Connection(asyncio.Protocol):
    """A connection that carries one request at a time."""

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.transport: asyncio.Transport | None = None
        self.received = b""
        self.due_s = self.sent_s = 0.0
        self.transaction_id = ""
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by isinstance
        self.generator.connections.add(self)
        self.generator.take(self)

    def send(self, due_s: float, sent_s: float) -> None:
        assert self.transport
        request, self.transaction_id = next(self.generator.requests)
        self.due_s, self.sent_s, self.busy = due_s, sent_s, True
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self.received:
            data = self.received + data
        try:
            length = message_bytes(data)
            if length is None or len(data) < length:
                self.received = data
                return
            status = int(data[9:12])
        except ValueError:
            length = status = 0  # not an answer
        assert self.transport
        self.received = b""
        if not self.busy or length != len(data):
            self.transport.abort()  # a request that was under way counts as broken
            return
        self.busy = False
        if status in REFUSED and b"\r\nretry-after: " not in data.lower():
            self.generator.unadvised += 1
        self.generator.count_answer(self, status)
        if b"\r\nconnection: close\r\n" in data[:2_000].lower():
            self.transport.abort()
        else:
            self.generator.take(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self.transport = None
        self.generator.lose(self)


class Generator:
    """Sends one share of a plan and counts what becomes of it. All times are seconds from the start."""

    def __init__(self, plan: Plan, number: int = 0) -> None:
        address = urlsplit(plan.url)
        assert address.hostname
        self.plan = plan
        self.host, self.port = address.hostname, address.port or 80
        self.wanted = plan.connections // plan.processes + (number < plan.connections % plan.processes)
        seed = f"{plan.seed} {number} of {plan.processes}"
        self.due = schedule(
            [Phase(each.rate_per_s / plan.processes, each.seconds) for each in plan.phases], seed
        )
        self.requests = requests(plan.requests, address.netloc, seed, f"{plan.run}{number}")
        self.start_s = math.inf
        self.position = 0
        self.in_flight = 0
        self.all_offered, self.all_settled = asyncio.Event(), asyncio.Event()
        self.ended = False
        self.waiting: deque[float] = deque()
        self.idle: deque[Connection] = deque()
        self.connections: set[Connection] = set()
        self.reconnects = 0
        self.reconnecting: set[asyncio.Task[None]] = set()
        self.slices = [
            Slice() for _ in range(math.ceil((plan.scheduled_s + plan.grace_s) / plan.slice_s) + 1)
        ]
        self.send_lag, self.uncorrected = Histogram(), Histogram()
        self.unadvised = 0
        part = acknowledged_part(plan, number)
        self.acknowledged: BinaryIO | None = part.open("wb", buffering=1 << 20) if part else None

    # Connections

    async def connect(self) -> None:
        """Open all connections. OSError or TimeoutError when that can't be done."""
        at_once = asyncio.Semaphore(CONNECTING_AT_ONCE)

        async def one() -> None:
            async with at_once:
                await self.open_connection()

        async with asyncio.timeout(CONNECT_S), asyncio.TaskGroup() as group:
            for _ in range(self.wanted):
                group.create_task(one())

    async def open_connection(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: Connection(self), self.host, self.port)

    async def reconnect(self) -> None:
        while not self.ended:
            await asyncio.sleep(RECONNECT_WAIT_S)
            with suppress(OSError):
                await self.open_connection()
                return

    def lose(self, connection: Connection) -> None:
        """Count what was under way as broken, and open another connection in its place."""
        self.connections.discard(connection)
        if self.ended:
            return
        if connection.busy:
            self.slice_at(connection.due_s).broken += 1
            self.settle()
        else:
            with suppress(ValueError):
                self.idle.remove(connection)
        self.reconnects += 1
        task = asyncio.get_running_loop().create_task(self.reconnect())
        self.reconnecting.add(task)
        task.add_done_callback(self.reconnecting.discard)

    def give_up_late_ones(self) -> None:
        """Close the connections whose answer is later than the timeout; each counts as broken."""
        oldest_s = monotonic() - self.start_s - self.plan.timeout_s
        for connection in list(self.connections):
            if connection.busy and connection.sent_s < oldest_s and connection.transport:
                connection.transport.abort()

    # Requests

    def slice_at(self, at_s: float) -> Slice:
        return self.slices[min(int(at_s / self.plan.slice_s), len(self.slices) - 1)]

    def offer_due(self) -> None:
        """Send, queue or drop every request that is due by now."""
        while self.position < len(self.due):
            due_s = self.due[self.position]
            now_s = monotonic() - self.start_s
            if due_s > now_s:
                return
            self.position += 1
            here = self.slice_at(due_s)
            here.offered += 1
            if self.idle:
                self.send_lag.add(int((now_s - due_s) * 1e6))
                self.send(self.idle.popleft(), due_s, now_s)
            elif len(self.waiting) < self.plan.queue:
                self.waiting.append(due_s)
            else:
                here.dropped += 1
        self.all_offered.set()
        if not self.in_flight and not self.waiting:
            self.all_settled.set()

    def take(self, connection: Connection) -> None:
        """Give a free connection the request that waited longest, or keep it for the next."""
        if self.waiting and not self.ended:
            self.send(connection, self.waiting.popleft(), monotonic() - self.start_s)
        else:
            self.idle.append(connection)

    def send(self, connection: Connection, due_s: float, now_s: float) -> None:
        self.slice_at(due_s).sent += 1
        self.in_flight += 1
        connection.send(due_s, now_s)

    def settle(self) -> None:
        """A request is answered or lost; say so once it was the last."""
        self.in_flight -= 1
        if not self.in_flight and not self.waiting and self.all_offered.is_set():
            self.all_settled.set()

    def count_answer(self, connection: Connection, status: int) -> None:
        if self.ended:
            return
        now_s = monotonic() - self.start_s
        asked = self.slice_at(connection.due_s)
        asked.statuses[status] = asked.statuses.get(status, 0) + 1
        if status in ANSWERED:
            asked.latency.add(int((now_s - connection.due_s) * 1e6))
            self.uncorrected.add(int((now_s - connection.sent_s) * 1e6))
            self.slice_at(now_s).answered_here += 1
            if self.acknowledged:
                self.acknowledged.write(f"{connection.transaction_id}\n".encode())
        elif status in REFUSED:
            self.slice_at(now_s).refused_here += 1
        self.settle()

    # The run

    async def run(self, start_s: float) -> OpenLoopResult:
        """Run the schedule from a time of CLOCK_MONOTONIC on, wait for the last answers, and count."""
        loop = asyncio.get_running_loop()
        self.start_s = start_s
        cpu_before_s = cpu_s()
        timer = timer_fd(TICK_S)

        def tick() -> None:
            os.read(timer, 8)
            self.offer_due()

        loop.add_reader(timer, tick)
        watch = loop.create_task(self.watch())
        try:
            await self.all_offered.wait()
            await asyncio.sleep(start_s + self.plan.scheduled_s - monotonic())
            used_s, elapsed_s = cpu_s() - cpu_before_s, monotonic() - start_s
            with suppress(TimeoutError):
                async with asyncio.timeout_at(loop.time() + self.plan.grace_s):
                    await self.all_settled.wait()
        finally:
            watch.cancel()
            loop.remove_reader(timer)
            os.close(timer)
            self.end()
        return OpenLoopResult(
            scheduled_s=self.plan.scheduled_s,
            slice_s=self.plan.slice_s,
            slices=self.slices,
            send_lag=self.send_lag,
            uncorrected=self.uncorrected,
            unadvised=self.unadvised,
            cpu_s=used_s,
            elapsed_s=elapsed_s,
            reconnects=self.reconnects,
        )

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(1)
            self.give_up_late_ones()

    def end(self) -> None:
        """Count what had no answer and what was never sent, and close."""
        self.ended = True
        for due_s in self.waiting:
            self.slice_at(due_s).dropped += 1
        for connection in list(self.connections):
            if connection.busy:
                self.slice_at(connection.due_s).unread += 1
            if connection.transport:
                connection.transport.abort()
        for task in self.reconnecting:
            task.cancel()
        if self.acknowledged:
            self.acknowledged.close()


def timer_fd(interval_s: float) -> int:
    """Return a descriptor that is readable each interval; an event loop's own timers know whole ms alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    timer: int = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    nanoseconds = int(interval_s * 1e9)
    spec = (ctypes.c_long * 4)(0, nanoseconds, 0, nanoseconds)  # the interval, and the first time
    if timer < 0 or libc.timerfd_settime(timer, 0, spec, None) < 0:
        raise OSError(ctypes.get_errno(), "no timer")
    return timer


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def generate(plan: Plan, number: int) -> OpenLoopResult:
    generator = Generator(plan, number)
    await generator.connect()
    gc.freeze()
    gc.disable()  # nothing here makes cycles worth a pause
    print("ready", flush=True)
    return await generator.run(float(sys.stdin.readline()))


def main() -> int:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Plan)
    result = uvloop.run(generate(plan, int(sys.argv[2])))
    sys.stdout.buffer.write(msgspec.json.encode(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
