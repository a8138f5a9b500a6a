"""Which folders are synced, seen at os.fsync by the path of each descriptor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ledgerd.scheduler.rejects import RejectsFile
from ledgerd.storage.files import migrate_files, open_engine
from ledgerd.storage.folders import make_folder
from ledgerd.storage.keyfiles import create_key_file, ensure_keys_dir
from tests.process import bound_by_permissions
from tests.storage.books import Place


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were synced so far, in order."""
    folders = []
    sync = os.fsync

    def noting(descriptor: int) -> None:
        sync(descriptor)
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        if path.is_dir():
            folders.append(path)

    monkeypatch.setattr(os, "fsync", noting)
    return folders


def test_the_names_of_new_folders_are_synced_from_the_top(tmp_path: Path, synced: list[Path]) -> None:
    make_folder(tmp_path / "a" / "b" / "c", 0o700)
    assert (tmp_path / "a" / "b" / "c").stat().st_mode & 0o777 == 0o700
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]


def test_so_is_the_name_of_one_that_is_there(tmp_path: Path, synced: list[Path]) -> None:
    (tmp_path / "a").mkdir()
    make_folder(tmp_path / "a")
    assert synced == [tmp_path]


def test_a_file_in_the_way_is_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        make_folder(tmp_path / "file" / "a")


def test_one_below_a_folder_that_may_not_be_read_is_used_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "above" / "ours").mkdir(parents=True)
    code = "import sys, pathlib, ledgerd.storage.folders as f; f.make_folder(pathlib.Path(sys.argv[1]))"
    (tmp_path / "above").chmod(0o300)
    command = [sys.executable, "-c", code, tmp_path / "above" / "ours"]
    try:
        subprocess.run(command, check=True, preexec_fn=bound_by_permissions)
    finally:
        (tmp_path / "above").chmod(0o700)


async def test_a_new_database_is_synced_into_its_folder_and_that_into_the_one_above(
    tmp_path: Path, synced: list[Path]
) -> None:
    place = Place(tmp_path / "data")
    await (await open_engine(*place.paths)).close()
    assert synced == [tmp_path, place.folder]


async def test_so_is_one_whose_making_was_cut_off(tmp_path: Path, synced: list[Path]) -> None:
    place = Place(tmp_path / "data")
    await (await open_engine(*place.paths)).close()
    place.tables.rename(f"{place.tables}.new")
    synced.clear()
    await (await open_engine(*place.paths)).close()
    assert synced == [tmp_path, place.folder]
    assert await migrate_files(*place.paths) == 0


def test_the_folder_of_keys_and_each_key_are_synced(tmp_path: Path, synced: list[Path]) -> None:
    keys = tmp_path / "keys"
    ensure_keys_dir(keys)
    assert synced == [tmp_path]
    create_key_file(keys / "k", b"secret")
    assert synced == [tmp_path, keys]


def test_a_rejects_file_that_came_or_went_is_synced(tmp_path: Path, synced: list[Path]) -> None:
    rejects = RejectsFile(tmp_path / "bank.csv", 1_000)
    rejects.append([(2, "bad", "row")])
    assert synced == [tmp_path]
    rejects.keep_through(1)
    assert not rejects.path.exists()
    assert synced == [tmp_path, tmp_path]
