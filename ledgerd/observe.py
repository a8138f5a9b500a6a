"""What operators read: one log line for each thing that happened. What they measure is in metrics.py.

Log lines go to stderr, as JSON or for people. Whatever looks like an Aadhaar number is masked on its way out.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, Literal, TextIO, cast

import msgspec
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

ACCESS_GATHER_S: Final = 0.1

_MASK: Final = "XXXX XXXX XXXX"
# Ids of ours (16 or 32 hexadecimal digits) may hold twelve digits in a row: they match first, and stay.
# Between groups of four may stand what people put there, but no colon or comma: times and lists have those.
_ID_OR_AADHAAR: Final = re.compile(
    r"\b[0-9a-f]{16}(?:[0-9a-f]{16})?\b|([2-9]\d{3}[\s._-]{0,3}\d{4}[\s._-]{0,3}\d{4})"
)

Format = Literal["auto", "json", "pretty"]
_asked: Final = ["auto", "info"]

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


def configure_logging(format: Format, level: str, stream: TextIO | None = None) -> AccessLog:
    """Send `log`, and what libraries log, to `stream` (stderr); "auto" is pretty on a terminal, else JSON.

    Returns the access log in the same shape; it is silent when `level` is above info. Colors are for
    terminals that have them, unless NO_COLOR is set.
    """
    _asked[:] = [format, level]
    out = sys.stderr if stream is None else stream
    pretty = format == "pretty" or (format == "auto" and out.isatty())
    least = logging.getLevelNamesMapping()[level.upper()]
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        mask_aadhaar,
        structlog.dev.ConsoleRenderer(colors=_takes_colors(out)) if pretty else _JsonRenderer(),
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(least),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", Sink(out))),
    )
    logging.basicConfig(level=max(least, logging.WARNING), handlers=[_Forward()], force=True)
    return AccessLog(out if least <= logging.INFO else None, pretty=pretty)


def logging_arguments() -> list[str]:
    """Return what configure_logging was called with, for a process of ours that writes to the same stderr."""
    return list(_asked)


def _takes_colors(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


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
