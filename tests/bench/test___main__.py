"""The command line teaches, refuses what it can't do, and goes on when a scenario fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bench import __main__ as main
from bench.results import Check, Findings, Measure, Report
from bench.stage import QUICK


def test_help_names_every_scenario_and_shows_examples():
    ran = subprocess.run(
        [sys.executable, "-m", "bench", "--help"], capture_output=True, text=True, check=True
    )
    for name in main.SCENARIOS:
        assert f"  {name} " in ran.stdout
    assert "--url http://" in ran.stdout
    assert "exit code" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["B12"], "no such scenario: B12"),
        (["B1", "--url", "http://localhost:8080"], "go together"),
        (["B7", "--url", "u", "--client-id", "i", "--client-secret", "s", "--loans", "l"], "with --url name"),
    ],
)
def test_what_can_t_be_done_is_refused(arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        main.parse(arguments)
    assert why in capsys.readouterr().err


def measured(stage: object) -> Findings:
    """One that goes well."""
    del stage
    figure = Measure(scenario="B1", what="rate", unit="1/s", rounds=[1.0], must=0.5)
    check = Check(scenario="B1", acknowledged=1, in_ledger=1, verify_ok=True)
    return Findings(scenario="B1", title="one", measures=[figure], checks=[check])


def broken(stage: object) -> Findings:
    """One that does not."""
    raise RuntimeError(f"nothing works, {stage is not None}")


def test_a_failed_scenario_is_told_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(main, "SCENARIOS", {"B1": measured, "B2": broken})
    out = tmp_path / "out"
    assert main.Run(tmp_path, QUICK, out).all(["B2", "B1"]) == 1
    found = msgspec.json.decode((out / "results.json").read_bytes(), type=Report).findings
    assert [each.scenario for each in found] == ["B1", "B2"]
    assert "nothing works" in found[1].notes[0]
    # A later run of one scenario leaves the other's findings where they are.
    assert main.Run(tmp_path, QUICK, out).all(["B1"]) == 0
    again = msgspec.json.decode((out / "results.json").read_bytes(), type=Report).findings
    assert [each.scenario for each in again] == ["B1", "B2"]
