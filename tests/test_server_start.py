"""What the service does not start on: each is one line that says what to do, and names the key.

Through the real command line. Those that are about permissions run in a process of their own, which obeys
them even where the tests are root's.
"""

from __future__ import annotations

import errno
import shutil
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from ledgerd.config import Server
from ledgerd.server import why_not_listening
from tests.process import ledgerd, ledgerd_here, write_config

PRIVILEGED_PORTS = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


def refused(config_path: Path, **environment: str) -> str:
    """Why the service does not start: the one line that it says."""
    return ledgerd_here("serve", "--config", config_path, **environment).complaint


def make_database(config_path: Path) -> None:
    made = ledgerd_here("client", "create", "first", "--scope", "ops", "--config", config_path)
    assert made.code == 0, made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a database and its keys, to be copied."""
    folder = tmp_path_factory.mktemp("made") / "folder"
    make_database(write_config(folder))
    return folder


@pytest.fixture
def config_path(made: Path, tmp_path: Path) -> Path:
    """The configuration of a database of the test's own."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "config.toml"


def refused_for_lack_of_rights(config_path: Path) -> str:
    return ledgerd("serve", "--config", config_path).complaint


# The address -------------------------------------------------------------------------------------


def test_a_port_that_is_taken(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        why = refused(write_config(tmp_path, server={"port": port}))
    assert why == f"[server] port {port} is taken: stop the other program or choose another port"
    # A database was made, and nothing of a service is left beside it.
    assert {path.name for path in tmp_path.iterdir()} == {
        *("config.toml", "keys"),
        *("ledgerd.db", "ledgerd.db.lock", "ledgerd.journal.db"),
    }


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("no.such.host.invalid", "'no.such.host.invalid' is not known: write an IP address"),
        ("x" * 70, "is not known: write an IP address"),
        ("203.0.113.7", "'203.0.113.7' is not of this machine: write one that is"),  # for documents alone
    ],
)
def test_a_host_that_is_not_ours(tmp_path: Path, host: str, words: str):
    why = refused(write_config(tmp_path, server={"host": host}))
    assert why.startswith("[server] host ")
    assert words in why


def test_a_port_for_root_alone(tmp_path: Path):
    denied = why_not_listening(OSError(errno.EACCES, "permission denied"), Server(port=80))
    assert denied == "[server] port 80 needs rights that this user lacks: choose one from 1024 on"
    if PRIVILEGED_PORTS > 1:  # a container may have none
        port = PRIVILEGED_PORTS - 1
        why = refused_for_lack_of_rights(write_config(tmp_path, server={"port": port}))
        assert why == denied.replace("80", str(port))


def test_any_other_trouble_with_an_address_names_it_too():
    why = why_not_listening(OSError(errno.EAFNOSUPPORT, "no such family"), Server(host="::1", port=1))
    assert why == f"[server] host '::1', port 1: [Errno {errno.EAFNOSUPPORT}] no such family"


# Keys --------------------------------------------------------------------------------------------


def test_keys_of_another_database(config_path: Path, tmp_path: Path):
    why = refused(config_path, LEDGERD_AUTH_KEYS_DIR=str(tmp_path / "other"))
    assert "keys_dir" in why
    # A key file that is damaged is named, and not made anew.
    for path in (tmp_path / "keys").iterdir():
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        assert str(path) in refused(config_path)
        path.write_bytes(whole)
    assert len(list((tmp_path / "keys").iterdir())) == 2


def test_keys_that_can_be_guessed(config_path: Path, tmp_path: Path):
    """Whichever of them it is, and though the database was made with it."""
    vault = next(path for path in (tmp_path / "keys").iterdir() if path.suffix != ".pem")
    whole = vault.read_text()
    for line in whole.splitlines():
        name, _, key = line.rpartition(" ")
        if name.startswith(("index", "encryption")):
            vault.write_text(whole.replace(key, "00" * 32))
            assert f"{vault} holds a key that can be guessed: " in refused(config_path)
            vault.write_text(whole)


def test_a_keys_folder_that_is_a_file(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    why = refused(write_config(tmp_path), LEDGERD_AUTH_KEYS_DIR="file")
    assert why.startswith(f"cannot use the keys folder {tmp_path}/file: ")
    assert "[auth] keys_dir" in why


def test_a_keys_folder_that_is_not_to_be_written_to(tmp_path: Path):
    (tmp_path / "closed").mkdir(mode=0o500)
    why = refused_for_lack_of_rights(write_config(tmp_path, auth={"keys_dir": "closed"}))
    assert f"{tmp_path}/closed/" in why
    assert "Permission denied" in why
    assert "[auth] keys_dir" in why


# The database ------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["file", "file/below"])
def test_a_database_in_what_is_no_folder(tmp_path: Path, folder: str):
    (tmp_path / "file").write_text("in the way")
    why = refused(write_config(tmp_path, storage={"url": f"sqlite:///{folder}/ledgerd.db"}))
    assert why.startswith(f"{tmp_path}/{folder}/ledgerd.db.lock: ")
    assert why.endswith(": choose a writable folder in [storage] url")


def test_a_database_where_nothing_can_be_written(tmp_path: Path):
    (tmp_path / "closed").mkdir(mode=0o500)
    config_path = write_config(tmp_path, storage={"url": "sqlite:///closed/below/ledgerd.db"})
    why = refused_for_lack_of_rights(config_path)
    assert why.endswith("ledgerd.db.lock: Permission denied: choose a writable folder in [storage] url")


@pytest.mark.parametrize("name", ["ledgerd.db", "ledgerd.journal.db"])
def test_a_database_that_is_not_to_be_written_to(config_path: Path, tmp_path: Path, name: str):
    (tmp_path / name).chmod(0o400)
    why = refused_for_lack_of_rights(config_path)
    assert why.startswith(f"{tmp_path / name}: attempt to write a readonly database: let this user write")
    assert "[storage] url" in why


def overwrite(path: Path) -> None:
    path.write_bytes(b"This is not a database. " * 1000)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:8192])


def make_newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()


def put_a_folder_there(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["ledgerd.db", "ledgerd.journal.db"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (overwrite, "file is not a database: restore it from a backup, or name another in [storage] url"),
        (empty, "file is empty or not ledgerd's: restore it from a backup"),
        (cut, "database disk image is malformed: restore it from a backup, or name another in [storage] url"),
        (make_newer, "file has schema 99, this ledgerd knows"),
        (put_a_folder_there, "is a folder: name another file in [storage] url"),
    ],
)
def test_what_is_no_database_of_this_ledgerd(
    config_path: Path, tmp_path: Path, name: str, spoil: Callable[[Path], None], words: str
):
    spoil(tmp_path / name)
    why = refused(config_path)
    assert why.startswith(f"{tmp_path / name}: ")
    assert words in why


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("2026-01-01", "", "lives on the sandbox clock: set [clock] sandbox_start, or"),
        ("", "2026-01-01", "lives on the system clock: leave [clock] sandbox_start empty, or"),
    ],
)
def test_a_sandbox_and_the_real_clock_share_no_database(tmp_path: Path, first: str, second: str, words: str):
    make_database(write_config(tmp_path, clock={"sandbox_start": first}))
    why = refused(write_config(tmp_path, clock={"sandbox_start": second}))
    assert words in why
    assert why.endswith("or name another in [storage] url")


@pytest.mark.parametrize("missing", ["ledgerd.db", "ledgerd.journal.db"])
def test_half_a_database(config_path: Path, tmp_path: Path, missing: str):
    (tmp_path / missing).unlink()
    assert f"{missing} is missing" in refused(config_path)
    assert not (tmp_path / missing).exists()


# The configuration -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"server": {"port": "8080"}}, "[server] port: write a whole number from 0 to 65535, not '8080'"),
        ({"server": {"prot": 1}}, "[server] prot: no such key (did you mean port?); correct or remove it"),
        ({"sevrer": {"port": 1}}, "[sevrer]: no such section (did you mean server?); correct or remove it"),
        ({"scheduler": {"billing_cron": "daily"}}, "[scheduler] billing_cron: needs five fields"),
    ],
)
def test_a_configuration_that_is_wrong(tmp_path: Path, sections: dict[str, dict[str, object]], words: str):
    assert words in refused(write_config(tmp_path, **sections))
    assert {path.name for path in tmp_path.iterdir()} == {"config.toml"}


def test_a_variable_that_is_wrong(tmp_path: Path):
    why = refused(write_config(tmp_path), LEDGERD_LIMITS_MAILBOX="many")
    assert why == "LEDGERD_LIMITS_MAILBOX: write a whole number from 1 to 1000000000, not 'many'"


def test_a_variable_that_names_no_key_is_spoken_of_and_no_reason_not_to_start(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    config_path = write_config(tmp_path, auth={"keys_dir": "file"})
    warning, complaint = ledgerd_here("serve", "--config", config_path, LEDGERD_LOANS="1").stderr.splitlines()
    assert '"variable":"LEDGERD_LOANS"' in warning
    assert "keys_dir" in complaint


def test_a_configuration_that_is_not_there(tmp_path: Path):
    why = refused(tmp_path / "none.toml")
    assert why.startswith(f"{tmp_path}/none.toml: cannot be read: No such file or directory; name a file")
    assert "--config" in why
