import random

import msgspec
import pytest

from bench import report as reports
from bench.report import README_BEGIN, README_END
from bench.results import Check, Findings, Load, Measure, Report, Series


def measure(median, **changes):
    usual = {"scenario": "B1", "what": "wide, over bare", "unit": "x", "must": 0.5, "aim": 0.8}
    return Measure(**{**usual, "rounds": [median - 0.01, median, median + 0.02], **changes})


def made_up(seed=7):
    """A report of two scenarios with figures by chance."""
    rng = random.Random(seed)
    measures = [
        measure(rng.uniform(0.6, 0.7)),
        measure(rng.uniform(0.1, 0.2), what="hot | cold"),
        measure(1.5, what="rate", must=None, aim=None),
        Measure(scenario="B4", what="p99", unit="ms", rounds=[4.5], must=20, aim=5, more_is_better=False),
    ]
    sent = rng.randrange(100_000, 200_000)
    load = Load(scenario="B1", side="wide", seconds=6.0, offered=sent, sent=sent, answered=sent - 7, unread=7)
    late = msgspec.structs.replace(load, side="bare", p99_ms=12.345, p999_ms=99.5, generator_cpu_share=0.25)
    checks = [
        Check(scenario="B1", acknowledged=5_000, in_ledger=5_000, verify_ok=True),
        Check(scenario="B1", acknowledged=5_000, in_ledger=4_999, verify_ok=True),
    ]
    series = [
        Series(plot="rate-over-skew", name="ledgerd", points=[(1, 15_000), (100, 14_000)]),
        Series(plot="rate-over-skew", name="pgbench", points=[(1, 571), (100, 4_529)]),
        Series(plot="billing-time-over-loans", name="ledgerd", points=[(1e4, 0.5), (1e6, 40)]),
        Series(plot="shape-over-time", name="new", points=[(0, 0)]),
    ]
    one = Findings(scenario="B1", title="Wide", measures=measures[:3], loads=[load, late], checks=checks)
    notes = ["sweep: 64 was best", f"left in {reports.ROOT}/var"]
    other = Findings(
        scenario="B4", title="Latency", measures=measures[3:], series=series, notes=notes, seconds=61
    )
    return Report(
        started_at="2026-01-31T10:00:00Z",
        seconds=1_800,
        quick=False,
        machine={"cpu": "Some CPU", "cores": "2", "memory": "8.0 GiB", "fsync p50": "0.092 ms"},
        findings=[one, other],
    )


@pytest.mark.parametrize(
    ("value", "changes", "verdict"),
    [
        (0.8, {}, "aim"),
        (0.79, {}, "must"),
        (0.49, {}, "missed"),
        (0.5, {"more_is_better": False, "aim": 0.2}, "must"),
        (0.2, {"more_is_better": False, "aim": 0.2}, "aim"),
        (0.51, {"more_is_better": False, "aim": None}, "missed"),
        (0.51, {"must": None}, "measured"),
    ],
)
def test_a_verdict_is_that_of_the_median(value, changes, verdict):
    row = reports.measure_row(measure(value, **changes))
    assert measure(value, **changes).verdict == verdict
    assert row[-1] == reports.MARKS[verdict]


def test_a_row_says_median_range_and_limits_with_their_units():
    assert reports.measure_row(measure(0.65)) == [
        *("B1", "wide, over bare", "0.65x", "0.64 to 0.67", "≥ 0.5x", "≥ 0.8x", "✓ must")
    ]
    once = Measure(
        scenario="B4", what="p99", unit="ms", rounds=[12.345], must=20, aim=5, more_is_better=False
    )
    assert reports.measure_row(once) == ["B4", "p99", "12.3 ms", "", "≤ 20 ms", "≤ 5 ms", "✓ must"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0123, "0.0123"),
        (0.5, "0.50"),
        (9.999, "10.00"),
        (12.34, "12.3"),
        (1_234_567.8, "1,234,568"),
    ],
)
def test_numbers_have_three_figures_or_all_before_the_point(value, text):
    assert reports.number(value) == text


def test_a_written_report_reads_back_and_holds_every_part(tmp_path):
    made = made_up()
    reports.write(made, tmp_path)
    read = reports.read(tmp_path)
    assert read.findings[0] == made.findings[0]
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "2 of 3 musts are met" in text
    assert "hot \\| cold" in text
    assert "5,000 payments acknowledged, 4,999 in the ledger; verify passes: **this is no result**" in text
    assert text.count("**this is no result**") == 1
    load = made.findings[0].loads[1]
    assert f"| bare | 6.00 | {load.offered:,} | {load.sent:,} | {load.answered:,} | 0 | 0 | 7 | 0 |" in text
    assert "| 12.3 | 99.5 | 25% |" in text
    assert "- sweep: 64 was best" in text
    for name in ("results.json", "results.md"):
        assert str(reports.ROOT) not in (tmp_path / name).read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.glob("*.json")} == {"results.json"}


def test_the_same_report_is_the_same_bytes(tmp_path):
    """The plots too, where there is matplotlib to draw them."""
    contents = []
    for name in ("one", "other"):
        reports.write(made_up(), tmp_path / name)
        contents.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert contents[0] == contents[1]


def test_the_readme_gets_the_limited_measures_and_two_plots_and_is_the_same_the_second_time(tmp_path):
    folder = tmp_path / "results"
    reports.write(made_up(), folder)
    for plot in ("rate-over-skew", "billing-time-over-loans", "shape-over-time"):
        (folder / f"{plot}.svg").touch()
    path = tmp_path / "README.md"
    path.write_text(f"# Before\n\n{README_BEGIN}\nstale\n{README_END}\n\nAfter.\n")
    reports.update_readme(path, folder)
    text = path.read_text()
    assert text.startswith(f"# Before\n\n{README_BEGIN}\n")
    assert text.endswith(f"{README_END}\n\nAfter.\n")
    assert "stale" not in text
    assert "2026-01-31" in text
    assert "Some CPU" in text
    assert text.count("| B1 |") == 2  # that of which nothing is asked is left out
    assert text.count("![") == 2
    assert "(bench/results/rate-over-skew.svg)" in text
    reports.update_readme(path, folder)
    assert path.read_text() == text


@pytest.mark.parametrize(
    "text",
    [
        "nothing",
        f"{README_BEGIN}",
        f"{README_END} {README_BEGIN}",
        f"{README_BEGIN} {README_BEGIN} {README_END}",
        f"{README_BEGIN} {README_END} {README_END}",
    ],
)
def test_a_readme_without_its_marks_is_an_error_and_is_left_as_it_is(tmp_path, text):
    reports.write(made_up(), tmp_path)
    path = tmp_path / "README.md"
    path.write_text(text)
    with pytest.raises(ValueError, match="once each"):
        reports.update_readme(path, tmp_path)
    assert path.read_text() == text


def test_an_empty_report_is_a_report(tmp_path):
    empty = Report(started_at="2026-01-31T10:00:00Z", seconds=5, quick=True, machine={}, findings=[])
    reports.write(empty, tmp_path)
    assert (tmp_path / "results.md").read_text().startswith("# Benchmarks (quick)\n")
