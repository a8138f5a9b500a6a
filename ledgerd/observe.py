"""What operators see: one log line for each thing that happened, and every metric, defined here alone.

Log lines go to stderr, as JSON or for people. Whatever looks like an Aadhaar number is masked on its way out.
Metrics live in a `Metrics` with a registry of its own, built once and handed around.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import accumulate
from typing import Any, Final, Literal, TextIO, cast

import msgspec
import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString
from structlog.typing import EventDict, Processor, WrappedLogger

METRICS_CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
ACCESS_GATHER_S: Final = 0.1

_MASK: Final = "XXXX XXXX XXXX"
# Ids of ours (16 or 32 hexadecimal digits) may hold twelve digits in a row: they match first, and stay.
# Between groups of four may stand what people put there, but no colon or comma: times and lists have those.
_ID_OR_AADHAAR: Final = re.compile(
    r"\b[0-9a-f]{16}(?:[0-9a-f]{16})?\b|([2-9]\d{3}[\s._-]{0,3}\d{4}[\s._-]{0,3}\d{4})"
)
_LATENCY_BUCKETS_S: Final = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0),
)

log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger("ledgerd")


class Sink:
    """A stream for the log. What can't be written (a full disk, a pipe that nobody reads) is lost; whoever
    logs goes on.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write, and see that it has left."""
        with suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()

    def flush(self) -> None:
        """Do nothing: `write` did."""


class AccessLog:
    """Writes one line for each request, past structlog: a request can't afford what a line costs there.

    Lines are gathered for a moment and written together; `flush` before the end.
    """

    def __init__(self, stream: TextIO | None, *, pretty: bool = False) -> None:
        """Write to `stream`, or nothing when it is None."""
        self._stream = None if stream is None else Sink(stream)
        self._pretty = pretty
        self._second = 0
        self._timestamp = ""
        self._lines: list[str] = []

    def write(
        self,
        method: str,
        route: str,
        status: int,
        duration_s: float,
        request_id: str,
        loan_id: str | None = None,
        *,
        id_is_ours: bool = False,
    ) -> None:
        """Write the line; `route` is the pattern of the path, never the path itself. An id that the caller
        sent is masked.
        """
        if self._stream is None:
            return
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._timestamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))
        duration_ms = f"{duration_s * 1000:.2f}"
        if not id_is_ours:
            request_id = _masked(request_id)
        if self._pretty:
            loan = f" loan {loan_id}" if loan_id else ""
            text = f"{self._timestamp} {method} {route} {status} {duration_ms} ms {request_id}{loan}"
        else:
            # Put together by hand: every part is ours, or of an alphabet that JSON needs no escape for.
            loan = f',"loan_id":"{loan_id}"' if loan_id else ""
            text = (
                f'{{"method":"{method}","route":"{route}","status":{status},"duration_ms":{duration_ms},'
                f'"request_id":"{request_id}","timestamp":"{self._timestamp}",'
                f'"event":"request","level":"info"{loan}}}'
            )
        self._lines.append(text)
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_later(ACCESS_GATHER_S, self.flush)

    def flush(self) -> None:
        """Write what was gathered."""
        lines, self._lines = self._lines, []
        if lines and self._stream is not None:
            self._stream.write("\n".join([*lines, ""]))


def configure_logging(
    format: Literal["auto", "json", "pretty"], level: str, stream: TextIO | None = None
) -> AccessLog:
    """Send `log`, and what libraries log, to `stream` (stderr); "auto" is pretty on a terminal, else JSON.

    Returns the access log in the same shape; it is silent when `level` is above info.
    """
    out = sys.stderr if stream is None else stream
    pretty = format == "pretty" or (format == "auto" and out.isatty())
    least = logging.getLevelNamesMapping()[level.upper()]
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        mask_aadhaar,
        structlog.dev.ConsoleRenderer(colors=out.isatty()) if pretty else _JsonRenderer(),
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", Sink(out))),
    )
    logging.basicConfig(level=max(least, logging.WARNING), handlers=[_Forward()], force=True)
    return AccessLog(out if least <= logging.INFO else None, pretty=pretty)


def mask_aadhaar(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace what looks like an Aadhaar number in any text of a log line."""
    return {name: _masked(value) for name, value in event.items()}


def _masked(value: Any) -> Any:
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, str):
        return _ID_OR_AADHAAR.sub(lambda match: _MASK if match[1] else match[0], value)
    if isinstance(value, Mapping):
        return {_masked(str(name)): _masked(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_masked(inner) for inner in value]
    return _masked(str(value))


class _JsonRenderer:
    def __init__(self) -> None:
        self._encode = msgspec.json.Encoder(enc_hook=str).encode

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        return self._encode(event).decode()


class _Forward(logging.Handler):
    """Hands what libraries log to `log`, so that there is one stream in one shape."""

    def emit(self, record: logging.LogRecord) -> None:
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


class _Requests(Collector):
    """Counts requests in plain integers, a fifth of what a Counter and a Histogram cost each request; they
    become metrics when somebody looks.
    """

    def __init__(self) -> None:
        self._answered: dict[tuple[str, int], int] = {}
        self._in_bucket: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        key = (route, status)
        self._answered[key] = self._answered.get(key, 0) + 1
        in_bucket = self._in_bucket.get(route)
        if in_bucket is None:
            in_bucket = self._in_bucket[route] = [0] * (len(_LATENCY_BUCKETS_S) + 1)
            self._seconds[route] = 0.0
        in_bucket[bisect_left(_LATENCY_BUCKETS_S, seconds)] += 1
        self._seconds[route] += seconds

    def collect(self) -> Iterator[Metric]:
        """Yield what was counted."""
        answered = CounterMetricFamily(
            "ledgerd_requests", "HTTP requests answered.", labels=["route", "status"]
        )
        for (route, status), count in self._answered.items():
            answered.add_metric([route, str(status)], count)
        yield answered
        seconds = HistogramMetricFamily(
            "ledgerd_request_seconds", "Time from a request's head to its answer.", labels=["route"]
        )
        bounds = [*map(floatToGoString, _LATENCY_BUCKETS_S), "+Inf"]
        for route, in_bucket in self._in_bucket.items():
            buckets = list(zip(bounds, accumulate(in_bucket), strict=True))
            seconds.add_metric([route], buckets, self._seconds[route])
        yield seconds


class Metrics:
    """Every metric of the service; hot paths call `observe_request`, the rest use the attributes."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.in_flight = Gauge("ledgerd_in_flight", "Requests under way.", registry=registry)
        self.resident_loans = Gauge("ledgerd_resident_loans", "Loans held in memory.", registry=registry)
        self.journal_head_seq = Gauge(
            "ledgerd_journal_head_seq", "Number of the last event on disk.", registry=registry
        )
        self.projected_seq = Gauge(
            "ledgerd_projected_seq", "Number of the last event that the tables show.", registry=registry
        )
        self.commits_total = Counter("ledgerd_commits_total", "Journal commits.", registry=registry)
        self.committed_events_total = Counter(
            "ledgerd_committed_events_total", "Events made durable.", registry=registry
        )
        self.commit_seconds = Histogram(
            "ledgerd_commit_seconds",
            "Time of a journal commit, its sync included.",
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self.activations_total = Counter(
            "ledgerd_activations_total", "Loans read into memory.", registry=registry
        )
        self.fallbacks_total = Counter(
            "ledgerd_fallbacks_total",
            "Times a loan went back to an earlier state because the journal knew a transaction_id.",
            registry=registry,
        )
        self.billing_bills_total = Counter(
            "ledgerd_billing_bills_total", "Bills issued by billing runs.", registry=registry
        )
        self._requests = _Requests()
        registry.register(self._requests)

    def observe_request(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request; `route` is the pattern of the path, never the path itself."""
        self._requests.observe(route, status, seconds)

    def render(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self.registry)
