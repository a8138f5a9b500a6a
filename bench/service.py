"""`ledgerd serve` as a load's subject: started on a ledger, counted, stopped, killed and verified.

Settings are the defaults, but for those of the load (tokens that outlive it, say). The access log is on and
goes into a file beside the ledger.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from bench.book import read_book
from bench.machine import children
from bench.results import Check
from ledgerd.config import Config
from ledgerd.config_file import load_config
from ledgerd.http.keyring import load_or_create_keyring
from ledgerd.http.tokens import Revocations, Tokens

TOKENS = 1_000
START_WITHIN_S = 120.0
STOP_WITHIN_S = 120.0
SCOPES = ("payments:write", "ops")

Sections = Mapping[str, Mapping[str, Any]]
DEFAULTS: Sections = {"auth": {"access_ttl_s": 86_400}, "log": {"format": "json"}}


class NotAResult(Exception):
    """A load that can't be counted; the message says why."""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def write_config(folder: Path, sections: Sections) -> Config:
    """Write config.toml into a ledger's folder: the bench's own settings, and `sections` over them."""
    merged: dict[str, dict[str, Any]] = {}
    for each in (DEFAULTS, sections):
        for section, keys in each.items():
            merged.setdefault(section, {}).update(keys)
    lines = []
    for section, keys in merged.items():
        lines.append(f"[{section}]")
        # TOML writes strings, numbers and truth as JSON does.
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    path = folder / "config.toml"
    path.write_text("\n".join([*lines, ""]), encoding="utf-8")
    return load_config(path, {})


class Service:
    """A service that runs on the ledger in `folder`."""

    host = "127.0.0.1"

    def __init__(self, folder: Path, sections: Sections, wrapper: Sequence[str] = ()) -> None:
        self.folder = folder
        self.book = read_book(folder)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        server = {"port": self.port, **sections.get("server", {})}
        self.config = write_config(folder, {**sections, "server": server})
        self.started_s = time.perf_counter()
        self.ready_after_s = 0.0
        self._wrapper = wrapper
        self._tokens: list[str] = []
        self._process: subprocess.Popen[bytes]

    @property
    def loans(self) -> list[str]:
        """The loans that loads spread over."""
        return self.book.groups[0]

    def start(self) -> None:
        """Begin to start; `wait_ready` tells when it is done."""
        command = [*self._wrapper, *ledgerd("serve", self.folder)]
        with (self.folder / "log").open("wb") as log:
            self.started_s = time.perf_counter()
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    @property
    def statement_loans(self) -> list[tuple[int, list[str]]]:
        """Loans with so many payments each."""
        return list(zip(self.book.payments_each[1:], self.book.groups[1:], strict=True))

    def wait_ready(self) -> None:
        """Wait until requests are taken; `ready_after_s` is then the time since `start`."""
        deadline_s = self.started_s + START_WITHIN_S
        while time.perf_counter() < deadline_s:
            try:
                urllib.request.urlopen(f"{self.url}/readyz", timeout=5).close()
            except OSError:
                self.fail_if_ended()
                time.sleep(0.005)
            else:
                self.ready_after_s = time.perf_counter() - self.started_s
                return
        raise NotAResult("the service did not start in time")

    def fail_if_ended(self) -> None:
        """Raise NotAResult when the service has ended by itself."""
        if self._process.poll() is not None:
            raise NotAResult(f"the service has ended: {self.last_words()}")

    def last_words(self) -> str:
        """Return the end of its log."""
        return (self.folder / "log").read_text(errors="replace")[-500:].strip()

    @property
    def pids(self) -> tuple[int, int]:
        """The processes of the front and of the store."""
        front = self._process.pid if not self._wrapper else children(self._process.pid)[0]
        return front, next(pid for pid in children(front) if is_store(pid))

    def stop(self) -> None:
        """Have it drain, project and end."""
        if self._process.poll() is None:
            os.kill(self.pids[0], signal.SIGTERM)  # not the wrapper: it may not pass a signal on
            try:
                self._process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                self.kill()
        if self._process.returncode != 0:
            raise NotAResult(f"the service ended with {self._process.returncode}: {self.last_words()}")

    def kill(self) -> None:
        """SIGKILL what runs of it: the front, the store, and a wrapper."""
        tops = [self._process.pid, *(children(self._process.pid) if self._wrapper else [])]
        for pid in [*tops, *(child for top in tops for child in children(top))]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait(STOP_WITHIN_S)

    # What it says --------------------------------------------------------------------------------

    def tokens(self, count: int = TOKENS) -> list[str]:
        """Return access tokens of the book's client, each of a login of its own. They are made once: a load
        finds those verified that warmed the service.
        """
        if count <= len(self._tokens):
            return self._tokens[:count]
        auth = self.config.auth
        keyring = load_or_create_keyring(auth.keys_path, time.time(), os.urandom)
        tokens = Tokens(
            keyring, auth.issuer, auth.audience, auth.access_ttl_s, 1, time.time, Revocations(time.time)
        )
        random = Random(self.port)
        self._tokens = [
            tokens.issue(self.book.client_id, "client", SCOPES, random.getrandbits(62), f"bench-{number}")
            for number in range(count)
        ]
        return self._tokens

    def metrics(self) -> dict[str, float]:
        """Return every sample of /metrics by its name and labels as they stand there."""
        with urllib.request.urlopen(f"{self.url}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
        }

    def acknowledged(self) -> int:
        """Return how many single payments were answered 201, those that a load hung up on included."""
        answered = 'ledgerd_requests_total{route="/api/make-payment/",status="201"}'
        deadline_s = time.perf_counter() + 60
        before = -1.0
        while time.perf_counter() < deadline_s:
            values = self.metrics()
            count = values.get(answered, 0.0)
            # All that was asked for is decided, and what was decided a moment ago is counted too.
            if values["ledgerd_in_flight"] == 0 and count == before:
                return int(count)
            before = count
            time.sleep(0.05)
        raise NotAResult("the service still has messages in flight")

    @property
    def front_pid(self) -> int | None:
        """The front, whose memory can be looked at."""
        return self.pids[0]

    @contextmanager
    def audit(self, scenario: str) -> Iterator[Audit]:
        """Count what is acknowledged in the block against what the journal gains meanwhile."""
        audit = Audit(scenario)
        before = self.acknowledged()
        after_seq = last_seq(self.config)
        yield audit
        audit.acknowledged += self.acknowledged() - before
        audit.in_ledger = payments_after(self.config, after_seq)


class Audit:
    """A count in progress. What batches acknowledge is added to `acknowledged` by their client."""

    def __init__(self, scenario: str) -> None:
        self.scenario = scenario
        self.acknowledged = 0
        self.in_ledger = 0

    def check(self) -> Check:
        """Return the count as a check that `ledgerd verify` has not confirmed yet."""
        return Check(
            scenario=self.scenario,
            acknowledged=self.acknowledged,
            in_ledger=self.in_ledger,
            verify_ok=False,
        )


@contextmanager
def serving(folder: Path, sections: Sections, wrapper: Sequence[str] = ()) -> Iterator[Service]:
    """Serve the ledger in a folder while the block runs."""
    service = Service(folder, sections, wrapper)
    service.start()
    try:
        service.wait_ready()
        yield service
    except BaseException:
        service.kill()
        raise
    service.stop()


def is_store(pid: int) -> bool:
    """Return whether the process is a store's."""
    try:
        return b"ledgerd.storage.process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


# The ledger itself -------------------------------------------------------------------------------


def ledgerd(command: str, folder: Path) -> list[str]:
    """Return a command line of ledgerd on the ledger in a folder."""
    return [sys.executable, "-m", "ledgerd", command, "--config", str(folder / "config.toml")]


def last_seq(config: Config) -> int:
    """Return the journal's last sequence number."""
    return int(_journal(config, "SELECT coalesce(max(seq), 0) FROM events")[0])


def payments_after(config: Config, seq: int) -> int:
    """Return how many payments the journal holds after `seq`, each key once."""
    payments, keys = _journal(
        config,
        "SELECT count(*), count(DISTINCT once_key) FROM events WHERE seq > ? AND kind = 'paid'",
        seq,
    )
    if keys != payments:
        raise NotAResult(f"{payments} payments in the ledger have only {keys} keys")
    return int(payments)


def keys_after(config: Config, seq: int) -> set[bytes]:
    """Return the once_keys of the payments after `seq`."""
    assert config.storage.journal_path is not None
    with closing(_reader(config.storage.journal_path)) as journal:
        rows = journal.execute("SELECT once_key FROM events WHERE seq > ? AND kind = 'paid'", (seq,))
        return {row[0] for row in rows}


def _journal(config: Config, query: str, *values: Any) -> tuple[Any, ...]:
    assert config.storage.journal_path is not None
    with closing(_reader(config.storage.journal_path)) as journal:
        row: tuple[Any, ...] = journal.execute(query, values).fetchone()
        return row


def _reader(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)


def begin_verify(folder: Path) -> subprocess.Popen[bytes]:
    """Start `ledgerd verify` on the ledger in a folder."""
    return subprocess.Popen(ledgerd("verify", folder), stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end_verify(process: subprocess.Popen[bytes]) -> tuple[bool, str]:
    """Return whether it found the ledger right, and what it said on one line."""
    out, err = process.communicate()
    if process.returncode == 0:
        summary = msgspec.json.decode(out)
        return True, ", ".join(f"{name} {value}" for name, value in summary.items())
    return False, err.decode(errors="replace").strip().splitlines()[-1] if err else "no word"
