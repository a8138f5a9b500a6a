"""The control socket: commands on a database that is served, and what a killed service leaves of it."""

from __future__ import annotations

import asyncio
import signal
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledgerd import control
from ledgerd.app import Service as OpenService
from ledgerd.app import open_service
from ledgerd.config import Config, Scheduler
from ledgerd.config_file import load_config
from ledgerd.control import CommandFailed, control_socket, run_command
from ledgerd.domain.commands import Disburse
from ledgerd.scheduler import billing
from ledgerd.scheduler.billing import STOPPING
from ledgerd.storage.remote import RemoteStore
from tests.crash.load import new_client
from tests.process import ledgerd_here, serving, write_config
from tests.storage.books import add_borrower, terms

CREATE = {"name": "till", "scopes": ["ops"]}


def silent(_done: int, _total: int, _rows_per_s: int) -> None:
    pass


@asynccontextmanager
async def listening(config: Config) -> AsyncIterator[OpenService]:
    """A service in this process, with its socket and without HTTP."""
    service = await open_service(config)
    try:
        async with control_socket(service):
            yield service
    finally:
        await service.close()


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when a command has looked whether somebody owns the database."""
    monkeypatch.setattr(control, "OWNER_LOOK_S", 0.001)
    event = asyncio.Event()
    is_owned = control.is_owned

    def watched(lock: Path) -> bool:
        event.set()
        return is_owned(lock)

    monkeypatch.setattr(control, "is_owned", watched)
    return event


async def test_a_command_waits_for_a_service_that_is_starting(config: Config, looked: asyncio.Event):
    async with asyncio.timeout(20):
        service = await open_service(config)  # it owns the database, and does not listen yet
        made = asyncio.create_task(run_command(config, "create_client", CREATE, lambda *_: None))
        await looked.wait()
        async with control_socket(service):
            assert (await made)["scopes"] == ["ops"]
        await service.close()


async def test_a_command_that_a_starting_service_came_before_goes_through_it(
    config: Config, monkeypatch: pytest.MonkeyPatch
):
    """Nobody owned the database when the command looked, and somebody did when it was about to open it."""
    opened = asyncio.Event()
    here, tries = control.open_service, 0

    async def came_second(config: Config, **options: Any) -> OpenService:
        nonlocal tries
        tries += 1
        opened.set()
        await serving.wait()
        return await here(config, **options)

    serving = asyncio.Event()
    monkeypatch.setattr(control, "open_service", came_second)
    async with asyncio.timeout(30):
        made = asyncio.create_task(run_command(config, "create_client", CREATE, lambda *_: None))
        await opened.wait()
        async with listening(config):
            serving.set()
            assert (await made)["scopes"] == ["ops"]
    assert tries == 1


async def test_a_command_waits_for_a_service_that_ends(config: Config, looked: asyncio.Event):
    async with asyncio.timeout(20):
        service = await open_service(config)
        made = asyncio.create_task(run_command(config, "create_client", CREATE, lambda *_: None))
        await looked.wait()
        await service.close()
        assert (await made)["scopes"] == ["ops"]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load_config(write_config(tmp_path), {})


def command(monkeypatch: pytest.MonkeyPatch, work: control.Command) -> None:
    """Let the service know a command of ours."""
    monkeypatch.setitem(control.COMMANDS, "work", work)


# The socket --------------------------------------------------------------------------------------


async def test_a_killed_service_leaves_a_socket_that_hinders_nobody(tmp_path: Path):
    config_path = write_config(tmp_path)
    socket_path = tmp_path / "ledgerd.db.sock"
    with serving(config_path) as service:
        assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
        service.signal(signal.SIGKILL)
        assert service.process.wait() == -signal.SIGKILL
    assert socket_path.is_socket()
    create = ("client", "create", "till", "--scope", "ops", "--config", config_path)
    made = await asyncio.to_thread(ledgerd_here, *create)  # perhaps while the orphaned store still ends
    assert (made.code, made.stderr) == (0, "")
    with serving(config_path) as service:
        await new_client(service, "ops")
    assert not socket_path.exists()


async def test_a_path_longer_than_an_address(tmp_path: Path):
    folder = tmp_path / ("long" * 20) / ("longer" * 20)
    config = load_config(write_config(folder), {})
    assert config.storage.socket_path is not None
    assert len(str(config.storage.socket_path)) > 107
    async with listening(config):
        assert config.storage.socket_path.is_socket()
        assert stat.S_IMODE(config.storage.socket_path.stat().st_mode) == 0o600
        assert (await run_command(config, "create_client", CREATE, silent))["scopes"] == ["ops"]
    assert not config.storage.socket_path.exists()
    assert (await run_command(config, "create_client", CREATE, silent))["scopes"] == ["ops"]


async def test_a_socket_that_nobody_listens_on_is_replaced(config: Config):
    path = config.storage.socket_path
    assert path is not None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert (await run_command(config, "create_client", CREATE, silent))["scopes"] == ["ops"]
    async with listening(config):
        assert (await run_command(config, "create_client", CREATE, silent))["scopes"] == ["ops"]


# Commands ----------------------------------------------------------------------------------------


async def test_progress_arrives_while_the_command_runs(config: Config, monkeypatch: pytest.MonkeyPatch):
    seen: list[tuple[int, int, int]] = []
    arrived = asyncio.Event()

    async def work(_service: OpenService, args: dict[str, Any], progress: control.Progress) -> Any:
        progress(1, 3)
        await arrived.wait()  # the caller has seen it before the command goes on
        progress(2, 3)
        progress(3, 3, 70)
        return {"got": args}

    def show(done: int, total: int, rows_per_s: int = 0) -> None:
        seen.append((done, total, rows_per_s))
        arrived.set()

    command(monkeypatch, work)
    async with listening(config), asyncio.timeout(20):
        assert await run_command(config, "work", {"n": [1, "x"]}, show) == {"got": {"n": [1, "x"]}}
    assert (seen[0], seen[-1]) == ((1, 3, 0), (3, 3, 70))


@pytest.mark.parametrize("served", [True, False])
async def test_a_command_that_is_refused_gives_its_one_line(config: Config, served: bool):
    async def refusals() -> list[str]:
        lines = []
        for name, args in (
            ("create_client", {"name": "till", "scopes": ["king"]}),
            ("bill", {"date": "2999-01-01"}),
            ("import_transactions", {"path": "/missing.csv"}),
            ("backup", {"path": "/dev/null/backup"}),
        ):
            with pytest.raises(CommandFailed) as failed:
                await run_command(config, name, args, silent)
            lines.append(str(failed.value))
        return lines

    if served:
        async with listening(config):
            lines = await refusals()
    else:
        lines = await refusals()
    for line, words in zip(lines, ("scope", "--date", "/missing.csv", "/dev/null/backup"), strict=True):
        assert words in line
        assert "\n" not in line


async def test_keys_that_are_damaged_meanwhile_are_named(config: Config):
    async with listening(config):
        [path] = config.auth.keys_path.glob("*.pem")
        path.write_bytes(b"")
        with pytest.raises(CommandFailed, match=r"the key file .* is damaged"):
            await run_command(config, "rotate_keys", {}, silent)


async def test_a_stop_cuts_a_command_off(config: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(control, "STOP_PATIENCE_S", 0.01)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work(_service: OpenService, _args: dict[str, Any], _progress: control.Progress) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    command(monkeypatch, work)
    async with asyncio.timeout(20):
        async with listening(config):
            caller = asyncio.create_task(run_command(config, "work", {}, silent))
            await begun.wait()
        assert ended.is_set()
        with pytest.raises(CommandFailed, match="the running service"):
            await caller


async def test_a_stop_ends_billing_and_tells_who_asked_for_it(config: Config):
    async with listening(config) as service:
        await service.drain()
        with pytest.raises(CommandFailed, match=STOPPING):
            await run_command(config, "bill", {}, silent)


@pytest.mark.parametrize("served", [True, False])
async def test_bill_tells_of_all_that_is_due_from_the_start(
    config: Config, served: bool, monkeypatch: pytest.MonkeyPatch
):
    """The pages go on one by one, each when the caller has seen the one before."""
    monkeypatch.setattr(billing, "PAGE_LOANS", 5)
    monkeypatch.setattr(billing, "WIDER", 1)
    monkeypatch.setattr(billing, "PROGRESS_S", 0.001)
    monkeypatch.setattr(control, "POLL_S", 0.001)
    config = msgspec.structs.replace(config, scheduler=Scheduler(billing_window=5))
    seen: list[tuple[int, int]] = []
    go_on = asyncio.Semaphore(2)
    read = RemoteStore.read

    async def one_by_one(store: RemoteStore, name: str, *params: Any) -> Any:
        if name == "loans_due":
            await go_on.acquire()
        return await read(store, name, *params)

    def show(done: int, total: int, _rows_per_s: int = 0) -> None:
        if total and (done, total) not in seen:
            seen.append((done, total))
            go_on.release()

    monkeypatch.setattr(RemoteStore, "read", one_by_one)
    service = await open_service(config)
    await lend(service, 20)
    await service.store.write("save_clock", "sandbox", service.services.clock.today() + 30)
    await service.close()
    async with asyncio.timeout(20):
        if served:
            async with listening(config):
                run = await run_command(config, "bill", {}, show)
        else:
            run = await run_command(config, "bill", {}, show)
    assert (run["due"], run["billed"], run["failed_loans"]) == (20, 20, [])
    assert {total for _, total in seen} == {20}
    assert len(seen) >= 3
    assert sorted(seen) == seen
    assert seen[-1] == (20, 20)


async def lend(service: OpenService, count: int) -> None:
    borrower_id = service.services.ids.new()
    await add_borrower(service.store, borrower_id)
    command = Disburse(borrower_id, terms(), 1_000)
    for _ in range(count):
        await service.registry.ask(service.services.ids.new(), command, new=True)
    await service.store.project_through(count)


async def test_a_command_that_this_version_does_not_know(config: Config):
    async with listening(config):
        with pytest.raises(CommandFailed, match="404"):
            await run_command(config, "unheard_of", {}, silent)
