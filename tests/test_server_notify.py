"""A manager that starts the service as systemd does: what it is told, and the unit that it starts it from."""

from __future__ import annotations

import re
import signal
import socket
from collections.abc import Iterator
from configparser import ConfigParser
from contextlib import suppress
from pathlib import Path

import pytest

from ledgerd.config import Server
from ledgerd.config_file import load_config
from ledgerd.control import STOP_PATIENCE_S as COMMANDS_PATIENCE_S
from ledgerd.server import FILES_BESIDES
from ledgerd.storage.remote import STOP_PATIENCE_S as STORE_PATIENCE_S
from tests.process import GUARD_S, serving, write_config

UNIT = Path(__file__).parent.parent / "deploy" / "ledgerd.service"
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


# The unit ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unit() -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    parser.read_string(UNIT.read_text("utf-8"))
    return parser


def test_the_unit_waits_longer_than_a_stop_may_take(unit: ConfigParser):
    """For requests, then for connections, for commands, and for the store to close its files."""
    longest_s = 2 * Server().shutdown_timeout_s + COMMANDS_PATIENCE_S + STORE_PATIENCE_S
    assert unit.getint("Service", "TimeoutStopSec") >= longest_s + 10


def test_the_unit_lets_it_have_a_file_for_every_connection(unit: ConfigParser):
    assert unit.getint("Service", "LimitNOFILE") >= Server().connections + FILES_BESIDES


def test_the_unit_speaks_to_the_process_that_speaks_to_it(unit: ConfigParser):
    service = unit["Service"]
    assert (service["Type"], service["NotifyAccess"], service["KillSignal"]) == ("notify", "main", "SIGTERM")
    assert service["ExecStart"].split()[1:3] == ["serve", "--config"]
    assert service["Restart"] == "on-failure"
    assert unit.getint("Service", "WatchdogSec") > 2  # a sign of life each half of it
    # Memory holds keys, and so would a core that the watchdog's signal leaves.
    assert service["LimitCORE"] == "0"


def test_the_unit_s_configuration_writes_where_the_unit_may_write(unit: ConfigParser):
    config_path = UNIT.with_name("config.toml")
    assert unit["Service"]["ExecStart"].split()[3] == "/etc/ledgerd/config.toml"
    assert config_path.read_text("utf-8").startswith("# /etc/ledgerd/config.toml ")
    config = load_config(config_path, {})
    state = Path("/var/lib") / unit["Service"]["StateDirectory"]
    assert config.storage.tables_path == state / "ledgerd.db"
    assert config.auth.keys_path == state / "keys"
