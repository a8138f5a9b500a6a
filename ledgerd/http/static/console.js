// The console's own script: draws what pages say in data-plot, and nothing else. Pages are whole without it.
"use strict";

(() => {
  const colours = ["--first", "--second", "--third", "--fourth"];

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  // 1,23,45,678 as India groups it; the axes have little room: lakhs and crores there.
  const whole = new Intl.NumberFormat("en-IN", { maximumFractionDigits: 2 });

  function short(value) {
    if (Math.abs(value) >= 1e7) return `${whole.format(value / 1e7)} cr`;
    if (Math.abs(value) >= 1e5) return `${whole.format(value / 1e5)} L`;
    return whole.format(value);
  }

  function day(seconds, place) {
    const date = new Date(seconds * 1000);
    const text = date.toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
    return place === 0 ? `${text}\n${date.getUTCFullYear()}` : text;
  }

  function clock(seconds) {
    return new Date(seconds * 1000).toLocaleTimeString("en-GB");
  }

  // A plot is {x: [..seconds since 1970..], series: [{label, values, kind}], unit}, with kind "line", "steps",
  // "bars" or "points".
  function draw(element) {
    const plot = JSON.parse(element.dataset.plot);
    const paths = { steps: uPlot.paths.stepped({ align: 1 }), bars: uPlot.paths.bars({ size: [0.7, 40] }) };
    const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
    const hasBars = plot.series.some((one) => one.kind === "bars");
    const margin = (first, last) => (hasBars ? Math.max(43200, (last - first) * 0.03) : 0);
    const series = plot.series.map((one, number) => ({
      label: one.label,
      stroke: colour(colours[number % colours.length]),
      fill: one.kind === "bars" ? `${colour(colours[number % colours.length])}55` : undefined,
      width: one.kind === "points" ? 0 : 2,
      paths: one.kind === "points" ? () => null : paths[one.kind],
      points: { show: one.kind === "points", size: 7, fill: colour(colours[number % colours.length]) },
      value: (_, value) => (value == null ? "-" : `${whole.format(value)}${plot.unit ? ` ${plot.unit}` : ""}`),
      spanGaps: one.kind === "steps",
    }));
    const options = {
      width: element.clientWidth || 600,
      height: Math.max(220, Math.min(320, window.innerHeight / 2)),
      tzDate: (seconds) => (plot.times ? new Date(seconds * 1000) : uPlot.tzDate(new Date(seconds * 1000), "UTC")),
      scales: {
        x: { range: (_, first, last) => [first - margin(first, last), last + margin(first, last)] },
        y: { range: (_, least, most) => [Math.min(0, least), most > 0 ? most * 1.05 : 1] },
      },
      axes: [
        { ...axis, space: plot.times ? 80 : 60, values: (_, ticks) => ticks.map(plot.times ? clock : day) },
        { ...axis, size: 72, values: (_, ticks) => ticks.map(short) },
      ],
      series: [{ value: plot.times ? "{HH}:{mm}:{ss}" : "{D} {MMM} {YYYY}" }, ...series],
    };
    element.replaceChildren();
    return new uPlot(options, [plot.x, ...plot.series.map((one) => one.values)], element);
  }

  const drawn = new Map(); // element -> {plot, text}

  function drawAll() {
    for (const element of drawn.keys()) {
      if (!element.isConnected) {
        drawn.get(element).plot.destroy();
        drawn.delete(element);
      }
    }
    for (const element of document.querySelectorAll("[data-plot]")) {
      const text = element.dataset.plot;
      if (drawn.get(element)?.text !== text) drawn.set(element, { plot: draw(element), text });
    }
  }

  function again() {
    for (const [element, one] of drawn) {
      one.plot.destroy();
      drawn.set(element, { plot: draw(element), text: one.text });
    }
  }

  drawAll();
  document.addEventListener("htmx:after:swap", drawAll);
  window.addEventListener("resize", again);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);

  for (const button of document.querySelectorAll("[data-print]")) {
    button.hidden = false;
    button.addEventListener("click", () => window.print());
  }
})();
