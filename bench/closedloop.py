"""A closed loop: wrk, Debian's package, sends on each connection as soon as it has its answer.

It finds what a side can do at most. Its latencies are those of a caller who waits, so they say little of a
stall; `bench.openloop` is for latencies.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.results import Load

SCRIPT = Path(__file__).with_name("pay.lua")
END_S = 30  # that wrk may take to end


class ClosedLoopResult(msgspec.Struct, frozen=True, kw_only=True):
    """What wrk counted; `requests` are all answers, `refused` those that were not 2xx or 3xx."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    sent: int
    refused: int
    broken: int
    generator_cpu_share: float = 0.0  # of all cores, 0 to 1

    @property
    def answered(self) -> int:
        return self.requests - self.refused

    @property
    def rate_per_s(self) -> float:
        return self.answered / self.seconds

    def to_load(self, scenario: str, side: str) -> Load:
        """The row for the report. Unread is what wrk hung up on at its end."""
        return Load(
            scenario=scenario,
            side=side,
            seconds=self.seconds,
            offered=self.sent,
            sent=self.sent,
            answered=self.answered,
            refused=self.refused,
            unread=max(self.sent - self.requests - self.broken, 0),
            broken=self.broken,
            p50_ms=self.p50_ms,
            p99_ms=self.p99_ms,
            p999_ms=self.p999_ms,
            generator_cpu_share=self.generator_cpu_share,
        )


def wrk(
    url: str,
    load_lua: Path,
    loans: int,
    connections: int,
    seconds: int,
    *,
    threads: int = 1,
    script: Path = SCRIPT,
    seed: int | None = None,
) -> ClosedLoopResult:
    """Pay the first `loans` of a load file for some seconds. FileNotFoundError when there is no wrk.

    The share of the cores is that of all child processes that end meanwhile, so no other should.
    """
    program = shutil.which("wrk")
    if program is None:
        raise FileNotFoundError("wrk is needed: install Debian's package of that name")
    environ = {**os.environ, "LEDGERD_LOAD": str(load_lua), "LEDGERD_LOANS": str(loans)}
    if seed is not None:
        environ["LEDGERD_SEED"] = str(seed)
    command = [program, f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "-s", str(script), url]
    before_s = children_cpu_s()
    printed = subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, check=True, text=True, timeout=seconds + END_S
    ).stdout
    cores_s = seconds * (os.cpu_count() or 1)
    share = (children_cpu_s() - before_s) / cores_s
    line = next(line for line in printed.splitlines() if line.startswith("LEDGERD "))
    counted = msgspec.json.decode(line.removeprefix("LEDGERD "), type=ClosedLoopResult)
    return msgspec.structs.replace(counted, generator_cpu_share=share)


def children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def write_load_lua(path: Path, loans: Sequence[str], tokens: Sequence[str]) -> None:
    """Write the loans and tokens where pay.lua reads them from."""
    listed = {
        name: ",".join(f'"{text}"' for text in texts)
        for name, texts in (("loans", loans), ("tokens", tokens))
    }
    path.write_text(f"return {{loans = {{{listed['loans']}}}, tokens = {{{listed['tokens']}}}}}")
