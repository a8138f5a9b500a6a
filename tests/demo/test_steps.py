"""The whole walk, as `ledgerd demo` takes it: a real process, a real service, no terminal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from ledgerd.demo.steps import STEPS

TIMEOUT_S = 120
PROGRAM = (sys.executable, "-m", "ledgerd", "demo")


def environment(folder: Path) -> dict[str, str]:
    """Temporary files in `folder`, any port, and a key that must not reach the demo's own service."""
    return {
        **os.environ,
        "TMPDIR": str(folder),
        "LEDGERD_SERVER_PORT": "0",
        "LEDGERD_STORAGE_URL": f"sqlite:///{folder / 'of-the-user.db'}",
    }


def test_the_walk_ends_well_and_leaves_nothing_behind(tmp_path):
    run = subprocess.run(
        [*PROGRAM, "--exit"],
        cwd=tmp_path,
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""
    assert "\x1b" not in run.stdout
    assert re.findall(r"^(\d+)\. ", run.stdout, re.MULTILINE) == [str(n) for n in range(1, len(STEPS) + 1)]
    assert "open_bills.0.amount_due=207.00" in run.stdout
    assert "answers: 1 x 201, 59 x 200; payments made: 1" in run.stdout
    assert "outstanding.interest=17.52" in run.stdout
    assert '"status":"verified"' in run.stdout
    assert run.stdout.endswith("All went as it should.\n")
    assert list(tmp_path.iterdir()) == []


def test_it_stays_up_until_ctrl_c(tmp_path):
    process = subprocess.Popen(
        PROGRAM,
        cwd=tmp_path,
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        assert process.stdout is not None
        shown = []
        for line in process.stdout:
            shown.append(line)
            if "Ctrl-C" in line:
                break
        text = "".join(shown)
        variables = re.search(r"^ +\. (\S+/try\.env)$", text, re.MULTILINE)
        assert variables is not None, text
        lines = Path(variables[1]).read_text().splitlines()
        assert {line.partition("=")[0] for line in lines} == {"URL", "LOAN", "JSON", "ASHA", "BANK", "OPS"}
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(TIMEOUT_S) == 0, rest
    assert list(tmp_path.iterdir()) == []
