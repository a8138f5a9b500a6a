"""What verify reports: every difference counts, the first are named."""

from __future__ import annotations

from ledgerd.storage.report import DIFFERENCES_SHOWN_MAX, Report


def test_without_differences_it_is_verified() -> None:
    report = Report(events=3, loans=1)
    summary = report.summary()
    assert (summary.pop("status"), summary.pop("differences")) == ("verified", 0)
    assert summary == {"events": 3, "loans": 1, "bills": 0, "payments": 0, "scores": 0}


def test_a_difference_is_one_line_that_can_be_shown() -> None:
    report = Report()
    report.differ("*** in database main ***\nOn page 6: \x1b[2J")
    assert report.differences == ["*** in database main ***; On page 6: ?[2J"]


def test_differences_are_all_counted_and_the_first_are_named() -> None:
    report = Report()
    for number in range(DIFFERENCES_SHOWN_MAX + 5):
        report.differ(f"row {number}")
    assert report.differences == [f"row {number}" for number in range(DIFFERENCES_SHOWN_MAX)]
    summary = report.summary()
    assert (summary["status"], summary["differences"]) == ("differs", DIFFERENCES_SHOWN_MAX + 5)
