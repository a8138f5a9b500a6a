"""What deploy/prometheus/ asks for is what the service measures, and leads to a page that is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from ledgerd.metrics import Metrics

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy" / "prometheus"
RULES = yaml.safe_load((FOLDER / "ledgerd.rules.yml").read_text("utf-8"))["groups"][0]["rules"]


def test_every_metric_of_an_alert_is_measured():
    text = Metrics().render().decode()
    known = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    known |= {f"{name}_bucket" for name in known}
    for rule in RULES:
        for name in re.findall(r"\bledgerd_\w+", rule["expr"]):
            assert name in known, f"{rule['alert']}: {name}"


def test_every_metric_of_the_dashboard_is_measured_and_no_panel_hides_another():
    text = Metrics().render().decode()
    known = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    known |= {f"{name}_{part}" for name in known for part in ("bucket", "sum", "count")}
    panels = json.loads((ROOT / "deploy" / "grafana" / "ledgerd.json").read_text("utf-8"))["panels"]
    places = set()
    for panel in panels:
        for target in panel.get("targets", ()):
            for name in re.findall(r"\bledgerd_(?!store_)\w+", target["expr"]):
                assert name in known, f"{panel['title']}: {name}"
        place = panel["gridPos"]
        squares = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not squares & places, panel["title"]
        places |= squares
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_every_alert_says_how_bad_it_is_and_what_to_do():
    runbook = (ROOT / "docs" / "runbook.md").read_text("utf-8")
    headings = re.findall(r"^#+ (.+)$", runbook, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    anchors |= set(re.findall(r'<a id="([\w-]+)">', runbook))
    for rule in RULES:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]
        path, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (ROOT / path).exists()
        assert anchor in anchors, rule["alert"]


def test_every_alert_is_tried_both_ways():
    text = (FOLDER / "ledgerd.rules.test.yml").read_text("utf-8")
    for rule in RULES:
        assert len(re.findall(rf"\b{rule['alert']}\b", text)) == 2, rule["alert"]
