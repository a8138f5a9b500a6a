"""What deploy/ says against what the service takes: times, limits, paths, names; and a wheel is whole."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from configparser import ConfigParser
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import typer
import yaml

from ledgerd.cli import app
from ledgerd.config import Config, Server
from ledgerd.config_file import ignored_variables, load_config
from ledgerd.control import STOP_PATIENCE_S as COMMANDS_PATIENCE_S
from ledgerd.server import FILES_BESIDES
from ledgerd.storage.remote import STOP_PATIENCE_S as STORE_PATIENCE_S
from tests.process import serving, write_config

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
# A stop waits for requests, then for connections, for commands, and for the store to close its files.
STOP_S = 2 * Server().shutdown_timeout_s + COMMANDS_PATIENCE_S + STORE_PATIENCE_S
FILES = Server().connections + FILES_BESIDES
STATE, BACKUPS = Path("/var/lib/ledgerd"), Path("/var/backups/ledgerd")


def check_paths(config: Config) -> None:
    """What it writes is below the folder that is kept."""
    assert config.storage.tables_path == STATE / "ledgerd.db"
    assert config.auth.keys_path == STATE / "keys"


def is_served_by(entry: list[str]) -> bool:
    """Whether a command line runs the service."""
    commands = typer.main.get_command(app).commands
    return Path(entry[0]).name == "ledgerd" and entry[1] == "serve" and "serve" in commands


# The wheel ---------------------------------------------------------------------------------------


def test_a_wheel_has_every_file_of_the_package(tmp_path: Path):
    """Built as `pip install` builds it, of a copy, since it leaves things beside its source."""
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "ledgerd", tmp_path / "ledgerd", ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, check=True)
    [wheel] = tmp_path.glob("*.whl")
    packed = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    there = {path for path in (tmp_path / "ledgerd").rglob("*") if path.is_file()}
    assert packed == {path.relative_to(tmp_path).as_posix() for path in there}
    assert {Path(name).suffix for name in packed} >= {".py", ".sql", ".html", ".css", ".json", ".typed"}


# systemd -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unit() -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[method-assign, assignment]
    parser.read_string((DEPLOY / "ledgerd.service").read_text("utf-8"))
    return parser


def test_the_unit_waits_longer_than_a_stop_may_take(unit: ConfigParser):
    assert unit.getint("Service", "TimeoutStopSec") >= STOP_S + 10


def test_the_unit_lets_it_have_a_file_for_every_connection(unit: ConfigParser):
    assert unit.getint("Service", "LimitNOFILE") >= FILES


def test_the_unit_speaks_to_the_process_that_speaks_to_it(unit: ConfigParser):
    service = unit["Service"]
    assert (service["Type"], service["NotifyAccess"], service["KillSignal"]) == ("notify", "main", "SIGTERM")
    assert service["Restart"] == "on-failure"
    assert unit.getint("Service", "WatchdogSec") > 2  # a sign of life each half of it
    # Memory holds keys, and so would a core that the watchdog's signal leaves.
    assert service["LimitCORE"] == "0"


def test_the_unit_s_configuration_writes_where_the_unit_may_write(unit: ConfigParser):
    service, config_path = unit["Service"], DEPLOY / "config.toml"
    entry = service["ExecStart"].split()
    assert is_served_by(entry)
    assert entry[2:] == ["--config", "/etc/ledgerd/config.toml"]
    assert config_path.read_text("utf-8").startswith("# /etc/ledgerd/config.toml ")
    assert Path("/var/lib") / service["StateDirectory"] == STATE
    assert service["ReadWritePaths"] == f"-{BACKUPS}"
    check_paths(load_config(config_path, {}))


# The container -----------------------------------------------------------------------------------


@cache
def dockerfile() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile, each with what it is given."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text("utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", "").splitlines()
    return [(name, given.strip()) for name, _, given in (line.partition(" ") for line in lines) if name]


def given(instruction: str) -> str:
    """What the last such instruction of the Dockerfile is given."""
    return [given for name, given in dockerfile() if name == instruction][-1]


def environment() -> dict[str, str]:
    """The variables of the image that is run."""
    return dict(pair.split("=", 1) for pair in given("ENV").split())


def health() -> list[str]:
    command: list[str] = json.loads(given("HEALTHCHECK").partition(" CMD ")[2])
    return command


def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return parsed


def test_the_image_is_built_of_what_is_there_and_not_ignored():
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    sources = [
        source
        for name, given in dockerfile()
        if name == "COPY" and not given.startswith("--from=build ")
        for source in given.split()[:-1]
    ]
    assert len(sources) == 5
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{Path(source).parent / '*.txt' if source.endswith('.txt') else source}" in ignored, source


def test_both_stages_are_of_one_python():
    bases = [given.split()[0] for name, given in dockerfile() if name == "FROM"]
    assert bases == 2 * ["python:${PYTHON}-slim"]
    assert given("ARG") == "PYTHON=3.11"


def test_the_image_runs_the_service_as_a_user_that_writes_its_volumes_alone():
    assert is_served_by(json.loads(given("ENTRYPOINT")) + json.loads(given("CMD")))
    assert given("STOPSIGNAL") == "SIGTERM"
    assert int(given("USER")) > 0
    assert json.loads(given("VOLUME")) == [str(STATE), str(BACKUPS)]
    assert environment()["PATH"].startswith("/opt/ledgerd/bin:")
    assert ignored_variables(environment()) == []
    config = load_config(None, environment())
    check_paths(config)
    assert str(config.server.port) == given("EXPOSE")


def test_the_image_s_health_is_that_of_the_service(tmp_path: Path):
    python, *rest = health()
    assert python == "python"

    def exit_code(port: int) -> int:
        command = [sys.executable, *(word.replace(":8080/", f":{port}/") for word in rest)]
        return subprocess.run(command, capture_output=True, check=False).returncode

    with serving(write_config(tmp_path)) as service:
        assert exit_code(service.port) == 0
    assert exit_code(service.port) == 1  # which is how a container says it


def test_compose_gives_it_what_the_unit_gives_it():
    service = compose()["services"]["ledgerd"]
    assert (ROOT / "deploy" / service["build"]["context"] / service["build"]["dockerfile"]).resolve() == (
        DEPLOY / "Dockerfile"
    )
    assert service["healthcheck"]["test"] == ["CMD", *health()]
    assert int(service["stop_grace_period"].removesuffix("s")) >= STOP_S + 10
    assert service["ulimits"]["nofile"] >= FILES
    assert service["ulimits"]["core"] == 0
    assert [volume.partition(":")[2] for volume in service["volumes"]] == json.loads(given("VOLUME"))
    assert set(compose()["volumes"]) == {volume.partition(":")[0] for volume in service["volumes"]}
    assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert ignored_variables(service["environment"]) == []
    config = load_config(None, {**environment(), **service["environment"]})
    assert service["ports"] == [f"127.0.0.1:8080:{config.server.port}"]
