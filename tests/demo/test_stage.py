"""The stage: what is shown is checked, and a service that can't start says why."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from rich.console import Console

from ledgerd.config import Server
from ledgerd.demo.stage import DiffersError, Sandbox, Stage, expect, is_free


@pytest.fixture
def sandbox(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return Sandbox(Server(port=0))


@pytest.fixture
async def stage(sandbox):
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"payoff": "5.00", "open_bills": [{"number": 2}]})

    async def refuse(_request: web.Request) -> web.Response:
        return web.json_response({"detail": "It is too late."}, status=409)

    app = web.Application()
    app.router.add_get("/loan/", answer)
    app.router.add_post("/pay/", refuse)
    async with TestServer(app) as server, ClientSession() as session:
        sandbox.url = str(server.make_url("")).rstrip("/")
        yield Stage(sandbox, session, Console(file=io.StringIO(), width=100, highlight=False))
    await sandbox.close()


def shown(stage: Stage) -> str:
    return stage.console.file.getvalue()


async def test_figures_are_shown_and_checked(stage):
    await stage.call(200, "GET", "/loan/", figures={"payoff": "5.00", "open_bills.0.number": 2}, why="So.")
    assert "GET /loan/" in shown(stage)
    assert "200 OK   payoff=5.00   open_bills.0.number=2" in shown(stage)
    assert "So." in shown(stage)


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"payoff": "5.01"}, "GET /loan/: payoff is 5.00, expected 5.01"),
        ({"open_bills.0.number": "2"}, "GET /loan/: open_bills.0.number is 2, expected 2"),
        ({"open_bills.1.number": 2}, "GET /loan/: open_bills.1.number is missing, expected 2"),
        ({"unknown": ...}, "GET /loan/: unknown is missing, expected something"),
    ],
)
async def test_a_figure_that_differs_is_named(stage, figures, message):
    with pytest.raises(DiffersError) as raised:
        await stage.call(200, "GET", "/loan/", figures=figures)
    assert str(raised.value) == message


async def test_another_status_is_named_and_its_detail_is_shown(stage):
    with pytest.raises(DiffersError, match="the status is 409, expected 201"):
        await stage.call(201, "POST", "/pay/", {"amount": "1"}, figures={"payoff": "5.00"})
    assert "409 Conflict   detail=It is too late." in shown(stage)


async def test_secrets_are_not_shown(stage):
    with pytest.raises(DiffersError):
        await stage.call(200, "POST", "/pay/", {"password": "hush-hush", "client_secret": "hush-hush"})
    assert '"password": "..."' in shown(stage)
    assert "hush-hush" not in shown(stage)


def test_expect():
    expect("it", 1, 1)
    with pytest.raises(DiffersError, match="it is null, expected 1"):
        expect("it", None, 1)


async def test_a_taken_port_is_replaced(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken = listening.getsockname()[1]
        assert not is_free(Server(port=taken))
        sandbox = Sandbox(Server(port=taken))
        assert sandbox.config.server.port == 0
        await sandbox.close()
    assert is_free(Server(port=taken))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('[server]\nport = "many"\n', r"did not start: ledgerd: .*port: write a whole number"),
        ('[server]\nhost = "203.0.113.9"\n', r"did not start: ledgerd: "),
    ],
)
async def test_a_service_that_does_not_start_says_why(sandbox, config, message):
    sandbox.config_path.write_text(config)
    with pytest.raises(DiffersError, match=message):
        await sandbox.start()
    await sandbox.close()
    assert not sandbox.folder.exists()


def test_variables_are_quoted_for_a_shell(sandbox):
    sandbox.write_environment({"A": "Authorization: Bearer x", "B": "plain"})
    assert Path(sandbox.environment_path).read_text() == "A='Authorization: Bearer x'\nB=plain\n"
