"""Plots as SVG, the same bytes for the same figures. matplotlib comes from requirements/bench.txt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.results import Series


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """How a plot is drawn. A logarithmic x axis has its ticks where points are."""

    title: str
    x: str
    y: str
    log_x: bool = False
    log_y: bool = False


PICTURES = {
    "rate-over-connections": Picture(
        title="Payments over 10,000 loans",
        x="connections",
        y="requests a second",
        log_x=True,
    ),
    "p99-over-offered-rate": Picture(
        title="Latency from the intended send time",
        x="offered, requests a second",
        y="p99, ms",
        log_y=True,
    ),
    "rate-over-skew": Picture(
        title="The fewer loans, the hotter each",
        x="loans that all payments go to",
        y="payments a second",
        log_x=True,
        log_y=True,
    ),
    "billing-time-over-loans": Picture(
        title="Billing a book of due loans",
        x="loans due",
        y="seconds",
        log_x=True,
        log_y=True,
    ),
    "bytes-over-resident-loans": Picture(
        title="Memory of loans held ready",
        x="resident loans",
        y="bytes a loan",
        log_x=True,
    ),
}

# Okabe and Ito's colours, told apart by most eyes; the first is ledgerd's.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = "osD^vP"
INK, GRID, PAPER = "#24292f", "#d8dee4", "#ffffff"  # paper of its own, for README pages light and dark
NAME_GAP = 0.07  # of the height, between two names
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "ledgerd",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw(series: Sequence[Series], folder: Path, kind: str = "svg") -> list[Path]:
    """Draw each plot that has points into `<plot>.svg`, and return the files."""
    plots: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for each in filter(lambda each: each.points, series):
        plots.setdefault(each.plot, {}).setdefault(each.name, []).extend(each.points)
    made = []
    for plot, lines in plots.items():
        path = folder / f"{plot}.{kind}"
        with mpl.rc_context(STYLE):
            figure = picture(PICTURES.get(plot) or unknown(plot), lines)
            figure.savefig(path, metadata={"Date": None, "Creator": None} if kind == "svg" else None)
        made.append(path)
    return made


def unknown(plot: str) -> Picture:
    """A plot that no one has described: "y-over-x" says its axes."""
    y, _, x = plot.replace("-", " ").partition(" over ")
    return Picture(title=plot.replace("-", " ").capitalize(), x=x, y=y)


def picture(look: Picture, lines: dict[str, list[tuple[float, float]]]) -> Figure:
    """Draw lines with their names at their ends, so that no legend has to be matched by colour."""
    figure = Figure(
        figsize=(7.2, 4.0), layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15), facecolor=PAPER
    )
    axes = figure.add_subplot(facecolor=PAPER)
    axes.set_title(look.title, loc="left", fontsize=13, fontweight="bold", pad=12)
    ends = []
    for number, (name, points) in enumerate(lines.items()):
        x, y = zip(*sorted(points), strict=True)
        colour = COLOURS[number % len(COLOURS)]
        ends.append((x[-1], y[-1], name, colour))
        axes.plot(
            x,
            y,
            color=colour,
            marker=MARKERS[number % len(MARKERS)],
            markersize=6,
            markeredgecolor=PAPER,
            linewidth=2,
            clip_on=False,
            zorder=3,
        )
    scale(axes, look, sorted({x for points in lines.values() for x, _ in points}))
    axes.set_xlabel(look.x, labelpad=8)
    axes.set_ylabel(look.y, labelpad=8)
    axes.grid(visible=True, axis="y", color=GRID, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0, pad=6)
    name_lines(axes, ends)
    return figure


def name_lines(axes: Axes, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Write the name of each line in its colour beside its end (x, y, name, colour), all apart."""
    to_fraction = axes.transData + axes.transAxes.inverted()
    heights = [(float(to_fraction.transform([(x, y)])[0][1]), name, colour) for x, y, name, colour in ends]
    at = -math.inf
    for height, name, colour in sorted(heights):
        at = max(height, at + NAME_GAP)
        axes.text(1.02, at, name, transform=axes.transAxes, color=colour, fontweight="bold", va="center")


def scale(axes: Axes, look: Picture, xs: Sequence[float]) -> None:
    """Set linear scales from 0, or logarithmic ones with ticks that read as numbers."""
    plain = FuncFormatter(lambda value, _position: short(value))
    if look.log_x and xs[0] > 0:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(apart(xs)))
        axes.xaxis.set_minor_locator(NullLocator())
    else:
        axes.set_xlim(left=0)
    low, high = axes.dataLim.intervaly
    if look.log_y and low > 0:
        axes.set_yscale("log")
        ticks = steps(low, high)
        axes.set_ylim(ticks[0], max(ticks[-1], high))
        axes.yaxis.set_major_locator(FixedLocator(ticks))
        axes.yaxis.set_minor_locator(NullLocator())
    else:
        axes.set_ylim(0, high * 1.1 or 1)
    axes.xaxis.set_major_formatter(plain)
    axes.yaxis.set_major_formatter(plain)


def apart(xs: Sequence[float]) -> list[float]:
    """The points that leave room for their labels: half an octave at least, the last always."""
    kept: list[float] = []
    for x in reversed(xs):
        if not kept or kept[-1] / x >= 1.5:
            kept.append(x)
    return kept[::-1]


def steps(low: float, high: float) -> list[float]:
    """Ticks from just below `low` to just above `high`: 1, 2, 5 x 10^n, or past three decades 10^n alone."""
    digits = (1, 2, 5) if high / low <= 1_000 else (1,)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = [digit * 10.0**power for power in range(first, last + 1) for digit in digits]
    below = [each for each in ticks if each <= low * 1.001]
    above = [each for each in ticks if each >= high * 0.999]
    return [each for each in ticks if below[-1] <= each <= above[0]]


def short(value: float) -> str:
    """A tick: "12,000", "0.5", "1 M" for a million."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g} M"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:g}"
