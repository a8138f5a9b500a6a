"""What the demo stands on: a service of its own, and calls that are shown and checked.

What holds: every figure that is shown is checked too, and the first that differs raises. The service is a
child process on a directory of its own, so that it can be killed like any other. Used by the steps.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from types import EllipsisType
from typing import Any, Final

from aiohttp import ClientSession
from rich.box import SIMPLE
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ledgerd.config import Config, Server
from ledgerd.config_file import load_config
from ledgerd.sample import write_sample

PEOPLE: Final = 3_000
PATIENCE_S: Final = 60.0  # for the service to start, to score, or to stop
POLL_S: Final = 0.05
MISSING: Final = "missing"

Figures = Mapping[str, str | int | bool | EllipsisType | None]


class DiffersError(Exception):
    """A step went otherwise than it should; the message says what was expected and what came."""


class Sandbox:
    """The directory, and the service that runs on it as a process of its own.

    `server` says where to listen, on another port when its own is taken.
    """

    def __init__(self, server: Server) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ledgerd-demo-"))
        self.url = ""
        self._host = server.host
        self.config_path = self.folder / "config.toml"
        self.environment_path = self.folder / "try.env"  # variables for whoever wants to try things
        self.log_path = self.folder / "service.log"
        self.config_path.write_text(
            f'[server]\nhost = "{server.host}"\nport = {server.port if is_free(server) else 0}\n'
            '[clock]\nsandbox_start = "2026-01-01"\n'
            '[scoring]\ntransactions_csv = "bank-history.csv"\n'
            '[auth]\naccess_ttl_s = 86400\n[log]\nformat = "json"\n',
            encoding="utf-8",
        )
        self._service: asyncio.subprocess.Process | None = None

    @property
    def config(self) -> Config:
        """The configuration that the service runs with."""
        return load_config(self.config_path, {})

    @property
    def runs(self) -> bool:
        """Whether the service has been started and has not ended."""
        return self._service is not None and self._service.returncode is None

    def write_bank_history(self, balances_paise: Mapping[str, int]) -> None:
        """Write the CSV: these people, whose transactions come to that, and some thousand others."""
        write_sample(self.folder / "bank-history.csv", PEOPLE, seed=1, balances_paise=balances_paise)

    def write_environment(self, values: Mapping[str, str]) -> None:
        """Write variables for a shell."""
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in values.items()]
        self.environment_path.write_text("".join(lines), encoding="utf-8")

    async def run(self, *args: str) -> asyncio.subprocess.Process:
        """Start `ledgerd <args>` on this configuration, whatever variables whoever runs the demo has set."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("LEDGERD_")}
        with self.log_path.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "ledgerd", *args, "--config", str(self.config_path)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=environ,
                start_new_session=True,  # a Ctrl-C is for the demo, which then stops the service
            )

    async def start(self) -> None:
        """Start the service, wait until it takes requests, and learn its address."""
        before_bytes = self.log_path.stat().st_size if self.log_path.exists() else 0
        self._service = await self.run("serve")
        async with asyncio.timeout(PATIENCE_S):
            while True:
                port = self._ready_port(before_bytes)
                if port is not None:
                    break
                if self._service.returncode is not None:
                    raise DiffersError(f"the service did not start: {self.last_words()}")
                await asyncio.sleep(POLL_S)
        host = "127.0.0.1" if self._host in {"0.0.0.0", "::"} else self._host  # noqa: S104 - only read
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def _ready_port(self, after_bytes: int) -> int | None:
        """Return the port that the service's log names once it is ready; only what is whole is read."""
        text = self.log_path.read_bytes()[after_bytes:]
        for line in text.splitlines(keepends=True):
            if line.startswith(b"{") and line.endswith(b"\n"):
                said = json.loads(line)
                if said.get("event") == "ready":
                    return int(said["port"])
        return None

    async def kill(self) -> None:
        """End the service and its store as a power cut would: at once, with nothing tidied up."""
        assert self._service is not None
        store = int((self.folder / "ledgerd.db.lock").read_text(encoding="ascii").split()[-1])
        for process in (store, self._service.pid):
            os.kill(process, signal.SIGKILL)
        await self._service.wait()

    async def ended(self) -> int:
        """Wait until the service ends by itself."""
        assert self._service is not None
        return await self._service.wait()

    async def close(self) -> None:
        """Stop the service and remove the directory."""
        service = self._service
        if service is not None and service.returncode is None:
            service.terminate()
            try:
                await asyncio.wait_for(service.wait(), PATIENCE_S)
            except TimeoutError:
                service.kill()  # the store ends with it
                await service.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def last_words(self) -> str:
        """Return the last line of the service's log."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"


def is_free(server: Server) -> bool:
    """Return whether the service can listen where it is told to."""
    family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
    with socket.socket(family) as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((server.host, server.port))
        return True
    return False


class Stage:
    """What the steps share: the calls, who makes them, and the screen. `tokens` are by caller's name."""

    def __init__(self, sandbox: Sandbox, session: ClientSession, console: Console) -> None:
        self.sandbox = sandbox
        self.loan_id = ""
        self.tokens: dict[str, str] = {}
        self.credentials: dict[str, Any] = {}
        self.console = console
        self._session = session

    async def restart(self) -> None:
        """Start the service; kill it before, if it runs."""
        if self.sandbox.runs:
            await self.sandbox.kill()
        await self.sandbox.start()

    async def call(
        self,
        status: int,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        *,
        caller: str | None = None,
        headers: dict[str, str] | None = None,
        figures: Figures | None = None,
        why: str = "",
    ) -> Any:
        """Make a call, show it with the figures that matter, and check them; return the answer's body.

        `figures`: a dotted path into the answer -> what it must be, or `...` for what can't be foreseen.
        """
        got, shown_headers, answer = await self.send(method, path, body, caller, headers)
        self._show_call(method, path, body, caller, headers)
        replayed = "Idempotent-Replayed: true   " if "Idempotent-Replayed" in shown_headers else ""
        found = {place: _dig(answer, place) for place in figures or {}}
        self._show_answer(got, replayed, found if got == status else {"detail": answer.get("detail")})
        if why:
            self.note(why)
        expect(f"{method} {path}: the status", got, status)
        for place, wanted in (figures or {}).items():
            if wanted is ... and found[place] == MISSING:
                raise DiffersError(f"{method} {path}: {place} is missing, expected something")
            if wanted is not ...:
                expect(f"{method} {path}: {place}", found[place], wanted)
        return answer

    async def send(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        caller: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Mapping[str, str], Any]:
        """Make a call without a word: status, headers, body."""
        authorization = {"Authorization": f"Bearer {self.tokens[caller]}"} if caller else {}
        async with self._session.request(
            method, self.sandbox.url + path, json=body, headers={**authorization, **(headers or {})}
        ) as response:
            return response.status, response.headers, await response.json(content_type=None)

    def note(self, text: str) -> None:
        """Say in a line why something is so."""
        self._print(Text(text, style="italic"), indent=6)

    def command(self, text: str) -> None:
        """Show a command."""
        self._print(Text(f"$ {text}", style="bold"), indent=2)

    def table(self, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
        """Show some members of a list of objects; an empty object is a gap."""
        table = Table(box=SIMPLE, padding=(0, 1), header_style="bold")
        for column in columns:
            table.add_column(column.replace("_", " "), justify="right")
        for row in rows:
            table.add_row(*(str(row.get(column, "...")) for column in columns))
        self._print(table, indent=4)

    def _print(self, shown: Text | Table, indent: int) -> None:
        self.console.print(Padding(shown, (0, 0, 0, indent), expand=False))

    def _show_call(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        caller: str | None,
        headers: dict[str, str] | None,
    ) -> None:
        line = Text.assemble((f"{method} {path}", "bold cyan"))
        if body is not None:
            secret = {name: "..." for name in body if name.endswith(("password", "secret"))}
            line.append(f"  {json.dumps({**body, **secret})}")
        for name, value in (headers or {}).items():
            line.append(f"  {name}: {value}")
        if caller:
            line.append(f"  (as {caller})", "dim")
        self._print(line, indent=2)

    def _show_answer(self, status: int, first: str, found: Mapping[str, Any]) -> None:
        line = Text.assemble(
            (f"{status} {HTTPStatus(status).phrase}", "bold green" if status < 300 else "bold yellow"),
            f"   {first}",
        )
        for place, value in found.items():
            line.append(f"{place}=", "dim").append(f"{_plain(value)}   ")
        self._print(line, indent=4)


def expect(what: str, got: object, wanted: object) -> None:
    """Raise DiffersError unless both are the same."""
    if got != wanted:
        raise DiffersError(f"{what} is {_plain(got)}, expected {_plain(wanted)}")


def _dig(answer: Any, place: str) -> Any:
    for name in place.split("."):
        try:
            answer = answer[int(name) if name.isdigit() else name]
        except (KeyError, IndexError, TypeError):
            return MISSING
    return answer


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
