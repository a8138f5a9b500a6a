"""Every metric, defined here alone; docs/metrics.md lists them.

Hot paths count in plain numbers, since a payment can't afford what a Counter or a Histogram of
prometheus-client costs each time; they become metrics when somebody looks. Metrics live in a `Metrics` with a
registry of its own, built once and handed around.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise, takewhile
from operator import sub
from typing import Any, Final, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

C = TypeVar("C", bound=Collector)

METRICS_CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

LATENCY_BUCKETS_S: Final = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0),
)
PHASE_BUCKETS_S: Final = (
    *(0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005),
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)
BATCH_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2000)

PAYMENT_ROUTE: Final = "/api/make-payment/"  # the one route whose requests are shown by phase
PHASES: Final = ("auth", "parse", "mailbox", "decide", "commit", "respond")
FOLD_TRACES: Final = 512  # traces that are folded together: the more, the less each costs


class Trace:
    """When a payment came to the end of each phase, by time.perf_counter; 0 as long as it has not.

    `received_s` stays 0 when it was decided at once, without waiting in the mailbox.
    """

    __slots__ = ("authenticated_s", "decided_s", "durable_s", "parsed_s", "received_s", "started_s")

    def __init__(self, started_s: float) -> None:
        self.started_s = started_s
        self.authenticated_s = self.parsed_s = self.received_s = self.decided_s = self.durable_s = 0.0

    def received(self) -> None:
        """It waited in the mailbox until now. What is decided again was received before."""
        if not self.decided_s:
            self.received_s = time.perf_counter()

    def decided(self) -> None:
        """It was decided, for the first time: deciding it again belongs to the commit."""
        if not self.decided_s:
            self.decided_s = time.perf_counter()


UNTRACED: Final = Trace(0.0)  # of every message that nobody times
UNTRACED.decided_s = 1.0


class Tally(Collector):
    """A counter in plain integers: add to `counts`, by the label's value, or by a tuple when there are more
    labels. Values come from a bounded set; one never counted has no sample.
    """

    def __init__(self, name: str, help_text: str, *labels: str) -> None:
        self._name, self._help, self._labels = name, help_text, labels
        self.counts: defaultdict[Any, int] = defaultdict(int)

    def collect(self) -> Iterator[Metric]:
        """Yield what was counted."""
        family = CounterMetricFamily(self._name, self._help, labels=self._labels)
        for values, count in self.counts.items():
            family.add_metric([*map(str, values)] if isinstance(values, tuple) else [values], count)
        yield family


class Distribution:
    """How many values fell into each bucket (its bound included, one more for what is above), and their
    sum.
    """

    __slots__ = ("_bounds", "_in_bucket", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._in_bucket = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._in_bucket[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def observe_all(self, values: list[float]) -> None:
        """Count many values, which get sorted: cheaper than one by one."""
        values.sort()
        self._sum += sum(values)
        below = 0
        for bucket, bound in enumerate(self._bounds):
            through = bisect_right(values, bound, below)
            self._in_bucket[bucket] += through - below
            below = through
        self._in_bucket[-1] += len(values) - below

    @property
    def in_bucket(self) -> tuple[int, ...]:
        """How many fell into each bucket so far."""
        return tuple(self._in_bucket)

    @property
    def total(self) -> float:
        """Their sum."""
        return self._sum

    def add_to(self, family: HistogramMetricFamily, labels: list[str]) -> None:
        """Add it to its family."""
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        family.add_metric(labels, list(zip(bounds, accumulate(self._in_bucket), strict=True)), self._sum)


class Distributions(Collector):
    """A histogram, with a distribution for each value of its label, or one and no label."""

    def __init__(
        self, name: str, help_text: str, bounds: tuple[float, ...], label: str | None = None
    ) -> None:
        self._name, self._help, self._bounds, self._label = name, help_text, bounds, label
        self._by_value: dict[str, Distribution] = {}

    def of(self, value: str = "") -> Distribution:
        """Return the distribution of a label's value, a new one when there is none yet."""
        distribution = self._by_value.get(value)
        if distribution is None:
            distribution = self._by_value[value] = Distribution(self._bounds)
        return distribution

    def collect(self) -> Iterator[Metric]:
        """Yield what was counted."""
        labels = [] if self._label is None else [self._label]
        family = HistogramMetricFamily(self._name, self._help, labels=labels)
        for value, distribution in self._by_value.items():
            distribution.add_to(family, [value] if labels else [])
        yield family


class Phases:
    """What payments took, as a whole and by phase. Traces are gathered in one flat list of stamps, and folded
    into the distributions many at a time.
    """

    def __init__(self, whole: Distribution, by_phase: Distributions) -> None:
        self._whole = whole
        self._phases = [by_phase.of(phase) for phase in PHASES]
        self._stamps: list[float] = []

    def observe(self, trace: Trace, ended_s: float) -> None:
        """Take a payment that was answered at `ended_s`. One that was refused on its way was in its last
        phase until then.
        """
        if not trace.durable_s:
            return self._observe_cut_off(trace, ended_s)
        parsed_s, decided_s, durable_s = trace.parsed_s, trace.decided_s, trace.durable_s
        stamps = self._stamps
        stamps += (
            trace.started_s,
            trace.authenticated_s,
            parsed_s,
            trace.received_s or parsed_s,
            decided_s,
            durable_s if durable_s > decided_s else decided_s,  # noqa: FURB136 - a call costs ten times that
            ended_s,
        )
        if len(stamps) >= FOLD_TRACES * (len(PHASES) + 1):
            self.fold()
        return None

    def _observe_cut_off(self, trace: Trace, ended_s: float) -> None:
        received_s = trace.received_s or (trace.decided_s and trace.parsed_s)
        reached = (trace.started_s, trace.authenticated_s, trace.parsed_s, received_s, trace.decided_s)
        stamps = [*takewhile(bool, reached), ended_s]
        self._whole.observe(ended_s - trace.started_s)
        for phase, (began_s, done_s) in zip(self._phases, pairwise(stamps), strict=False):
            phase.observe(done_s - began_s)

    def fold(self) -> None:
        """Count what was gathered."""
        stamps, self._stamps = self._stamps, []
        columns = [stamps[place :: len(PHASES) + 1] for place in range(len(PHASES) + 1)]
        self._whole.observe_all(list(map(sub, columns[-1], columns[0])))
        for phase, (began_s, done_s) in zip(self._phases, pairwise(columns), strict=True):
            phase.observe_all(list(map(sub, done_s, began_s)))


@dataclass(frozen=True, slots=True)
class Counted:
    """What was counted up to a moment, for whoever compares two of them: payments by outcome, requests of
    single payments and commits by LATENCY_BUCKETS_S, and decisions in all commits together.
    """

    payments: dict[str, int]
    requests_in_bucket: tuple[int, ...]
    commits_in_bucket: tuple[int, ...]
    entries: int


class Metrics:
    """Every metric of the service. Hot paths call the methods, the rest uses the attributes; who serves
    /metrics sets the gauges before.
    """

    now_s = staticmethod(time.perf_counter)  # what all durations are taken with

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._define_requests()
        self._define_loans()
        self._define_journal()
        self._define_billing()

    def _define_requests(self) -> None:
        self._requests = self._register(
            Tally("ledgerd_requests", "HTTP requests answered.", "route", "status")
        )
        self._request_seconds = self._register(
            Distributions(
                "ledgerd_request_seconds",
                "Time from a request's head to its answer.",
                LATENCY_BUCKETS_S,
                "route",
            )
        )
        by_phase = self._register(
            Distributions(
                "ledgerd_payment_phase_seconds",
                "Time of a single payment's request by phase; all phases together are its request_seconds."
                " auth: request id and token. parse: the body and its checks. mailbox: until its turn, also"
                " while the loan is read. decide: the rules. commit: until all it was decided on is on disk."
                " respond: until the answer is written. One refused on its way ends in the phase it was in.",
                PHASE_BUCKETS_S,
                "phase",
            )
        )
        self._phases = Phases(self._request_seconds.of(PAYMENT_ROUTE), by_phase)
        self.payments = self._register(
            Tally(
                "ledgerd_payments",
                "Payments that reached the loans, by outcome: applied, replayed, the code of a refusal,"
                " overloaded, unknown.",
                "outcome",
            )
        )

    def _define_loans(self) -> None:
        self.in_flight = self._gauge("ledgerd_in_flight", "Messages that wait at all loans.")
        self.mailbox_deepest = self._gauge(
            "ledgerd_mailbox_deepest", "Messages that wait at the loan with the most of them."
        )
        self.resident_loans = self._gauge("ledgerd_resident_loans", "Loans held in memory.")
        self.activations_total = self._counter("ledgerd_activations", "Loans read into memory.")
        self.passivations = self._register(
            Tally(
                "ledgerd_passivations",
                "Loans let go from memory. idle: nobody asked for them. room: another needed the place."
                " done: of a billing run, not there, or unreadable.",
                "reason",
            )
        )
        self.overloaded = self._register(
            Tally("ledgerd_overloaded", "Messages refused because a limit was reached.", "limit")
        )
        self.fallbacks_total = self._counter(
            "ledgerd_fallbacks",
            "Times a loan went back to an earlier state because the journal knew a transaction_id.",
        )

    def _define_journal(self) -> None:
        self.journal_head_seq = self._gauge("ledgerd_journal_head_seq", "Number of the last event on disk.")
        self.projected_seq = self._gauge(
            "ledgerd_projected_seq", "Number of the last event that the tables show."
        )
        self.projection_lag_events = self._gauge(
            "ledgerd_projection_lag_events", "Events on disk that the tables don't show yet."
        )
        self.writer_queue_entries = self._gauge(
            "ledgerd_writer_queue_entries", "Decisions that wait for a batch to go with."
        )
        self.writer_in_flight_entries = self._gauge(
            "ledgerd_writer_in_flight_entries", "Decisions in the batches on their way to disk."
        )
        self.commits_total = self._counter("ledgerd_commits", "Journal commits.")
        self.committed_events_total = self._counter("ledgerd_committed_events", "Events made durable.")
        self._commit_seconds = self._register(
            Distributions(
                "ledgerd_commit_seconds", "Time of a journal commit, its sync included.", LATENCY_BUCKETS_S
            )
        ).of()
        self._batch_entries = self._register(
            Distributions("ledgerd_batch_entries", "Decisions in a journal commit.", BATCH_BUCKETS)
        ).of()
        files = ("journal", "tables")
        database_bytes = self._gauge("ledgerd_database_bytes", "Size of a database file.", "file")
        wal_bytes = self._gauge("ledgerd_wal_bytes", "Size of a database's write-ahead log.", "file")
        self.database_bytes = {file: database_bytes.labels(file) for file in files}
        self.wal_bytes = {file: wal_bytes.labels(file) for file in files}
        self.disk_free_bytes = self._gauge("ledgerd_disk_free_bytes", "Room on the database's disk.")
        self.disk_reserve_bytes = self._gauge(
            "ledgerd_disk_reserve_bytes", "Room that is kept free: with less, what writes is refused."
        )
        self.storage_full = self._gauge(
            "ledgerd_storage_full", "1 while there is less room than the reserve, else 0."
        )

    def _define_billing(self) -> None:
        self.billing_bills_total = self._counter("ledgerd_billing_bills", "Bills issued by billing runs.")
        self.billing_running = self._gauge(
            "ledgerd_billing_running", "1 while a billing run goes on, else 0."
        )
        loans = self._gauge(
            "ledgerd_billing_run_loans",
            "Loans of the billing run that goes on, or of the last one since the start: due, billed, failed.",
            "state",
        )
        self.billing_run_loans = {state: loans.labels(state) for state in ("due", "billed", "failed")}

    def _register(self, collector: C) -> C:
        self.registry.register(collector)
        return collector

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(name, help_text, labels, registry=self.registry)

    def _counter(self, name: str, help_text: str) -> Counter:
        return Counter(name, help_text, registry=self.registry)

    def watch_store(self, pid: Callable[[], int]) -> None:
        """Show memory and time of the store process, too."""
        ProcessCollector("ledgerd_store", pid, registry=self.registry)

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request; `route` is the pattern of the path, never the path itself."""
        self._requests.counts[route, status] += 1
        self._request_seconds.of(route).observe(seconds)

    def observe_payment(self, status: int, trace: Trace, ended_s: float) -> None:
        """Count the request of a single payment, which was answered at `ended_s`, with all its phases."""
        self._requests.counts[PAYMENT_ROUTE, status] += 1
        self._phases.observe(trace, ended_s)

    def observe_commit(self, started_s: float, entries: int) -> float:
        """Count a commit of so many entries that began at `started_s`, and return when it was heard of."""
        heard_s = self.now_s()
        self.commits_total.inc()
        self._commit_seconds.observe(heard_s - started_s)
        self._batch_entries.observe(entries)
        return heard_s

    def counted(self) -> Counted:
        """Return what was counted up to now."""
        self._phases.fold()
        return Counted(
            payments=dict(self.payments.counts),
            requests_in_bucket=self._request_seconds.of(PAYMENT_ROUTE).in_bucket,
            commits_in_bucket=self._commit_seconds.in_bucket,
            entries=int(self._batch_entries.total),
        )

    def render(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        self._phases.fold()
        return generate_latest(self.registry)
