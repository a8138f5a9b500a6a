"""Makes, starts and ends the Django peer. Django runs in processes of its own and is not imported here."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

import msgspec

from bench.peers.postgres import Cluster
from bench.peers.process import ROOT, end, wait_for_port

DATABASE: Final = "django"
SETTINGS: Final = "bench.peers.django.settings"
SEED_TIMEOUT_S: Final = 900


class Setting(NamedTuple):
    """How gunicorn runs."""

    workers: int
    threads: int
    worker_class: str  # "sync": one connection, one request; "gthread": threads, and connections kept

    def __str__(self) -> str:
        return f"{self.workers} x {self.threads} {self.worker_class}"


SWEEP: Final = [
    Setting(2, 1, "sync"),
    Setting(4, 1, "sync"),
    Setting(8, 1, "sync"),
    Setting(2, 4, "gthread"),
    Setting(4, 2, "gthread"),
    Setting(4, 1, "gthread"),
]


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """A made database: what a load needs of it, and the key that its tokens are signed with."""

    key: str
    loan_ids: list[str]
    tokens: list[str]


def make_book(cluster: Cluster, loans: int = 10_000, tokens: int = 1_000, earlier_payments: int = 0) -> Book:
    """Make the peer's database anew: loans lent today, payments before, and a client's tokens for a day."""
    cluster.new_database(DATABASE)
    key = secrets.token_hex(32)
    numbers = [str(number) for number in (loans, tokens, earlier_payments)]
    ran = subprocess.run(
        [sys.executable, "-m", "django", "seed", *numbers],
        cwd=ROOT,
        env=environ(cluster, key),
        stdout=subprocess.PIPE,
        check=True,
        timeout=SEED_TIMEOUT_S,
    )
    made = msgspec.json.decode(ran.stdout, type=dict[str, list[str]])
    cluster.psql("VACUUM ANALYZE;\nCHECKPOINT;", DATABASE)
    if cluster.count_payments(DATABASE) != earlier_payments:
        raise RuntimeError("django: the book is not what was asked for")
    return Book(key=key, loan_ids=made["loan_ids"], tokens=made["tokens"])


class DjangoPeer:
    """The running peer: `with DjangoPeer(cluster, port=..) as peer`. Without a book it makes one.

    Its workers connect to the database at their first request: warm it up before a measure.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        port: int,
        loans: int = 10_000,
        tokens: int = 1_000,
        earlier_payments: int = 0,
        workers: int = 4,
        threads: int = 1,
        worker_class: str | None = None,
        book: Book | None = None,
    ) -> None:
        self.setting = Setting(workers, threads, worker_class or ("sync" if threads == 1 else "gthread"))
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        self.loan_ids: list[str] = []
        self.tokens: list[str] = []
        self._cluster, self._book = cluster, book
        self._sizes = (loans, tokens, earlier_payments)
        self._log = cluster.folder.parent / "django.log"
        self._server: subprocess.Popen[bytes] | None = None
        self._payments_before = 0

    def __enter__(self) -> Self:
        book = self._book or make_book(self._cluster, *self._sizes)
        self.loan_ids, self.tokens = book.loan_ids, book.tokens
        self._payments_before = self._cluster.count_payments(DATABASE)
        with self._log.open("wb") as log:
            self._server = subprocess.Popen(
                gunicorn(self.setting, self.port),
                cwd=ROOT,
                env=environ(self._cluster, book.key),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_for_port(self._server, self.port, self._log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            end(self._server)
            self._server = None

    def count_payments(self) -> int:
        """Count the payments since this peer started; RuntimeError when loans don't hold them."""
        return self._cluster.count_payments(DATABASE) - self._payments_before


def sweep(
    cluster: Cluster,
    measure: Callable[[DjangoPeer], float],
    *,
    port: int,
    book: Book,
    settings: Sequence[Setting] = tuple(SWEEP),
) -> list[tuple[Setting, float]]:
    """Measure each setting on the same book; return settings and rates, the best first."""
    rates = []
    for setting in settings:
        with DjangoPeer(cluster, port=port, book=book, **setting._asdict()) as peer:
            rates.append((setting, measure(peer)))
    return sorted(rates, key=lambda each: each[1], reverse=True)


def gunicorn(setting: Setting, port: int) -> list[str]:
    """The command that serves."""
    shared_memory = Path("/dev/shm")  # where a worker's heartbeat never waits for the disk
    options = [f"--bind=127.0.0.1:{port}", "--backlog=2048", "--log-level=warning", "--preload"]
    options += [f"--workers={setting.workers}", f"--threads={setting.threads}", "--keep-alive=75"]
    options += [f"--worker-class={setting.worker_class}", "--graceful-timeout=5", "--no-control-socket"]
    if shared_memory.is_dir():
        options.append(f"--worker-tmp-dir={shared_memory}")
    return [sys.executable, "-m", "gunicorn", *options, "bench.peers.django.wsgi:application"]


def environ(cluster: Cluster, key: str) -> dict[str, str]:
    """What settings.py reads."""
    return {
        **os.environ,
        **cluster.environ,
        "PGDATABASE": DATABASE,
        "DJANGO_PEER_KEY": key,
        "DJANGO_SETTINGS_MODULE": SETTINGS,
    }
