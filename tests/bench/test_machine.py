import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.machine import Cpu, children, cpu_s, describe, fsync_ms, peak_mb, rss_mb, steal_share


def test_a_machine_is_described_without_its_name_or_any_path(tmp_path):
    said = describe(tmp_path)
    assert {"cpu", "cores", "memory", "kernel", "fsync p50", "fsync p99", "steal", "python", "sqlite"} <= set(
        said
    )
    assert all(said.values())
    texts = " ".join(said.values())
    assert str(tmp_path) not in texts
    assert str(Path.home()) not in texts
    assert os.uname().nodename not in texts.split()


def test_syncs_take_time_and_leave_nothing_behind(tmp_path):
    sync = fsync_ms(tmp_path)
    assert 0 < sync.p50_ms <= sync.p99_ms
    assert not list(tmp_path.iterdir())


def test_what_a_process_uses_is_measured_and_of_one_that_is_gone_it_is_0():
    spin = "import time\nwhile time.process_time() < 0.3: pass\nprint('spun', flush=True)\ninput()"
    with Cpu({"me": os.getpid(), "gone": 2**22 + 1}) as idle:
        process = subprocess.Popen(
            [sys.executable, "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        with Cpu({"spinner": process.pid}) as cpu:
            process.stdout.readline()
        assert process.pid in children(os.getpid())
        assert cpu_s(process.pid) >= 0.29
        assert 0 < rss_mb(process.pid) <= peak_mb(process.pid)
        process.communicate(b"\n")
    assert 0 < cpu.shares["spinner"] <= 1
    assert idle.shares["gone"] == 0
    assert cpu_s(process.pid) == peak_mb(process.pid) == rss_mb(process.pid) == 0
    assert children(process.pid) == []


def test_the_share_that_is_stolen_is_a_share():
    assert 0 <= steal_share() < 1
    with pytest.raises(FileNotFoundError):
        fsync_ms(Path("nowhere"))
