"""A manager that starts the service as systemd does: what it is told, and what it finds in the log."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.process import GUARD_S, serving, write_config

WATCHDOG_US = 200_000


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket that a manager listens at."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(GUARD_S)
        yield listener


def told(manager: socket.socket, first: str) -> tuple[str, ...]:
    """The next message that begins so, past signs of life."""
    while (lines := manager.recv(1000).decode().splitlines())[0] != first:
        assert lines[0] in {"WATCHDOG=1", "STATUS=opening the database"}
    return tuple(lines[1:])


def test_a_manager_is_told_when_requests_are_taken_and_when_no_longer(tmp_path: Path, manager: socket.socket):
    names = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(WATCHDOG_US)}
    with serving(write_config(tmp_path), **names) as service:
        assert told(manager, "READY=1") == (f"STATUS=serving on 127.0.0.1, port {service.port}",)
        for _ in range(3):
            told(manager, "WATCHDOG=1")
        environ = Path(f"/proc/{service.store_pid}/environ").read_bytes()
        assert not [name for name in names if f"{name}=".encode() in environ]
        service.signal(signal.SIGTERM)
        assert told(manager, "STOPPING=1") == ("STATUS=answering what is queued",)
        assert service.ended() == 0


def test_what_a_watchdog_ends_says_where_it_stood(tmp_path: Path, manager: socket.socket):
    """SIGSTOP stands for a loop that is blocked: the signs of life end, and the watchdog's SIGABRT has the
    log say which line was under way.
    """
    names = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(WATCHDOG_US)}
    with serving(write_config(tmp_path), **names) as service:
        told(manager, "READY=1")
        service.signal(signal.SIGSTOP)
        manager.settimeout(3 * WATCHDOG_US / 1e6)
        with suppress(TimeoutError):
            while True:
                told(manager, "WATCHDOG=1")
        service.signal(signal.SIGABRT)
        service.signal(signal.SIGCONT)
        assert service.ended() == -signal.SIGABRT
        assert "Fatal Python error: Aborted" in service.log
        assert [line for line in service.log if re.search(r'File ".*/ledgerd/cli.py", line \d+ in run', line)]
