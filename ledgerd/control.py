"""Commands on a database, whether or not it is served: through the running service's Unix socket, else by
opening it here.

The socket lies beside the database and is its owner's alone (0600). A command is a POST of a JSON object; the
answer is a stream of JSON lines: any number of {"progress": [done, total, rows a second]}, then one
{"result": ..} or {"error": "one line"}.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
from aiohttp import ClientError, ClientPayloadError, ClientSession, ClientTimeout, UnixConnector, web

from ledgerd.app import Service, open_service
from ledgerd.config import Config
from ledgerd.domain.calendar import format_day, parse_day
from ledgerd.http.clients import Refusal
from ledgerd.http.keyring import rotate_keyring
from ledgerd.http.operations import run_shown
from ledgerd.scheduler.importer import ImportFailed
from ledgerd.storage.files import check_there, is_owned
from ledgerd.storage.keyfiles import KeyFileError
from ledgerd.storage.ports import StoreError


class Progress(Protocol):
    """Hears how much is done of how much, and how fast where that is told in rows."""

    def __call__(self, done: int, total: int, rows_per_s: int = 0, /) -> None: ...


Command = Callable[[Service, dict[str, Any], Progress], Awaitable[Any]]

POLL_S = 0.2
# How long a command waits for a service that is starting to open its socket, or for one that ends to end.
OWNER_PATIENCE_S = 15.0
OWNER_LOOK_S = 0.1
NEED_A_DATABASE = frozenset({"backup"})  # a copy of nothing would look like one of something
STOP_PATIENCE_S = 1.0  # how long a stop waits for commands; one that is cut off may be run again


class CommandFailed(Exception):
    """A command that was not done; the message is one line that says what to do."""


# The commands ------------------------------------------------------------------------------------


async def create_client(service: Service, args: dict[str, Any], _progress: Progress) -> Any:
    """Make a client: {name, scopes} -> {client_id, client_secret, scopes}."""
    made = await service.services.accounts.create_client(args["name"], args["scopes"])
    if isinstance(made, Refusal):
        raise CommandFailed(made.detail)
    return {"client_id": made.client_id, "client_secret": made.client_secret, "scopes": list(made.scopes)}


async def bill(service: Service, args: dict[str, Any], progress: Progress) -> Any:
    """Bill what is due: {date or null} -> the run."""
    today = await service.services.clock.turn()
    through = today if args.get("date") is None else parse_day(args["date"])
    if through is None or through > today:
        raise CommandFailed(f"--date must be a date up to today's business date, {format_day(today)}")
    return msgspec.to_builtins(run_shown(await service.billing.run(through, progress)))


async def import_transactions(service: Service, args: dict[str, Any], progress: Progress) -> Any:
    """Import a CSV of bank history: {path} -> what it did."""
    path = Path(args["path"])
    check_seen(path, args)
    try:
        return msgspec.to_builtins(await service.import_transactions(path, progress))
    except ImportFailed as error:
        raise CommandFailed(str(error)) from None


async def rotate_keys(service: Service, _args: dict[str, Any], _progress: Progress) -> Any:
    """Sign tokens with a new key from now on: {} -> {kid}."""
    auth, chance = service.config.auth, service.chance
    keyring = rotate_keyring(auth.keys_path, chance.time_s(), chance.random_bytes, auth.access_ttl_s)
    service.services.tokens.use_keyring(keyring)
    return {"kid": keyring.signing.kid}


async def backup(service: Service, args: dict[str, Any], _progress: Progress) -> Any:
    """Copy the database into a new folder: {path} -> {}."""
    check_seen(Path(args["path"]), args)
    try:
        await service.store.backup(args["path"])
    except (OSError, RuntimeError) as error:
        raise CommandFailed(f"{args['path']}: {error}") from None
    return {}


def folder_seen(path: Path) -> list[int] | None:
    """Return what tells the folder of a path from every other, or None when it can't be seen."""
    try:
        status = path.parent.stat()
    except OSError:
        return None
    return [status.st_dev, status.st_ino]


def check_seen(path: Path, args: dict[str, Any]) -> None:
    """Refuse a path that is another one for whoever asked: a unit of systemd may have a /tmp of its own."""
    seen = args.get("folder_seen")
    if seen is not None and seen != folder_seen(path):
        raise CommandFailed(f"{path.parent}: is another folder for the service: choose one that both can see")


COMMANDS: dict[str, Command] = {
    "create_client": create_client,
    "bill": bill,
    "import_transactions": import_transactions,
    "rotate_keys": rotate_keys,
    "backup": backup,
}


# The running service's end -------------------------------------------------------------------------


@asynccontextmanager
async def control_socket(service: Service) -> AsyncIterator[None]:
    """Take commands on the socket beside the database while the service runs."""
    path = service.config.storage.socket_path
    if path is None:
        yield
        return
    app = web.Application()
    app.router.add_post("/{command}", _Commands(service).handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_PATIENCE_S)
    await runner.setup()
    path.unlink(missing_ok=True)  # a dead one: the database's lock is ours
    with _Address(path) as address:
        before = os.umask(0o177)
        try:
            await web.UnixSite(runner, address).start()
        finally:
            os.umask(before)
        try:
            yield
        finally:
            await runner.cleanup()
            path.unlink(missing_ok=True)


class _Commands:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def handle(self, request: web.Request) -> web.StreamResponse:
        command = COMMANDS.get(request.match_info["command"])
        if command is None:
            raise web.HTTPNotFound
        args = msgspec.json.decode(await request.read())
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        last: tuple[int, int, int] | None = None
        shown: tuple[int, int, int] | None = None

        def progress(done: int, total: int, rows_per_s: int = 0, /) -> None:
            nonlocal last
            last = (done, total, rows_per_s)

        task = asyncio.get_running_loop().create_task(_run(command, self._service, args, progress))
        try:
            while not task.done():
                await asyncio.wait([task], timeout=POLL_S)
                if last != shown:
                    shown = last
                    await response.write(msgspec.json.encode({"progress": shown}) + b"\n")
        finally:  # the service stops, or whoever asked has gone
            task.cancel()
            await asyncio.wait([task])
        await response.write(msgspec.json.encode(task.result()) + b"\n")
        return response


async def _run(
    command: Command, service: Service, args: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    try:
        return {"result": await command(service, args, progress)}
    except (CommandFailed, StoreError, KeyFileError) as error:
        return {"error": str(error)}


# The command line's end ----------------------------------------------------------------------------


async def run_command(config: Config, name: str, args: dict[str, Any], progress: Progress) -> Any:
    """Run a command through the service that serves this database, or on the database itself when none does.

    Raises CommandFailed, StoreError or KeyFileError.
    """
    path, lock = config.storage.socket_path, config.storage.lock_path
    if path is None or lock is None:
        raise CommandFailed("a database in memory ends with its service: name a file in [storage] url")
    try:
        if "path" in args:
            args = {**args, "folder_seen": folder_seen(Path(args["path"]))}
        encoded = msgspec.json.encode(args)
    except UnicodeEncodeError:
        raise CommandFailed("what the command was given is not UTF-8: write it so") from None
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + OWNER_PATIENCE_S
    while True:
        if path.exists():
            try:
                return await _call(path, name, encoded, progress)
            except ConnectionRefusedError:
                pass  # left behind by a service that was killed
        overdue = loop.time() > deadline_s
        if is_owned(lock) and not overdue:
            await asyncio.sleep(OWNER_LOOK_S)  # its owner has just started, or is about to end
            continue
        try:
            return await _run_here(config, name, args, progress)
        except StoreError:
            if overdue or not is_owned(lock):
                raise  # else a service came first meanwhile


async def _run_here(config: Config, name: str, args: dict[str, Any], progress: Progress) -> Any:
    storage = config.storage
    if name in NEED_A_DATABASE and storage.tables_path is not None and storage.journal_path is not None:
        check_there(storage.tables_path, storage.journal_path)
    service = await open_service(config, background=False)
    try:
        answer = await _run(COMMANDS[name], service, args, progress)
    finally:
        await service.close()
    return _result(answer)


async def _call(path: Path, name: str, args: bytes, progress: Progress) -> Any:
    with _Address(path) as address:
        async with ClientSession(
            connector=UnixConnector(address), timeout=ClientTimeout(total=None)
        ) as session:
            try:
                async with session.post(f"http://ledgerd/{name}", data=args) as response:
                    response.raise_for_status()
                    async for line in response.content:
                        answer = msgspec.json.decode(line)
                        if "progress" not in answer:
                            return _result(answer)
                        progress(*answer["progress"])
            except ClientPayloadError:
                pass  # cut off
            except ClientError as error:
                if isinstance(getattr(error, "os_error", None), ConnectionRefusedError):
                    raise ConnectionRefusedError from error
                raise CommandFailed(f"the running service did not answer: {error}") from error
    raise CommandFailed("the running service stopped before the command ended; run it again")


def _result(answer: dict[str, Any]) -> Any:
    if "error" in answer:
        raise CommandFailed(answer["error"])
    return answer["result"]


class _Address:
    """A socket's path in a form that fits: beyond about 107 bytes, through a descriptor of its folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder: int | None = None

    def __enter__(self) -> str:
        if len(os.fsencode(self._path)) < 100:
            return str(self._path)
        self._folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._folder}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        if self._folder is not None:
            os.close(self._folder)
