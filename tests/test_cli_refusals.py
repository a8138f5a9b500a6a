"""What goes wrong at a start, each as an operator meets it: one line on stderr, exit 1, and what to do."""

from __future__ import annotations

import re
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.process import Finished, Service, ledgerd, ledgerd_here, serving, write_config

# A remedy is a thing to do, after what is wrong.
REMEDY = re.compile(
    r"[:;] (?:stop|choose|name|let|write|restore|install|run|chmod|correct|make room|end)\b| name another in "
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration, a database and its keys, to be copied."""
    folder = tmp_path_factory.mktemp("made") / "folder"
    config_path = write_config(folder, server={"port": 0})
    assert ledgerd_here("client", "create", "first", "--scope", "ops", "--config", config_path).code == 0
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "ledgerd")


def set_schema(version: int) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        with closing(sqlite3.connect(folder / "ledgerd.db")) as tables:
            tables.execute(f"PRAGMA user_version = {version}")

    return spoil


def write(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.toml").write_text(text)


def as_it_is(_folder: Path) -> None:
    pass


def use_a_closed_folder(folder: Path) -> None:
    (folder / "theirs").mkdir(mode=0o500)
    write_config(folder, storage={"url": "sqlite:///theirs/ledgerd.db"})


# What is wrong, what is typed, and what is said of it, in which FOLDER stands for where it is.
WRONG: list[tuple[str, Callable[[Path], object], str, str]] = [
    ("a key that is none", write("[server]\nprot = 1\n"), "serve", "[server] prot: no such key"),
    ("a key in no section", write("port = 1\n"), "serve", "port: is in no section; write it below"),
    ("a section that is none", write("[sevrer]\nport = 1\n"), "serve", "(did you mean server?)"),
    ("a value that won't do", write("[server]\nport = 99999\n"), "serve", "0 to 65535, not 99999"),
    ("no configuration", lambda folder: (folder / "config.toml").unlink(), "serve", "No such file"),
    ("a newer database", set_schema(99), "serve", "FOLDER/ledgerd.db: the tables file has schema 99"),
    ("a newer database, verified", set_schema(99), "verify", "FOLDER/ledgerd.db: the tables file has"),
    ("a newer database, migrated", set_schema(99), "migrate", "FOLDER/ledgerd.db: the tables file has"),
    ("an older database", set_schema(2), "serve", "run `ledgerd migrate`"),
    ("an older database, verified", set_schema(2), "verify", "run `ledgerd migrate`"),
    ("half a database", lambda folder: (folder / "ledgerd.journal.db").unlink(), "verify", "is missing"),
    (
        "half a database to copy",
        lambda folder: (folder / "ledgerd.db").unlink(),
        "backup FOLDER/x",
        "is missing",
    ),
    ("keys that are lost", lambda folder: shutil.rmtree(folder / "keys"), "serve", "not the keys of this"),
    ("a copy over another", as_it_is, "backup FOLDER/keys", "FOLDER/keys: File exists: name a new folder"),
    ("a copy below a file", as_it_is, "backup FOLDER/config.toml/x", "Not a directory: name a new folder"),
    ("a copy where none can be", as_it_is, "backup /proc/none/x", "can write to"),
]
# Whoever may write everywhere does not meet these.
WRONG_FOR_A_USER: list[tuple[str, Callable[[Path], object], str, str]] = [
    ("a closed configuration", lambda folder: (folder / "config.toml").chmod(0), "serve", "cannot be read"),
    ("a closed key", lambda folder: chmod_all(folder / "keys", 0), "serve", "let it and its folder belong"),
    ("a closed lock", lambda folder: (folder / "ledgerd.db.lock").chmod(0), "serve", "let this user write"),
    ("a folder of others", use_a_closed_folder, "serve", "let this user write to it"),
]


def chmod_all(folder: Path, mode: int) -> None:
    for path in folder.iterdir():
        path.chmod(mode)


def check(finished: Finished, folder: Path, words: str) -> None:
    said = finished.complaint
    assert words.replace("FOLDER", str(folder)) in said
    assert REMEDY.search(said), f"what is to be done? {said}"
    assert finished.stdout == ""


def typed(command: str, folder: Path) -> list[str]:
    return [*command.replace("FOLDER", str(folder)).split(), "--config", str(folder / "config.toml")]


@pytest.mark.parametrize(
    ("spoil", "command", "words"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG]
)
def test_what_is_wrong_and_what_to_do(
    folder: Path, spoil: Callable[[Path], object], command: str, words: str
):
    spoil(folder)
    check(ledgerd_here(*typed(command, folder)), folder, words)


@pytest.mark.parametrize(
    ("spoil", "command", "words"),
    [row[1:] for row in WRONG_FOR_A_USER],
    ids=[row[0] for row in WRONG_FOR_A_USER],
)
def test_what_a_user_may_not_and_what_to_do(
    folder: Path, spoil: Callable[[Path], object], command: str, words: str
):
    spoil(folder)
    check(ledgerd(*typed(command, folder)), folder, words)


def test_a_port_that_is_taken(folder: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        write_config(folder, server={"port": taken.getsockname()[1]})
        check(ledgerd_here(*typed("serve", folder)), folder, "choose another port")


@pytest.mark.parametrize("command", ["bill", "backup FOLDER/x", "client create x --scope ops", "keys rotate"])
def test_a_database_in_memory_ends_with_its_service(folder: Path, command: str):
    finished = ledgerd_here(*typed(command, folder), LEDGERD_STORAGE_URL="sqlite:///:memory:")
    check(finished, folder, "name a file in [storage] url")


# While it is served --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(write_config(tmp_path_factory.mktemp("served"))) as service:
        yield service


@pytest.mark.parametrize("command", ["backup", "import-transactions"])
def test_a_folder_that_is_another_one_for_the_service(served: Service, command: str):
    """As each process's own is here, and /tmp under a unit of systemd."""
    finished = ledgerd_here(command, "/proc/self/task/x", "--config", served.config_path)
    check(finished, served.config_path.parent, "/proc/self/task: is another folder for the service")
