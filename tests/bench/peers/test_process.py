"""Peers' processes are awaited and ended by their own ids."""

import os
import socket
import subprocess
import sys

import pytest

from bench.peers import process
from bench.peers.process import end, own_peak_mb, wait_for_port

DEAF = (
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); sys.stdin.read()"
)
LISTEN = "import socket, sys; held = socket.create_server(('127.0.0.1', int(sys.argv[1]))); held.accept()"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as held:
        return held.getsockname()[1]


def test_a_server_is_awaited_and_ended(tmp_path):
    port = free_port()
    server = subprocess.Popen([sys.executable, "-c", LISTEN, str(port)])
    try:
        wait_for_port(server, port, tmp_path / "log")
    finally:
        end(server)
    assert server.returncode is not None
    end(server)  # it is gone: nothing to do


def test_a_server_that_dies_shows_its_log(tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as file:
        server = subprocess.Popen([sys.executable, "-c", "raise SystemExit('no such book')"], stderr=file)
    with pytest.raises(RuntimeError, match="no such book"):
        wait_for_port(server, free_port(), log)
    server.wait()


def test_who_does_not_listen_is_killed_with_its_group(monkeypatch):
    monkeypatch.setattr(process, "END_TIMEOUT_S", 0.05)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    server = subprocess.Popen([sys.executable, "-c", DEAF], start_new_session=True, **pipes)
    server.stdout.readline()
    assert os.getpgid(server.pid) == server.pid
    end(server)
    assert server.returncode == -9
    server.stdin.close()
    server.stdout.close()


def test_the_peak_is_this_process_own():
    assert own_peak_mb() > 1
