"""The machine that the benchmarks run on: what it is, how fast its disk syncs, what processes take of it."""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Self

import msgspec

SYNCS = 200
SYNC_BYTES = 4096
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PROGRAMS = {"PostgreSQL": ("postgres", "psql"), "wrk": ("wrk",)}  # by what they are asked for their version
PACKAGES = ("aiohttp", "uvloop", "django", "djangorestframework", "gunicorn", "psycopg", "duckdb")


class SyncTimes(msgspec.Struct, frozen=True):
    """How long `fdatasync` takes after 4 kB were written."""

    p50_ms: float
    p99_ms: float


def describe(folder: Path | None = None) -> dict[str, str]:
    """Say what this machine is; syncs are measured in the folder, or where temporary files go.

    No host name and no path is in it.
    """
    sync = fsync_ms(folder or Path(tempfile.gettempdir()))
    memory_kb = int(field(Path("/proc/meminfo"), "MemTotal").split()[0])
    said = {
        "cpu": field(Path("/proc/cpuinfo"), "model name") or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory_kb / 2**20:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "fsync p50": f"{sync.p50_ms:.3f} ms",
        "fsync p99": f"{sync.p99_ms:.3f} ms",
        "steal": f"{steal_share():.2%} since the start of the machine",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }
    for package in PACKAGES:
        try:
            said[package] = version(package)
        except PackageNotFoundError:
            continue
    for name, programs in PROGRAMS.items():
        if found := program_version(programs):
            said[name] = found
    return said


def field(path: Path, name: str) -> str:
    """The text after "name:" in a file of /proc; "" when there is none."""
    for line in path.read_text().splitlines():
        key, _, text = line.partition(":")
        if key.strip() == name:
            return text.strip()
    return ""


def program_version(programs: tuple[str, ...]) -> str:
    """The first word with a digit in what a program says of its version; "" when it is not there."""
    program = next(filter(None, map(shutil.which, programs)), None)
    if program is None:
        return ""
    asked = subprocess.run(
        [program, "-v" if programs == ("wrk",) else "--version"],
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )
    words = (asked.stdout + asked.stderr).split()
    return next((word for word in words if any(letter.isdigit() for letter in word)), "")


def fsync_ms(folder: Path) -> SyncTimes:
    """Measure 200 syncs of 4 kB, each written at the end of a file in the folder."""
    taken_ms = []
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        for _ in range(SYNCS):
            file.write(bytes(SYNC_BYTES))
            started_s = time.perf_counter()
            os.fdatasync(file.fileno())
            taken_ms.append((time.perf_counter() - started_s) * 1000)
    taken_ms.sort()
    return SyncTimes(taken_ms[SYNCS // 2], taken_ms[SYNCS * 99 // 100])


def steal_share() -> float:
    """What the host took of the cores' time since the machine started, 0 to 1."""
    times = [int(text) for text in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return times[7] / sum(times)


# Processes -----------------------------------------------------------------------------------------


class Cpu:
    """Measures what processes take of all cores while a block runs.

    `with Cpu({"front": pid, "store": other}) as cpu: ..` and then `cpu.shares["front"]`, 0 to 1. A process
    that ends meanwhile has 0.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        self.pids = pids
        self.shares: dict[str, float] = {}

    def __enter__(self) -> Self:
        self.started_s = time.monotonic()
        self.before_s = {name: cpu_s(pid) for name, pid in self.pids.items()}
        return self

    def __exit__(self, *_: object) -> None:
        cores_s = (time.monotonic() - self.started_s) * (os.cpu_count() or 1)
        self.shares = {
            name: max(cpu_s(pid) - self.before_s[name], 0.0) / cores_s for name, pid in self.pids.items()
        }


def cpu_s(pid: int) -> float:
    """The seconds of CPU, user and system, that a process has used; 0 once it is gone."""
    text = process_file(pid, "stat")
    if not text:
        return 0.0
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def peak_mb(pid: int) -> float:
    """The most memory that a process has held (VmHWM), in MiB; 0 once it is gone."""
    return memory_mb(pid, "VmHWM")


def rss_mb(pid: int) -> float:
    """The memory that a process holds (VmRSS), in MiB; 0 once it is gone."""
    return memory_mb(pid, "VmRSS")


def memory_mb(pid: int, name: str) -> float:
    for line in process_file(pid, "status").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def children(pid: int) -> list[int]:
    """The processes that a process has started, through any of its threads."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        found += [int(text) for text in process_file(pid, f"task/{task.name}/children").split()]
    return sorted(found)


def process_file(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""
