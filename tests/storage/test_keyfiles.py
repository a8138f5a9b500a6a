from __future__ import annotations

import os
import resource
import stat

import pytest

from ledgerd.storage.keyfiles import BYTES_MAX, KeyFileError, create_key_file, ensure_keys_dir, read_key_file


def mode(path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_missing_folder_is_made_for_its_owner_alone(tmp_path):
    ensure_keys_dir(tmp_path / "a" / "keys")
    assert mode(tmp_path / "a" / "keys") == 0o700


def test_a_folder_that_others_can_write_to_is_refused(tmp_path):
    tmp_path.chmod(0o755)
    ensure_keys_dir(tmp_path)
    for open_mode in (0o775, 0o757):
        tmp_path.chmod(open_mode)
        with pytest.raises(KeyFileError, match="chmod 700"):
            ensure_keys_dir(tmp_path)


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    path = tmp_path / "keys"
    path.write_text("")
    with pytest.raises(KeyFileError, match="cannot use the keys folder"):
        ensure_keys_dir(path)


def test_a_new_file_is_whole_private_and_alone_in_its_folder(tmp_path):
    before = os.umask(0)
    try:
        assert create_key_file(tmp_path / "k", b"secret") is True
    finally:
        os.umask(before)
    assert mode(tmp_path / "k") == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["k"]
    assert read_key_file(tmp_path / "k") == b"secret"


def test_a_file_that_is_there_is_never_replaced(tmp_path):
    create_key_file(tmp_path / "k", b"first")
    assert create_key_file(tmp_path / "k", b"second") is False
    assert read_key_file(tmp_path / "k") == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_the_draft_of_a_process_that_died_is_in_nobodys_way(tmp_path):
    (tmp_path / f".k.{os.getpid()}").write_bytes(b"half a k")
    assert create_key_file(tmp_path / "k", b"whole") is True
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_no_file_is_none(tmp_path):
    assert read_key_file(tmp_path / "k") is None


@pytest.mark.parametrize("open_mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_can_read_is_refused_with_the_cure(tmp_path, open_mode):
    path = tmp_path / "k"
    path.write_bytes(b"secret")
    path.chmod(open_mode)
    with pytest.raises(KeyFileError) as refusal:
        read_key_file(path)
    assert f"chmod 600 {path}" in str(refusal.value)
    assert "secret" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_is_no_plain_file_is_refused_and_waited_for_by_nobody(tmp_path):
    os.mkfifo(tmp_path / "k", 0o600)
    with pytest.raises(KeyFileError, match="not a plain file"):
        read_key_file(tmp_path / "k")


def test_a_huge_file_is_refused(tmp_path):
    create_key_file(tmp_path / "k", bytes(BYTES_MAX + 1))
    with pytest.raises(KeyFileError, match="damaged"):
        read_key_file(tmp_path / "k")


def test_a_folder_that_takes_no_file_says_so(tmp_path):
    with pytest.raises(KeyFileError, match="cannot write the key file"):
        create_key_file(tmp_path / "missing" / "k", b"secret")


def test_a_full_disk_leaves_no_half_of_a_key(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3, before[1]))
    try:
        with pytest.raises(KeyFileError, match="File too large: make room on its disk"):
            create_key_file(tmp_path / "k", b"secret")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_a_file_s_place_is_refused(tmp_path):
    (tmp_path / "k").mkdir(mode=0o700)
    with pytest.raises(KeyFileError, match="is not a plain file"):
        read_key_file(tmp_path / "k")
