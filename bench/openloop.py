"""An open loop: requests are sent when they are due, whether or not the service keeps up.

A latency counts from the time that the request was due, so a service that stalls can't slow down those who
ask (coordinated omission). When all connections are busy a request waits here, its latency going on; past
`queue` waiting ones it is dropped, and counted. `python -m bench.openloop --self-test` shows that a stall is
seen, and how much can be offered without falling behind.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

import msgspec

from bench.histogram import Histogram, merged
from bench.results import Load
from bench.traffic import Gets, Payments, Phase

ROOT = Path(__file__).parent.parent
ANSWERED = (200, 201)
REFUSED = (429, 503)
LAG_P99_MS_MAX = 5.0  # a generator that sends later than this has fallen behind its schedule


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A load: `rate_per_s` for `seconds`, `then` other phases, over connections that stay open.

    `acknowledged` names a file for the transaction ids that were answered, one a line. `slice_s` is how fine
    the figures over time are; phases last a multiple of it. `grace_s` is how long answers are awaited after
    the last request was due; `timeout_s` how long at all, past it the connection is given up.
    """

    url: str  # "http://127.0.0.1:8080"
    rate_per_s: float
    seconds: float
    connections: int
    seed: int
    requests: Payments | Gets
    then: list[Phase] = []
    processes: int = 1
    queue: int = 10_000
    timeout_s: float = 30.0
    grace_s: float = 5.0
    slice_s: float = 1.0
    acknowledged: str | None = None
    run: str = ""  # made up when empty

    @property
    def phases(self) -> list[Phase]:
        return [Phase(self.rate_per_s, self.seconds), *self.then]

    @property
    def scheduled_s(self) -> float:
        return sum(phase.seconds for phase in self.phases)


class Slice(msgspec.Struct):
    """What became of the requests that were due in one slice of time, or in several when merged.

    offered = sent + dropped, and sent = all statuses + unread + broken. The two `.._here` go by the time of
    the answer instead: what the service got done in this slice, whenever it was due.
    """

    offered: int = 0
    sent: int = 0
    dropped: int = 0
    unread: int = 0
    broken: int = 0
    statuses: dict[int, int] = {}
    latency: Histogram = msgspec.field(default_factory=Histogram)  # of those answered with 200 or 201
    answered_here: int = 0
    refused_here: int = 0

    @property
    def answered(self) -> int:
        return sum(self.statuses.get(status, 0) for status in ANSWERED)

    @property
    def refused(self) -> int:
        return sum(self.statuses.get(status, 0) for status in REFUSED)

    @property
    def other(self) -> int:
        """Answers that neither say done nor ask to come back later: a mistake in the load, or a fault."""
        return sum(self.statuses.values()) - self.answered - self.refused


class OpenLoopResult(msgspec.Struct, kw_only=True, dict=True):
    """What came of a plan. `slices` run on past the schedule, through the grace."""

    scheduled_s: float
    slice_s: float
    slices: list[Slice]
    send_lag: Histogram  # from due to sent, where a connection was free: the generator's own delay
    uncorrected: Histogram  # from sent to answered: what a closed loop would say
    unadvised: int = 0  # refusals that don't say when to come again
    cpu_s: float  # of the generator, until all was offered
    elapsed_s: float  # until then
    reconnects: int

    @cached_property
    def total(self) -> Slice:
        return merge_slices(self.slices)

    def part(self, start_s: float, end_s: float) -> Slice:
        """What became of the requests that were due between two times."""
        return merge_slices(self.slices[round(start_s / self.slice_s) : round(end_s / self.slice_s)])

    def goodput_per_s(self, start_s: float = 0.0, end_s: float | None = None) -> float:
        """Answers (200, 201) a second that arrived between two times; by default within the schedule."""
        end_s = self.scheduled_s if end_s is None else end_s
        return self.part(start_s, end_s).answered_here / (end_s - start_s)

    @property
    def generator_cpu_share(self) -> float:
        """Of all cores, 0 to 1."""
        return self.cpu_s / self.elapsed_s / (os.cpu_count() or 1)

    def to_load(self, scenario: str, side: str, start_s: float = 0.0, end_s: float | None = None) -> Load:
        """The row for the report: all of it, or the requests that were due between two times.

        Other statuses stand among the refused. Answers to what was due in time count although they may
        come in the grace; `goodput_per_s` leaves those out.
        """
        end_s = self.scheduled_s if end_s is None else end_s
        some = self.part(start_s, end_s)
        return Load(
            scenario=scenario,
            side=side,
            seconds=end_s - start_s,
            offered=some.offered,
            sent=some.sent,
            answered=some.answered,
            refused=some.refused + some.other,
            dropped=some.dropped,
            unread=some.unread,
            broken=some.broken,
            p50_ms=some.latency.percentile_ms(50) if some.answered else None,
            p99_ms=some.latency.percentile_ms(99) if some.answered else None,
            p999_ms=some.latency.percentile_ms(99.9) if some.answered else None,
            generator_cpu_share=self.generator_cpu_share,
        )


def merge_slices(slices: Sequence[Slice]) -> Slice:
    """Return the sum of slices, their latencies merged."""
    whole = Slice(latency=merged(each.latency for each in slices))
    for each in slices:
        for name in ("offered", "sent", "dropped", "unread", "broken", "answered_here", "refused_here"):
            setattr(whole, name, getattr(whole, name) + getattr(each, name))
        for status, count in each.statuses.items():
            whole.statuses[status] = whole.statuses.get(status, 0) + count
    return whole


def run(plan: Plan) -> OpenLoopResult:
    """Run a plan in processes of its own, and return when all is answered or given up.

    RuntimeError when a generator could not connect or failed.
    """
    for phase in plan.phases:
        if abs(phase.seconds / plan.slice_s - round(phase.seconds / plan.slice_s)) > 1e-6:
            raise ValueError(f"a phase of {phase.seconds} s is no multiple of {plan.slice_s} s")
    plan = msgspec.structs.replace(plan, run=plan.run or secrets.token_hex(4))
    with tempfile.TemporaryDirectory(prefix="ledgerd-load-") as folder:
        plan_file = Path(folder, "plan.json")
        plan_file.write_bytes(msgspec.json.encode(plan))
        command = [sys.executable, "-m", "bench.generator", str(plan_file)]
        children = [
            subprocess.Popen([*command, str(number)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for number in range(plan.processes)
        ]
        try:
            shares = together(children, plan)
        finally:
            for child in children:
                child.kill()
                child.communicate()
        join_acknowledged(plan)
    return merge_results(shares)


def together(children: Sequence[subprocess.Popen[bytes]], plan: Plan) -> list[OpenLoopResult]:
    """Let all generators connect, start them at one time, and collect what they found."""
    for child in children:
        assert child.stdout
        if child.stdout.readline() != b"ready\n":
            raise RuntimeError(f"a load generator could not start on {plan.url}; its error stands above")
    start = f"{time.monotonic() + 0.05}\n".encode()
    for child in children:
        assert child.stdin
        child.stdin.write(start)
        child.stdin.flush()
    timeout_s = plan.scheduled_s + plan.grace_s + 60
    printed = [child.communicate(timeout=timeout_s)[0] for child in children]
    if any(child.returncode for child in children):
        raise RuntimeError("a load generator failed; its error stands above")
    return [msgspec.json.decode(each, type=OpenLoopResult) for each in printed]


def merge_results(shares: Sequence[OpenLoopResult]) -> OpenLoopResult:
    return OpenLoopResult(
        scheduled_s=shares[0].scheduled_s,
        slice_s=shares[0].slice_s,
        slices=[merge_slices(column) for column in zip(*(each.slices for each in shares), strict=True)],
        send_lag=merged(each.send_lag for each in shares),
        uncorrected=merged(each.uncorrected for each in shares),
        unadvised=sum(each.unadvised for each in shares),
        cpu_s=sum(each.cpu_s for each in shares),
        elapsed_s=max(each.elapsed_s for each in shares),
        reconnects=sum(each.reconnects for each in shares),
    )


def acknowledged_part(plan: Plan, number: int) -> Path | None:
    """The file that one generator writes what was acknowledged to it into."""
    return Path(f"{plan.acknowledged}.{number}") if plan.acknowledged else None


def join_acknowledged(plan: Plan) -> None:
    """Make one file of the generators' files."""
    if plan.acknowledged:
        with Path(plan.acknowledged).open("wb") as whole:
            for number in range(plan.processes):
                part = Path(f"{plan.acknowledged}.{number}")
                whole.write(part.read_bytes())
                part.unlink()


# The proof of the generator -----------------------------------------------------------------------


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """How far a generator kept to its schedule, against a server that does nothing."""

    rate_per_s: float
    offered_per_s: float
    answered_per_s: float
    send_lag_p99_ms: float
    generator_cpu_share: float
    ok: bool


def prove(rate_per_s: float, *, seconds: float = 3.0, connections: int = 64, processes: int = 1) -> Proof:
    """Offer a rate to the cheapest server there is, and say whether the schedule was kept."""
    with trivial_server() as url:
        result = run(
            Plan(
                url=url,
                rate_per_s=rate_per_s,
                seconds=seconds,
                connections=connections,
                seed=1,
                requests=SOME_PAYMENTS,
                processes=processes,
            )
        )
    lag_ms = result.send_lag.percentile_ms(99)
    total = result.total
    return Proof(
        rate_per_s=rate_per_s,
        offered_per_s=total.offered / seconds,
        answered_per_s=result.goodput_per_s(),
        send_lag_p99_ms=lag_ms,
        generator_cpu_share=result.generator_cpu_share,
        ok=lag_ms <= LAG_P99_MS_MAX and total.answered == total.offered,
    )


def see_stall(stall_s: float = 1.0) -> OpenLoopResult:
    """Load a server that stalls once in the middle, over so few connections that a closed loop misses it."""
    rate_per_s, seconds = 1_000, 5.0
    with trivial_server("--stall-after", str(rate_per_s * 2), "--stall-s", str(stall_s)) as url:
        return run(
            Plan(
                url=url,
                rate_per_s=rate_per_s,
                seconds=seconds,
                connections=2,
                seed=1,
                requests=SOME_PAYMENTS,
            )
        )


@contextmanager
def trivial_server(*arguments: str) -> Iterator[str]:
    """Run `bench.trivial` on a free port and yield its URL."""
    command = [sys.executable, "-m", "bench.trivial", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.terminate()
            with suppress(subprocess.TimeoutExpired):
                server.wait(5)
            server.kill()


SOME_PAYMENTS = Payments(
    loans=[f"{number:016x}" for number in range(10_000)],
    tokens=[f"{number:0400x}" for number in range(1_000)],  # about as long as real ones
    skew="zipf:1.0",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.openloop")
    parser.add_argument("--self-test", action="store_true", required=True)
    parser.add_argument("--rate", type=float, default=20_000, help="requests a second to prove")
    parser.add_argument("--processes", type=int, default=1)
    options = parser.parse_args()
    stalled = see_stall()
    latency, closed = stalled.total.latency, stalled.uncorrected
    seen = latency.percentile_ms(99.9) >= 900 and latency.max_us >= 900_000
    print(
        f"a stall of 1 s: p99 {latency.percentile_ms(99):.0f} ms, p99.9 {latency.percentile_ms(99.9):.0f} ms,"
        f" max {latency.max_us / 1000:.0f} ms; a closed loop would say p99.9"
        f" {closed.percentile_ms(99.9):.1f} ms: {'seen' if seen else 'NOT SEEN'}"
    )
    proof = prove(options.rate, processes=options.processes)
    print(
        f"{proof.rate_per_s:,.0f}/s asked for: {proof.offered_per_s:,.0f}/s offered,"
        f" {proof.answered_per_s:,.0f}/s answered, sent late by p99 {proof.send_lag_p99_ms:.2f} ms,"
        f" {proof.generator_cpu_share:.0%} of all cores: {'kept' if proof.ok else 'NOT KEPT'}"
    )
    return 0 if seen and proof.ok else 1


if __name__ == "__main__":
    raise SystemExit(main())
