"""A whole scenario at a small size."""

from __future__ import annotations

from bench.scenarios.memory import b9_memory
from bench.stage import Stage


def test_loans_are_brought_into_memory_and_the_ledger_is_verified(stage: Stage, monkeypatch):
    monkeypatch.setattr("bench.scenarios.memory.FEW", 10)
    findings = b9_memory(stage)
    assert [measure.unit for measure in findings.measures] == ["bytes", "s"]
    assert [point[0] for point in findings.series[0].points][-1] == stage.sizes.resident
    stage.verify_all()
    assert all(check.ok for check in findings.checks)
