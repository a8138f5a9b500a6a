"""A private PostgreSQL cluster of Debian's packages, made for one run of the benchmarks and removed after it.

It listens on a Unix socket in a directory that only its own user can enter. Durability is PostgreSQL's own
default (fsync, synchronous_commit and full_page_writes on), and memory, WAL and checkpoints are set as for a
server of its own.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Final, Self

from bench.peers.process import end, last_lines

USER: Final = "bench"
START_TIMEOUT_S: Final = 60
STATEMENT_TIMEOUT_S: Final = 900

SETTINGS: Final = {
    # Durable, as production must be: PostgreSQL's defaults, said aloud.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_sync_method": "fdatasync",
    # Memory as for a small server; the working set of every load fits.
    "shared_buffers": "512MB",
    "effective_cache_size": "2GB",
    "work_mem": "32MB",
    "maintenance_work_mem": "256MB",
    # Few and smooth checkpoints, and fewer bytes of WAL.
    "wal_buffers": "16MB",
    "min_wal_size": "1GB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "checkpoint_completion_target": "0.9",
    "wal_compression": "lz4",
    # The disk is solid; queries are too short to be compiled.
    "random_page_cost": "1.1",
    "effective_io_concurrency": "200",
    "jit": "off",
    "max_connections": "200",
    # Reached through the socket alone.
    "listen_addresses": "",
}


class MissingPackage(Exception):
    """Debian's package of PostgreSQL is not installed; the message says how to install it."""


def find_bin(installed: Path = Path("/usr/lib/postgresql")) -> Path:
    """Return the folder of the newest installed PostgreSQL's programs. Raises MissingPackage."""
    found = list(installed.glob("*/bin/initdb"))
    if not found:
        raise MissingPackage("PostgreSQL is needed: apt-get install postgresql")
    return max(found, key=lambda path: int(path.parts[-3])).parent


class Cluster:
    """A running cluster: `with Cluster(folder, port) as cluster`. The port names the socket in it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.bin = find_bin()
        self.folder = folder / "postgres"
        self.host, self.port = str(self.folder), port
        self._data, self._log = self.folder / "data", self.folder / "log"
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def dsn(self) -> str:
        """The connection string of the database that every cluster has."""
        return self.dsn_of("postgres")

    @property
    def environ(self) -> dict[str, str]:
        """Variables by which libpq's programs find the cluster."""
        return {"PGHOST": self.host, "PGPORT": str(self.port), "PGUSER": USER, "PGDATABASE": "postgres"}

    def dsn_of(self, database: str) -> str:
        """The connection string of a database."""
        return f"host={self.host} port={self.port} user={USER} dbname={database}"

    def __enter__(self) -> Self:
        self.folder.mkdir(mode=0o700)
        try:
            owner = self._give_away()
            options = [f"--pgdata={self._data}", f"--username={USER}", "--auth=trust", "--no-sync"]
            subprocess.run(
                [self.bin / "initdb", *options, "--encoding=UTF8", "--locale=C.UTF-8"],
                cwd=self.folder,
                stdout=subprocess.DEVNULL,
                check=True,
                timeout=START_TIMEOUT_S,
                **owner,
            )
            settings = {**SETTINGS, "port": str(self.port), "unix_socket_directories": self.host}
            lines = [f"{name} = '{value}'\n" for name, value in settings.items()]
            with (self._data / "postgresql.conf").open("a") as file:
                file.writelines(lines)
            with self._log.open("wb") as log:
                self._server = subprocess.Popen(
                    [self.bin / "postgres", "-D", self._data], cwd=self.folder, stderr=log, **owner
                )
            self._wait()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def psql(self, sql: str, database: str = "postgres") -> str:
        """Run statements, one after the other, until one fails; return what they select, `|` between columns.

        Raises RuntimeError with PostgreSQL's own words.
        """
        options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        ran = subprocess.run(
            [self.bin / "psql", *options, "--dbname", self.dsn_of(database)],
            input=sql,
            capture_output=True,
            text=True,
            check=False,
            timeout=STATEMENT_TIMEOUT_S,
        )
        if ran.returncode != 0:
            raise RuntimeError(f"psql: {ran.stderr.strip()}")
        return ran.stdout.strip()

    def new_database(self, name: str) -> None:
        """Make an empty database; one of that name is dropped."""
        self.psql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE);\nCREATE DATABASE {name};")

    def count_payments(self, database: str) -> int:
        """Count the payments of a book, and hold its loans against them: each rupee paid must be on a loan.

        The peers' books have a table `payments` with `amount_paise`, and `loans` with what was received.
        """
        counted = self.psql(
            "SELECT count(*), coalesce(sum(amount_paise), 0),"
            " (SELECT coalesce(sum(interest_received_paise + principal_received_paise), 0) FROM loans)"
            " FROM payments",
            database,
        )
        count, paid_paise, received_paise = map(int, counted.split("|"))
        if paid_paise != received_paise:
            raise RuntimeError(f"{database}: payments come to {paid_paise}, loans received {received_paise}")
        return count

    def _give_away(self) -> dict[str, Any]:
        """PostgreSQL refuses to run as root: then give the folder to another user, and say as whom to run."""
        if os.geteuid() != 0:
            return {}
        names = {entry.pw_name: entry for entry in pwd.getpwall()}
        owner = names.get("postgres") or names["nobody"]
        os.chown(self.folder, owner.pw_uid, owner.pw_gid)
        above = self.folder.parent
        above.chmod(above.stat().st_mode | 0o011)  # a temporary folder: may be passed through, not listed
        return {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}

    def _wait(self) -> None:
        assert self._server is not None
        deadline_s = time.monotonic() + START_TIMEOUT_S
        ready = [str(self.bin / "pg_isready"), "--quiet", f"--dbname={self.dsn}"]
        while subprocess.run(ready, check=False).returncode != 0:
            if self._server.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"PostgreSQL did not start:\n{last_lines(self._log)}")
            time.sleep(0.05)

    def _close(self) -> None:
        """End the server, its sessions with it, and remove the folder."""
        if self._server is not None:
            end(self._server, fast=True)
            self._server = None
        shutil.rmtree(self.folder, ignore_errors=True)
