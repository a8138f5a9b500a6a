"""What the service does at this moment, for those who run it: samples every two seconds, kept for a quarter
of an hour, and the difference of two of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from operator import sub
from typing import Any, Final

from ledgerd.http.console.visit import Answer, Page, Visit
from ledgerd.http.operations import hear_how_far_tables_are
from ledgerd.http.services import Services
from ledgerd.metrics import LATENCY_BUCKETS_S, Counted
from ledgerd.observe import log

EVERY_S: Final = 2.0
KEPT: Final = 450
OVER: Final = 5  # samples that a rate is taken over: ten seconds


@dataclass(frozen=True, slots=True)
class Sample:
    """One look. `at_s` is real time, seconds since the epoch; the rest as the metrics of these names."""

    at_s: float
    counted: Counted
    in_flight: int
    mailbox_deepest: int
    resident_loans: int
    lag_events: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What happened between two looks. Times are None where nothing was timed."""

    at_s: float
    payments_per_s: float
    refused_per_s: float
    request_p50_s: float | None
    request_p99_s: float | None
    commit_p99_s: float | None
    commits_per_s: float
    entries_per_commit: float | None
    in_flight: int
    mailbox_deepest: int
    resident_loans: int
    lag_events: int


class Live:
    """The samples of one service, oldest first."""

    def __init__(self) -> None:
        self.samples: deque[Sample] = deque(maxlen=KEPT)

    def look(self, services: Services) -> None:
        """Take a sample now."""
        registry = services.registry
        self.samples.append(
            Sample(
                at_s=services.clock.now_ms() / 1000,
                counted=services.metrics.counted(),
                in_flight=registry.in_flight,
                mailbox_deepest=registry.deepest,
                resident_loans=registry.resident,
                lag_events=registry.committer.lag_events,
            )
        )

    def figures(self) -> list[Figures]:
        """Return what each sample says, against that of ten seconds before it; oldest first."""
        samples = list(self.samples)
        return [
            between(samples[max(0, place - OVER)], sample)
            for place, sample in enumerate(samples)
            if place > 0
        ]

    async def sample_for_ever(self, services: Services) -> None:
        """Look every two seconds. A store that stalls spoils no look."""
        while True:
            try:
                await hear_how_far_tables_are(services)
                self.look(services)
            except Exception as error:  # noqa: BLE001 - a bug, but the next look may do
                log.error("a look at the service failed", exc_info=error)
            await asyncio.sleep(EVERY_S)

    async def sampling(self, services: Services) -> AsyncIterator[None]:
        """Sample for as long as the application lives: for `cleanup_ctx`."""
        sampler = asyncio.get_running_loop().create_task(self.sample_for_ever(services))
        yield
        sampler.cancel()
        await asyncio.gather(sampler, return_exceptions=True)


def between(before: Sample, after: Sample) -> Figures:
    """Return what happened between two samples. A clock that was set back counts as a moment."""
    seconds = max(after.at_s - before.at_s, 0.001)
    then, now = before.counted, after.counted
    applied = _more(then.payments, now.payments, "applied") + _more(then.payments, now.payments, "replayed")
    everything = sum(now.payments.values()) - sum(then.payments.values())
    requests = _difference(then.requests_in_bucket, now.requests_in_bucket)
    commits = _difference(then.commits_in_bucket, now.commits_in_bucket)
    count = sum(commits)
    return Figures(
        at_s=after.at_s,
        payments_per_s=applied / seconds,
        refused_per_s=(everything - applied) / seconds,
        request_p50_s=quantile(requests, 0.5),
        request_p99_s=quantile(requests, 0.99),
        commit_p99_s=quantile(commits, 0.99),
        commits_per_s=count / seconds,
        entries_per_commit=(now.entries - then.entries) / count if count else None,
        in_flight=after.in_flight,
        mailbox_deepest=after.mailbox_deepest,
        resident_loans=after.resident_loans,
        lag_events=after.lag_events,
    )


def quantile(in_bucket: tuple[int, ...], share: float) -> float | None:
    """Return the bound that `share` of the values stay within, between its bucket's bounds by how far into
    the bucket it lies; None when there are no values. Above the last bound it is that bound.
    """
    left = share * sum(in_bucket)
    if not left:
        return None
    below_s = 0.0
    for bound_s, count in zip(LATENCY_BUCKETS_S, in_bucket, strict=False):
        if left <= count:
            return below_s + (bound_s - below_s) * left / count
        left -= count
        below_s = bound_s
    return below_s


def _more(then: dict[str, int], now: dict[str, int], outcome: str) -> int:
    return now.get(outcome, 0) - then.get(outcome, 0)


def _difference(then: tuple[int, ...], now: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(map(sub, now, then))


# Pages -------------------------------------------------------------------------------------------


async def show_live(visit: Visit) -> Answer:
    """GET /console/live/"""
    return Page("live.html", await _values(visit))


async def show_figures(visit: Visit) -> Answer:
    """GET /console/live/figures/, the part of the page that is fetched again and again."""
    return Page("live_figures.html", await _values(visit))


async def _values(visit: Visit) -> dict[str, Any]:
    services = visit.services
    figures = visit.parts.live.figures()
    room = services.registry.room
    return {
        "now": figures[-1] if figures else None,
        "ready": services.ready and not services.draining,
        "room_mib": None if room.free_bytes is None else room.free_bytes >> 20,
        "is_short": room.is_short,
        "pictures": [
            _plot(figures, "per second", Payments="payments_per_s", Refused="refused_per_s"),
            _plot(figures, "ms", p50="request_p50_s", p99="request_p99_s"),
        ],
    }


def _plot(figures: list[Figures], unit: str, **series: str) -> dict[str, Any]:
    """Return what console.js draws: by label, an attribute of Figures; seconds in milliseconds."""
    return {
        "x": [round(each.at_s) for each in figures],
        "times": True,
        "unit": unit,
        "series": [
            {"label": label, "kind": "line", "values": [_shown(each, name) for each in figures]}
            for label, name in series.items()
        ],
    }


def _shown(figures: Figures, name: str) -> float | None:
    value: float | None = getattr(figures, name)
    if value is None:
        return None
    return round(value, 1) if name.endswith("_per_s") else round(value * 1000, 2)
