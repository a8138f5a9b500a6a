"""Starting, awaiting and ending the peers' processes, each by its own id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]

START_TIMEOUT_S: Final = 60
END_TIMEOUT_S: Final = 30


def wait_for_port(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until the server takes connections on the loopback; RuntimeError with its log when it doesn't."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if server.poll() is not None or time.monotonic() > deadline_s:
            raise RuntimeError(f"nothing listens on {port}:\n{last_lines(log)}")
        time.sleep(0.05)


def end(server: subprocess.Popen[bytes], *, fast: bool = False) -> None:
    """End a server politely (`fast`: by SIGINT, by which PostgreSQL does not wait for its sessions), else
    kill it, and its process group if it leads one.
    """
    if server.poll() is not None:
        return
    server.send_signal(signal.SIGINT if fast else signal.SIGTERM)
    try:
        server.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            if os.getpgid(server.pid) == server.pid:
                os.killpg(server.pid, signal.SIGKILL)
            else:
                server.kill()
        server.wait()


def last_lines(log: Path, count: int = 10) -> str:
    """The end of a log, for a message."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:])


def own_peak_mb() -> float:
    """The most memory that this process has held (VmHWM: a parent's does not count, as in getrusage)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")
