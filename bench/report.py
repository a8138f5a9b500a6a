"""Writes a run of the benchmarks down: `results.json`, `results.md`, plots, and the README's section.

`python -m bench.report [--readme]` makes the table and the plots again from `results.json`, and with
`--readme` the section of the README too.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from bench.results import Check, Findings, Load, Measure, Report

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
README_BEGIN = "<!-- benchmarks: made by make bench -->"
README_END = "<!-- /benchmarks -->"
README_PLOTS = (  # the first two that there are
    "rate-over-skew",
    "p99-over-offered-rate",
    "rate-over-connections",
    "billing-time-over-loans",
    "bytes-over-resident-loans",
)
MARKS = {"aim": "✓ aim", "must": "✓ must", "missed": "✗ **missed**", "measured": "measured"}


def write(report: Report, folder: Path = RESULTS) -> None:
    """Write everything but the README; without matplotlib no plots, and it is said."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.svg"):
        path.unlink()  # of an earlier run
    encoded = msgspec.json.format(without_places(msgspec.json.encode(report).decode()), indent=1)
    (folder / "results.json").write_text(f"{encoded}\n", encoding="utf-8")
    render(read(folder), folder)


def read(folder: Path = RESULTS) -> Report:
    return msgspec.json.decode((folder / "results.json").read_bytes(), type=Report)


def render(report: Report, folder: Path) -> None:
    """Draw the plots and write the Markdown."""
    try:
        from bench.plots import draw  # noqa: PLC0415 - matplotlib is not in everyone's environment
    except ModuleNotFoundError as error:
        print(f"bench: no plots without {error.name}: see requirements/bench.txt", file=sys.stderr)
    else:
        draw([series for each in report.findings for series in each.series], folder)
    (folder / "results.md").write_text(markdown(report, plots_in(folder)), encoding="utf-8")


def plots_in(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.svg"))


def without_places(text: str) -> str:
    """Put general words for this machine's folders: a report is for everyone."""
    places = {str(ROOT): "(checkout)", tempfile.gettempdir(): "(temporary)", str(Path.home()): "(home)"}
    for place, word in places.items():
        if len(place) > 1:
            text = text.replace(f"{place}/", f"{word}/")
    return text


# Markdown -----------------------------------------------------------------------------------------


def markdown(report: Report, plots: Sequence[str]) -> str:
    """The whole report: the machine, all measures, plots, and each scenario with its loads and checks."""
    parts = [
        "# Benchmarks" + (" (quick)" if report.quick else ""),
        headline(report),
        table(["", ""], machine_rows(report)),
        "Ratios are of the two sides of one round. A figure is the median of its rounds, with their range.",
        table(MEASURE_HEAD, (measure_row(each) for found in report.findings for each in found.measures)),
        *(f"![{title_of(plot)}]({plot}.svg)" for plot in plots),
        *(part for found in report.findings for part in scenario_parts(found)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def readme(report: Report, plots: Sequence[str]) -> str:
    """The README's section: what something is asked of, two plots, the machine and the day."""
    rows = [
        measure_row(each) for found in report.findings for each in found.measures if each.must is not None
    ]
    chosen = [plot for plot in README_PLOTS if plot in plots][:2]
    parts = [
        headline(report),
        table(MEASURE_HEAD, rows),
        "\n".join(f"![{title_of(plot)}](bench/results/{plot}.svg)" for plot in chosen),
        "All figures, loads and checks: [bench/results/results.md](bench/results/results.md).",
    ]
    return "\n\n".join(part for part in parts if part)


def update_readme(path: Path = ROOT / "README.md", folder: Path = RESULTS) -> None:
    """Put the section between its two marks. ValueError when they are not there once each, in order."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(README_BEGIN)
    _, end, after = rest.partition(README_END)
    if not begin or not end or README_BEGIN in rest or README_END in before + after:
        raise ValueError(f"{path.name} needs the lines {README_BEGIN} and {README_END}, once each")
    section = readme(read(folder), plots_in(folder))
    path.write_text(f"{before}{README_BEGIN}\n\n{section}\n\n{README_END}{after}", encoding="utf-8")


def headline(report: Report) -> str:
    """When, on what, how long, and how many limits are met."""
    machine = report.machine
    known = [f"{machine['cores']} cores" if "cores" in machine else "", machine.get("cpu", "")]
    known += [f"{machine['memory']} of memory" if "memory" in machine else ""]
    known += [f"a sync takes {machine['fsync p50']} (p50)" if "fsync p50" in machine else ""]
    minutes = (
        f"{report.seconds / 60:.0f} minutes" if report.seconds >= 120 else f"{report.seconds:.0f} seconds"
    )
    limited = [each for found in report.findings for each in found.measures if each.must is not None]
    met = sum(each.verdict != "missed" for each in limited)
    return (
        f"Measured on {report.started_at[:10]} in {minutes}: {', '.join(filter(None, known))}."
        f" {met} of {len(limited)} musts are met."
    )


def machine_rows(report: Report) -> list[list[str]]:
    return [["started at", report.started_at], *([name, text] for name, text in report.machine.items())]


MEASURE_HEAD = ["id", "what", "median", "range", "must", "aim", "verdict"]


def measure_row(measure: Measure) -> list[str]:
    sign = "≥" if measure.more_is_better else "≤"
    low, high = min(measure.rounds), max(measure.rounds)
    limits = [
        "" if limit is None else f"{sign} {limit:,g}{unit_after(measure.unit)}"
        for limit in (measure.must, measure.aim)
    ]
    spread = f"{number(low)} to {number(high)}" if len(measure.rounds) > 1 else ""
    return [
        measure.scenario,
        measure.what,
        figure(measure.median, measure.unit),
        spread,
        *limits,
        MARKS[measure.verdict],
    ]


LOAD_HEAD = [
    *("side", "s", "offered", "sent", "answered", "refused", "dropped", "unread", "broken"),
    *("answered/s", "p50 ms", "p99 ms", "p99.9 ms", "generator"),
]


def load_row(load: Load) -> list[str]:
    counts = (load.offered, load.sent, load.answered, load.refused, load.dropped, load.unread, load.broken)
    latencies = (load.p50_ms, load.p99_ms, load.p999_ms)
    share = load.generator_cpu_share
    return [
        load.side,
        number(load.seconds),
        *(f"{count:,}" for count in counts),
        number(load.rate),
        *("" if latency is None else number(latency) for latency in latencies),
        "" if share is None else f"{share:.0%}",
    ]


def scenario_parts(found: Findings) -> list[str]:
    return [
        f"## {found.scenario} {found.title}",
        f"It took {found.seconds:.0f} s." if found.seconds else "",
        table(LOAD_HEAD, map(load_row, found.loads)),
        bullets(map(check_line, found.checks)),
        bullets(found.notes),
    ]


def check_line(check: Check) -> str:
    verify = "verify passes" if check.verify_ok else "**verify fails**"
    counts = f"{check.acknowledged:,} payments acknowledged, {check.in_ledger:,} in the ledger"
    return f"{counts}; {verify}" + ("" if check.ok else ": **this is no result**")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown; "" without rows. Columns of figures stand to the right."""
    body = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    if not body:
        return ""
    columns = list(zip(*body, strict=True))
    rule = ["--:" if all(is_figure(cell) for cell in column) else "---" for column in columns]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])


def is_figure(cell: str) -> bool:
    return not cell or cell.lstrip("≥≤ ")[:1].isdigit()


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def figure(value: float, unit: str) -> str:
    """A value with its unit: "0.62x", "12.3 ms", "12,345/s"."""
    return f"{number(value)}{unit_after(unit)}"


def unit_after(unit: str) -> str:
    return {"x": "x", "1/s": "/s"}.get(unit, f" {unit}")


def number(value: float) -> str:
    """Three figures of a value, and all of those before the point."""
    for least, digits in ((100, 0), (10, 1), (0.1, 2)):
        if abs(value) >= least:
            return f"{value:,.{digits}f}"
    return f"{value:.3g}"


def title_of(plot: str) -> str:
    return plot.replace("-", " ").capitalize()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.report")
    parser.add_argument("--readme", action="store_true", help="also put the section into the README")
    options = parser.parse_args()
    if not (RESULTS / "results.json").exists():
        print(f"bench: there is no {os.path.relpath(RESULTS)}/results.json: make bench", file=sys.stderr)
        return 1
    render(read(), RESULTS)
    if options.readme:
        update_readme()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
