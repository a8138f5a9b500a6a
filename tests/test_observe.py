"""Log lines in both shapes, and the mask over Aadhaar numbers."""

from __future__ import annotations

import io
import logging
import os
import pty

import msgspec
import pytest
import structlog

from ledgerd.observe import AccessLog, configure_logging, log, logging_arguments, mask_aadhaar

NUMBER = "234123412346"


@pytest.fixture(autouse=True)
def _leave_logging_as_it_was():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def stream():
    return io.StringIO()


def lines(stream):
    return [msgspec.json.decode(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object(stream):
    configure_logging("json", "info", stream)
    log.info("loan made", loan_id="0123456789abcdef", amount_paise=500_000, note="a\nb")
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "loan made",
        "level": "info",
        "loan_id": "0123456789abcdef",
        "amount_paise": 500_000,
        "note": "a\nb",
    }


def test_pretty_lines_are_for_people(stream):
    configure_logging("pretty", "info", stream)
    log.info("loan made", note=NUMBER)
    assert "loan made" in stream.getvalue()
    assert NUMBER not in stream.getvalue()


def test_auto_is_json_away_from_a_terminal_and_pretty_on_one(stream):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    configure_logging("auto", "info", terminal)
    log.info("hello")
    configure_logging("auto", "info", stream)
    log.info("hello")
    assert lines(stream)[0]["event"] == "hello"
    assert "hello" in terminal.getvalue()
    with pytest.raises(msgspec.DecodeError):
        lines(terminal)


@pytest.mark.parametrize(
    ("variables", "colors"),
    [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_colors_are_for_a_terminal_that_has_them(variables, colors, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal:
        configure_logging("auto", "info", terminal)
        log.info("hello")
        shown = os.read(ours, 1000)
    os.close(ours)
    assert b"hello" in shown
    assert (b"\x1b[" in shown) == colors


def test_a_process_that_is_started_is_told_how_to_log(stream):
    configure_logging("pretty", "error", stream)
    assert logging_arguments() == ["pretty", "error"]
    configure_logging("auto", "info", stream)
    assert logging_arguments() == ["auto", "info"]


def test_less_than_the_level_is_left_out(stream):
    access = configure_logging("json", "warning", stream)
    log.info("left out")
    access.write("GET", "/livez", 200, 0.001, "r-1")
    log.warning("kept")
    assert [line["event"] for line in lines(stream)] == ["kept"]


def test_an_exception_is_logged_with_its_trace_and_masked(stream):
    configure_logging("json", "info", stream)
    try:
        raise RuntimeError(f"no such person: {NUMBER}")
    except RuntimeError:
        log.exception("it failed")
    (line,) = lines(stream)
    assert "RuntimeError: no such person: XXXX XXXX XXXX" in line["exception"]
    assert "Traceback" in line["exception"]


def test_what_libraries_log_comes_out_in_the_same_shape(stream):
    configure_logging("json", "info", stream)
    logging.getLogger("somebody").warning("number %s", NUMBER)
    logging.getLogger("somebody").info("too fine")
    (line,) = lines(stream)
    assert (line["event"], line["logger"], line["level"]) == (
        "number XXXX XXXX XXXX",
        "somebody",
        "warning",
    )


SPLIT = [f"2341{gap}2341{gap}2346" for gap in (" ", "-", ".", "_", "\t", "\u00a0", " - ")]


@pytest.mark.parametrize(
    "written", [NUMBER, *SPLIT, "2341 23412346", "23412341.2346", f"x{NUMBER}y", f"1{NUMBER}"]
)
def test_what_looks_like_an_aadhaar_number_is_masked(written):
    class Thing:
        def __str__(self):
            return f"<{written}>"

    event = mask_aadhaar(
        None, "info", {"event": f"a {written} b", "deep": [{"k": (written,), written: 1}], "thing": Thing()}
    )
    assert "2341" not in str(event)
    assert "2346" not in str(event)
    assert event["event"].startswith("a ")


@pytest.mark.parametrize(
    "value",
    [
        "0123456789012345",
        "2341234123462341",
        "5" * 32,
        "1234",
        "2026-11-23T03:11:49.703123Z",
        "2341, 2341, 2346",
        5,
        None,
    ],
)
def test_ids_and_numbers_stay_as_they_are(value):
    assert mask_aadhaar(None, "info", {"event": "e", "value": value})["value"] == value


async def test_an_access_line_has_the_route_and_a_masked_request_id(stream):
    access = AccessLog(stream)
    access.write("POST", "/api/make-payment/", 201, 0.00325, NUMBER)
    assert stream.getvalue() == "", "lines are gathered"
    access.flush()
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "request",
        "level": "info",
        "method": "POST",
        "route": "/api/make-payment/",
        "status": 201,
        "duration_ms": 3.25,
        "request_id": "XXXX XXXX XXXX",
    }


async def test_a_pretty_access_line_is_one_line(stream):
    access = AccessLog(stream, pretty=True)
    access.write("GET", "/livez", 200, 0.001, "r-1")
    access.flush()
    assert stream.getvalue().endswith("GET /livez 200 1.00 ms r-1\n")


class Broken(io.StringIO):
    """A log on a full disk."""

    def write(self, _text: str) -> int:
        raise OSError(28, "No space left on device")


async def test_a_log_that_can_not_be_written_stops_nobody():
    access = configure_logging("json", "info", Broken())
    try:
        log.error("lost")
        logging.getLogger("a library").error("lost, too")
        access.write("GET", "/livez", 200, 0.001, "r-1")
        access.flush()
    finally:
        structlog.reset_defaults()
