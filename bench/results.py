"""The shapes of what the benchmarks find: made by the scenarios, written and drawn by `bench.report`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

Verdict = Literal["aim", "must", "missed", "measured"]


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure with the limits it is held against.

    `rounds` holds one value a round, each from the two sides of that round; a figure that is taken once has
    one. `must` and `aim` are in the same unit, or None where nothing is asked.
    """

    scenario: str  # "B1"
    what: str  # "wide, 64 connections, over bare"
    unit: str  # "x", "ms", "s", "bytes", "1/s", "MB"
    rounds: list[float]
    must: float | None = None
    aim: float | None = None
    more_is_better: bool = True

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def verdict(self) -> Verdict:
        """Say which limit the median reaches; "measured" when there is none."""
        if self.must is None:
            return "measured"
        for name, limit in (("aim", self.aim), ("must", self.must)):
            if limit is not None and (self.median >= limit if self.more_is_better else self.median <= limit):
                return "aim" if name == "aim" else "must"
        return "missed"


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One load on one side: what was asked for and what became of it. Rates are per second.

    A closed loop offers what it sends. `dropped` is what an open loop wanted to send and could not, `unread`
    what was sent and had no answer by the end; `broken` are resets and timeouts.
    """

    scenario: str
    side: str  # "wide", "bare", "django", ..
    seconds: float
    offered: int
    sent: int
    answered: int
    refused: int = 0
    dropped: int = 0
    unread: int = 0
    broken: int = 0
    p50_ms: float | None = None
    p99_ms: float | None = None
    p999_ms: float | None = None
    generator_cpu_share: float | None = None  # of all cores, 0..1

    @property
    def rate(self) -> float:
        return self.answered / self.seconds


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a plot: `plot` names the picture ("rate-over-connections"), `name` the line."""

    plot: str
    name: str
    points: list[tuple[float, float]]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """What the checker found after a load: what was acknowledged is in the ledger once, and verify passes."""

    scenario: str
    acknowledged: int
    in_ledger: int
    verify_ok: bool

    @property
    def ok(self) -> bool:
        return self.verify_ok and self.acknowledged == self.in_ledger


class Findings(msgspec.Struct, kw_only=True):
    """All that one scenario found; `notes` are lines for the report (settings, sweeps, what was left out)."""

    scenario: str
    title: str
    measures: list[Measure] = msgspec.field(default_factory=list)
    loads: list[Load] = msgspec.field(default_factory=list)
    series: list[Series] = msgspec.field(default_factory=list)
    checks: list[Check] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)
    seconds: float = 0.0


class Report(msgspec.Struct, kw_only=True):
    """A whole run: the machine, its disk, the versions, and every scenario's findings."""

    started_at: str
    seconds: float
    quick: bool
    machine: Mapping[str, str]  # "cpu", "cores", "memory", "kernel", "fsync p50", "fsync p99", "python", ..
    findings: Sequence[Findings]
