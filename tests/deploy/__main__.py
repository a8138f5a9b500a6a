"""`make check-deploy`: Debian's Prometheus scrapes a real service, and every query of the dashboard and the
alerts is asked of it. promtool checks the rules and runs their tests.

As root with apt-get, Prometheus is installed when it is missing; else this fails with the command to type.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "ledgerd.rules.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "ledgerd.json"
INSTALL = ["apt-get", "install", "--yes", "--no-install-recommends", "prometheus"]
PATIENCE_S = 60
SCRAPES = 5
# They have no series as long as nothing was ever refused at a limit, or failed.
MAY_BE_EMPTY = ("ledgerd_overloaded_total", 'status="500"')
COMPARED = re.compile(r"\s*[<>=]=?\s*(?:[\d.]+|ledgerd_disk_reserve_bytes)(?=\s|$)")


def need_prometheus() -> None:
    """Install it when it is missing, or end."""
    if shutil.which("promtool") and shutil.which("prometheus"):
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        sys.exit(f"Prometheus is missing. On Debian: sudo {' '.join(INSTALL)}")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "--quiet"], env=environ, check=True)
    subprocess.run(INSTALL, env=environ, check=True)


def queries() -> Iterator[tuple[str, str]]:
    """Where each query stands, and the query: of an alert without its comparison, which is mostly false."""
    for rule in yaml.safe_load(RULES.read_text("utf-8"))["groups"][0]["rules"]:
        for part in re.split(r"\band(?: on \(\w+\))?", rule["expr"]):
            yield rule["alert"], COMPARED.sub("", part).strip()
    for panel in json.loads(DASHBOARD.read_text("utf-8"))["panels"]:
        for target in panel.get("targets", ()):
            expr = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "1m")
            yield panel["title"], expr


@contextmanager
def demo() -> Iterator[str]:
    """A service through whose doors a whole life has gone: its address."""
    command = [sys.executable, "-m", "ledgerd", "demo"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as process:
        try:
            assert process.stdout is not None
            address = ""
            for line in process.stdout:
                if found := re.search(r"listens on http://(\S+),", line):
                    address = found[1]
                if "Ctrl-C ends it" in line:
                    break
            yield address
        finally:
            process.terminate()


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[str]:
    """Prometheus, which scrapes the target each second: its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    scrape = {"job_name": "ledgerd", "scrape_interval": "1s", "static_configs": [{"targets": [target]}]}
    config = {"scrape_configs": [scrape], "rule_files": [str(RULES)]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log)
    try:
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(30)


def ask(address: str, query: str) -> list[Any]:
    """Return what a query gives now; raises when it is none."""
    url = f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=10) as answer:
        result: list[Any] = json.loads(answer.read())["data"]["result"]
    return result


def wait_for_scrapes(address: str) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        try:
            [counted] = ask(address, 'count_over_time(up{job="ledgerd"}[1m])') or [{"value": [0, "0"]}]
        except OSError:
            continue
        if int(counted["value"][1]) >= SCRAPES:
            return
    sys.exit("Prometheus does not get to scrape the service")


def main() -> int:
    need_prometheus()
    subprocess.run(["promtool", "check", "rules", RULES.name], cwd=RULES.parent, check=True)
    subprocess.run(["promtool", "test", "rules", "ledgerd.rules.test.yml"], cwd=RULES.parent, check=True)
    asked, wrong = 0, []
    with TemporaryDirectory() as folder, demo() as target, prometheus(target, Path(folder)) as address:
        wait_for_scrapes(address)
        for where, query in queries():
            asked += 1
            try:
                found = ask(address, query)
            except OSError as error:
                wrong.append(f"{where}: {query}: {error}")
                continue
            if not found and not any(name in query for name in MAY_BE_EMPTY):
                wrong.append(f"{where}: {query}: nothing found")
    sys.stdout.write("".join(f"{line}\n" for line in [*wrong, f"{asked} queries asked, {len(wrong)} wrong"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
