"""One service, offered what it can hold and twice that in turn; every answer counted, and held to the ledger.

What it holds is measured, not assumed: a load far above it over as many connections as may be in flight, so
that nothing is refused. The overload comes from the same generator over four times as many, and it is
impatient: who is refused asks again at once. Meanwhile single callers come on new connections, to see how
soon one is answered who did not just ask. The generator shares the cores with the service; its share stands
with the figures.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench import openloop
from bench.book import Group, write_book
from bench.machine import memory_mb
from bench.openloop import OpenLoopResult, Plan
from bench.service import Service, keys_after, last_seq, payments_after, serving, write_config
from bench.traffic import Payments
from ledgerd.domain.commands import payment_key
from tests.process import ledgerd_here

LOANS = 1_000
IN_FLIGHT = 256
OVER = 4  # times as many connections as may be in flight
SECTIONS = {"limits": {"in_flight": IN_FLIGHT}, "server": {"connections_per_address": 2 * OVER * IN_FLIGHT}}
FAR_ABOVE_PER_S = 20_000
SLICE_S = 0.25
CALL_EVERY_S = 0.02

GOODPUT_BESIDE_OTHERS_MIN = 0.3
GOODPUT_MIN = 0.7  # of what it holds
ANSWER_P99_MS_MAX = 250.0  # of who did not just ask
MORE_MEMORY_MB_MAX = 32.0  # of either process, from the first load to the last
AGAIN = 0.7  # of what it holds is "itself again" ..
AGAIN_WITHIN_S = 3.0  # .. within so long


class Failed(AssertionError):
    """The service did not keep what is promised of an overload."""


@dataclass
class Round:
    """An overload and, right after it, what the service holds."""

    over: OpenLoopResult
    after: OpenLoopResult
    answers_ms: list[float]  # of those who did not just ask
    goodput: float  # of what it held around
    again_after_s: float
    rss_mb: tuple[float, ...]  # of both processes, at the end


@contextmanager
def ready(folder: Path) -> Iterator[Overload]:
    """Serve a new ledger in `folder`, and know what it holds."""
    config = write_config(folder, SECTIONS)
    asyncio.run(write_book(config, [Group(LOANS)], seed=1))
    with serving(folder, SECTIONS) as service:
        yield Overload(service)
    found = ledgerd_here("verify", "--config", folder / "config.toml")
    if found.code != 0:
        raise Failed(f"verify: {found.stderr}")


class Overload:
    """A service under load. Its ids are noted as they are acknowledged."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.rounds: list[Round] = []
        self.offered = 0
        self._first_seq = last_seq(service.config)
        self.acknowledged: set[str] = set()
        self._requests = Payments(loans=service.loans, tokens=service.tokens(100))
        self.held_per_s = 0.0
        self.rss_before_mb: tuple[float, ...] = ()

    def warm(self, seconds: float, seed: int) -> None:
        """Find what the service holds; memory counts from here on."""
        self._load(FAR_ABOVE_PER_S, SLICE_S * 2, IN_FLIGHT, seed)  # loans in memory, tokens known
        self.held_per_s = self._held(seconds, seed).goodput_per_s()
        self.rss_before_mb = self._rss_mb()

    def round(self, seconds: float, seed: int) -> Round:
        """Offer twice what it holds, then look at what it holds."""
        before_per_s = self.held_per_s
        with self._single_callers() as answers_ms:
            over = self._load(2 * before_per_s, seconds, OVER * IN_FLIGHT, seed)
        after = self._held(seconds, seed)
        self.held_per_s = after.goodput_per_s(after.scheduled_s / 2)
        held_per_s = (before_per_s + self.held_per_s) / 2
        last = Round(
            over,
            after,
            answers_ms,
            over.goodput_per_s() / held_per_s,
            _again_after_s(after, AGAIN * before_per_s),
            self._rss_mb(),
        )
        self.rounds.append(last)
        return last

    def check(self, *, alone: bool = True) -> None:
        """Hold all that was promised, of all rounds; raises Failed with all that is not so. A service that is
        not `alone` on the machine need not be as fast.
        """
        if found := [*self._complaints(alone)]:
            raise Failed("; ".join(found))

    def _complaints(self, alone: bool) -> Iterator[str]:
        for each in self.rounds:
            for load in (each.over, each.after):
                total = load.total
                if others := total.statuses.keys() - {201, 503}:
                    yield f"answered with {others}"
                if total.broken or total.unread:
                    yield f"{total.broken} broken, {total.unread} unread"
                if load.unadvised:
                    yield f"{load.unadvised} refusals without Retry-After"
            if not each.over.total.refused:
                yield "twice what it holds, and nothing was refused"
            if each.after.total.refused:
                yield "what it holds was refused"
            if alone and (answer_ms := p99(each.answers_ms)) > ANSWER_P99_MS_MAX:
                yield f"an answer takes {answer_ms:.0f} ms (p99)"
            if alone and each.again_after_s > AGAIN_WITHIN_S:
                yield f"itself again after {each.again_after_s:.2f} s"
            more_mb = max(now - was for now, was in zip(each.rss_mb, self.rss_before_mb, strict=True))
            if more_mb > MORE_MEMORY_MB_MAX:
                yield f"{more_mb:.0f} MB more memory"
        goodput = median(each.goodput for each in self.rounds)
        if goodput < (GOODPUT_MIN if alone else GOODPUT_BESIDE_OTHERS_MIN):
            yield f"goodput {goodput:.2f} of what it holds"
        yield from self._reckon()

    def _reckon(self) -> Iterator[str]:
        """Find each acknowledged payment in the ledger once, and nothing else."""
        config = self.service.config
        kept = keys_after(config, self._first_seq)
        known = {payment_key(self.service.book.caller, each) for each in self.acknowledged}
        if lost := known - kept:
            yield f"{len(lost)} acknowledged payments are lost"
        if more := kept - known:
            yield f"{len(more)} payments that nobody was told of"
        payments_after(config, self._first_seq)  # raises when one is there twice

    def _held(self, seconds: float, seed: int) -> OpenLoopResult:
        rate_per_s = 1.5 * self.held_per_s or FAR_ABOVE_PER_S
        return self._load(rate_per_s, seconds, IN_FLIGHT, seed)

    def _load(self, rate_per_s: float, seconds: float, connections: int, seed: int) -> OpenLoopResult:
        ids = self.service.folder / "acknowledged"
        result = openloop.run(
            Plan(
                url=self.service.url,
                rate_per_s=rate_per_s,
                seconds=seconds,
                connections=connections,
                queue=connections,
                seed=seed,
                requests=self._requests,
                slice_s=SLICE_S,
                grace_s=10,
                run=secrets.token_hex(4),
                acknowledged=str(ids),
            )
        )
        answered = ids.read_text().split()
        self.acknowledged.update(answered)
        self.offered += result.total.offered
        return result

    @contextmanager
    def _single_callers(self) -> Iterator[list[float]]:
        """Pay once on a new connection, over and over while the block runs; the list fills with ms."""
        answers_ms: list[float] = []
        ended = threading.Event()
        run, token = secrets.token_hex(4), self._requests.tokens[0]
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

        def call() -> None:
            while not ended.wait(CALL_EVERY_S):
                body = {
                    "loan_id": self._requests.loans[0],
                    "amount": "1.00",
                    "transaction_id": f"{run}-{len(answers_ms)}",
                }
                began_s = time.perf_counter()
                connection = http.client.HTTPConnection("127.0.0.1", self.service.port, timeout=30)
                connection.request("POST", "/api/make-payment/", json.dumps(body), headers)
                with connection.getresponse() as answer:
                    answer.read()
                answers_ms.append((time.perf_counter() - began_s) * 1000)
                connection.close()
                if answer.status == 201:
                    self.acknowledged.add(body["transaction_id"])

        thread = threading.Thread(target=call)
        thread.start()
        try:
            yield answers_ms
        finally:
            ended.set()
            thread.join()

    def _rss_mb(self) -> tuple[float, ...]:
        # Not the pages of the database that are read as memory: they grow with the file, and the system takes
        # them back when it needs them.
        return tuple(memory_mb(pid, "RssAnon") for pid in self.service.pids)


def _again_after_s(after: OpenLoopResult, rate_per_s: float) -> float:
    """Return the start of the first slice from which on a second's goodput is `rate_per_s` or more."""
    start_s = 0.0
    while start_s + 1 <= after.scheduled_s:
        if after.goodput_per_s(start_s, start_s + 1) >= rate_per_s:
            return start_s
        start_s += after.slice_s
    return float("inf")


def p99(values: list[float]) -> float:
    """Return the value that one in a hundred exceeds."""
    return sorted(values)[len(values) * 99 // 100]
