"""What scenarios share: ratios by round, and checks that count only once the ledger is verified."""

from __future__ import annotations

import pytest

from bench.results import Findings
from bench.service import NotAResult
from bench.stage import Stage, plain_load, ratio


def test_a_ratio_is_taken_round_by_round():
    fast = [plain_load("B1", "fast", 2.0, count) for count in (200, 100, 300)]
    slow = [plain_load("B1", "slow", 1.0, count) for count in (50, 100, 50)]
    found = ratio("B1", "over slow", fast, slow, must=1.0, aim=2.0)
    assert found.rounds == [2.0, 0.5, 3.0]
    assert found.median == 2.0
    assert found.verdict == "aim"


def test_sides_run_in_turn(stage: Stage):
    ran = []

    def side(name: str):
        def run():
            ran.append(name)
            return plain_load("B1", name, 1.0, 1)

        return run

    loads = stage.in_turn({"a": side("a"), "b": side("b")}, rounds=3)
    assert ran == ["a", "b"] * 3
    assert [len(of_side) for of_side in loads.values()] == [3, 3]


def test_a_check_is_settled_by_verify(stage: Stage):
    findings = Findings(scenario="B1", title="")
    with stage.serve("payments") as service, service.audit("B1") as audit:
        pass
    stage.check(findings, "payments", audit.check())
    assert not findings.checks[0].ok
    stage.verify_all()
    assert findings.checks[0].ok
    assert "verified" in findings.notes[0]


def test_a_damaged_ledger_settles_no_check(stage: Stage):
    findings = Findings(scenario="B1", title="")
    folder = stage.folder / "empty"
    folder.mkdir()
    with stage.serve("payments") as service, service.audit("B1") as audit:
        pass
    stage.check_folder(findings, folder, {}, audit.check())
    stage.verify_all()
    assert not findings.checks[0].ok


def test_a_peer_that_is_missing_is_told(stage: Stage):
    findings = Findings(scenario="B1", title="")
    stage.leave_out(findings, "django", NotAResult("no module"))
    assert stage.left_out.pop() == "B1: django is left out: no module"
    assert findings.notes == ["django is left out: no module"]


def test_a_shared_peer_is_entered_once(stage: Stage):
    entered = []
    for _ in range(2):
        stage.once("only", lambda: entered.append(1))
    assert entered == [1]
    with pytest.raises(ZeroDivisionError):
        stage.once("never", lambda: entered.append(1 // 0))
