"""The service as it really runs: `python -m ledgerd` in processes of their own, on files of their own.

A Service reads the log of its process (and of the store that it starts, which writes to the same pipe): it is
ready when the log says so, and wholly gone when the pipe has ended. Nothing here sleeps or polls.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import structlog

from ledgerd.cli import app
from ledgerd.config import Config
from ledgerd.config_file import load_config
from ledgerd.storage.process import CALL_FAILED, STOPS

GUARD_S = 60  # only ever runs out when a test fails

# A sandbox where everybody may borrow a lot at once: nobody waits for a bank history.
SANDBOX: dict[str, dict[str, object]] = {
    "server": {"port": 0},
    "clock": {"sandbox_start": "2026-01-01"},
    "lending": {"min_credit_score": 300, "min_annual_income": "0.00", "max_amount": "10000000.00"},
    "identity": {"kind": "opaque"},
    "log": {"format": "json"},
}


def write_config(folder: Path, **sections: Mapping[str, object]) -> Path:
    """Write a configuration: SANDBOX with other values for some keys; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    text = ""
    for section in {**SANDBOX, **sections}:
        text += f"[{section}]\n"
        for key, value in {**SANDBOX.get(section, {}), **sections.get(section, {})}.items():
            text += f"{key} = {json.dumps(value)}\n"
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without what configures ledgerd, and with `extra`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LEDGERD_")}
    return {**kept, **extra}


def bound_by_permissions() -> None:
    """Have what is executed next obey file modes and port rights as any user's programs do, root's too."""
    prctl, drop = ctypes.CDLL(None).prctl, 24
    for capability in (1, 2, 10):  # dac_override, dac_read_search, net_bind_service
        prctl(drop, capability, 0, 0, 0)


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    code: int
    stdout: str
    stderr: str

    @property
    def complaint(self) -> str:
        """The one line that a command that failed says."""
        assert self.code == 1, self
        [line] = self.stderr.splitlines()
        assert line.startswith("ledgerd: "), self
        return line.removeprefix("ledgerd: ")


def ledgerd(*args: object, limits: Mapping[int, int] | None = None, **extra: str) -> Finished:
    """Run a command in a process of its own, as no more than a user; `extra` is added to its environment,
    `limits` are those of resource.setrlimit.
    """

    def bound() -> None:
        bound_by_permissions()
        for name, limit in (limits or {}).items():
            resource.setrlimit(name, (limit, limit))

    run = subprocess.run(
        [sys.executable, "-m", "ledgerd", *map(str, args)],
        env=environment(**extra),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=GUARD_S,
        check=False,
        preexec_fn=bound,
    )
    return Finished(run.returncode, run.stdout, run.stderr)


def ledgerd_here(*args: object, **extra: str) -> Finished:
    """Run a command in this process, which spares it a second of imports. What it and the store that it may
    start write is caught at the descriptors, so that nothing goes unseen.
    """
    code = 0
    with _caught(1) as stdout, _caught(2) as stderr:
        with redirect_stdout(stdout), redirect_stderr(stderr), _environment(environment(**extra)):
            try:
                app([str(each) for each in args], prog_name="ledgerd")
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
            finally:
                structlog.reset_defaults()
                logging.basicConfig(handlers=[], force=True)
        written = [_content(file) for file in (stdout, stderr)]
    return Finished(code, *written)


@contextmanager
def _caught(descriptor: int) -> Iterator[TextIO]:
    """Lead what is written to a descriptor into a file."""
    before = os.dup(descriptor)
    with tempfile.TemporaryFile("w+", encoding="utf-8", buffering=1) as file:
        os.dup2(file.fileno(), descriptor)
        try:
            yield file
        finally:
            os.dup2(before, descriptor)
            os.close(before)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _content(file: TextIO) -> str:
    file.flush()
    file.seek(0)
    return file.read()


class NotReady(AssertionError):
    """The service ended, with this code and log, before it was ready; or it did not get ready in time."""

    def __init__(self, code: int, log: list[str]) -> None:
        super().__init__("\n".join(["the service did not get ready:", *log]))
        self.code = code
        self.log = log


class Service:
    """`ledgerd serve` with `extra` in its environment, run by the command `run_by` if any, ready to be spoken
    to; else it raises NotReady.
    """

    def __init__(self, config_path: Path, run_by: Sequence[str] = (), **extra: str) -> None:
        self.config: Config = load_config(config_path, {})
        self.config_path = config_path
        self.log: list[str] = []
        self.port = 0
        self.process = subprocess.Popen(
            [*run_by, sys.executable, "-m", "ledgerd", "serve", "--config", str(config_path)],
            env=environment(**extra),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        if not self._ready.wait(GUARD_S):
            self.kill()
        if self.port == 0:
            raise NotReady(self.ended(), self.log)

    @property
    def store_pid(self) -> int:
        """The process that holds the database's lock."""
        lock_path = self.config.storage.lock_path
        assert lock_path is not None
        return int(lock_path.read_text().split()[-1])  # the service, then its store

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def events(self, name: str) -> list[dict[str, Any]]:
        """The lines of the log with this name, so far."""
        lines = [json.loads(line) for line in self.log if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def signal(self, number: int) -> None:
        """Send a signal to the service, not to its store."""
        self.process.send_signal(number)

    def kill_store(self) -> None:
        """SIGKILL the store alone."""
        os.kill(self.store_pid, signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL the service and its store at once, as a loss of power would."""
        self.process.kill()
        if self.port and self._reader.is_alive():  # else its number may be another's by now
            with suppress(ProcessLookupError):
                self.kill_store()
        self.ended()

    def ended(self) -> int:
        """Wait until the service and its store are gone; return the service's exit code."""
        code = self.process.wait(GUARD_S)
        self._reader.join(GUARD_S)
        assert not self._reader.is_alive(), "a process of the service lives on"
        return code

    async def until_ended(self) -> int:
        """The same, where a loop runs."""
        return await asyncio.to_thread(self.ended)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.signal(signal.SIGTERM)
        return self.ended()

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.log.append(line.rstrip("\n"))
                if not self.port and '"event":"ready"' in line:
                    self.port = json.loads(line)["port"]
                    self._ready.set()
        self._ready.set()


def complaints(log: Sequence[str]) -> list[str]:
    """What a service said besides its log, and of its log what says that the store failed, and how."""
    said = []
    for line in log:
        if not line.startswith("{"):
            said.append(line)
        elif (event := json.loads(line))["event"] in {CALL_FAILED, STOPS}:
            said.append(f"{event['event']}: {event.get('error') or event['exception']}")
    return said


@contextmanager
def serving(config_path: Path, run_by: Sequence[str] = (), **extra: str) -> Iterator[Service]:
    """Serve for as long as the block lasts; a service that the block has ended is left alone."""
    service = Service(config_path, run_by, **extra)
    try:
        yield service
    except BaseException:
        service.kill()
        raise
    if service.process.poll() is None:
        code = service.stop()
        assert code == 0, service.log[-20:]
