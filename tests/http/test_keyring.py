from __future__ import annotations

import random
import stat

import jwt
import pytest

from ledgerd.http.keyring import load_or_create_keyring, rotate_keyring
from ledgerd.storage.keyfiles import KeyFileError

NOW_S = 1_800_000_000
KEEP_S = 900


def make(keys_dir, seed=1, now_s=NOW_S):
    return load_or_create_keyring(keys_dir, now_s, random.Random(seed).randbytes)


def rotate(keys_dir, seed, now_s):
    return rotate_keyring(keys_dir, now_s, random.Random(seed).randbytes, KEEP_S)


def test_a_first_key_is_made_once_and_privately(tmp_path):
    keys_dir = tmp_path / "keys"
    made, again = make(keys_dir), make(keys_dir, seed=2, now_s=NOW_S + 5)
    assert [key.kid for key in made.keys] == [key.kid for key in again.keys]
    (path,) = keys_dir.iterdir()
    assert path.name == f"{NOW_S}.{made.signing.kid}.pem"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(keys_dir.stat().st_mode) == 0o700


def test_a_kid_is_the_thumbprint_that_the_standard_says(tmp_path):
    # RFC 8037, appendix A
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    keyring = load_or_create_keyring(tmp_path, NOW_S, lambda _: seed)
    assert keyring.signing.kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    assert keyring.jwks()["keys"][0]["x"] == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"


def test_the_published_keys_verify_and_hold_nothing_secret(tmp_path):
    keyring = make(tmp_path)
    token = jwt.encode({"a": 1}, keyring.signing.private, algorithm="EdDSA")
    (published,) = keyring.jwks()["keys"]
    assert set(published) == {"crv", "kty", "x", "kid", "use", "alg"}
    assert (published["use"], published["alg"]) == ("sig", "EdDSA")
    assert jwt.decode(token, jwt.PyJWK(published), algorithms=["EdDSA"]) == {"a": 1}


def test_a_new_key_signs_and_the_one_before_is_retired(tmp_path):
    first = make(tmp_path).signing
    rotated = rotate(tmp_path, 2, NOW_S + 100)
    assert [key.kid for key in rotated.keys] == [first.kid, rotated.signing.kid]
    assert [key.retired_at_s for key in rotated.keys] == [NOW_S + 100, None]
    assert [key.kid for key in make(tmp_path).keys] == [key.kid for key in rotated.keys]
    assert {key["kid"] for key in rotated.jwks()["keys"]} == {first.kid, rotated.signing.kid}


def test_a_retired_key_goes_when_its_last_token_has_expired(tmp_path):
    first = make(tmp_path).signing
    rotate(tmp_path, 2, NOW_S + 100)
    kept = rotate(tmp_path, 3, NOW_S + 100 + KEEP_S)
    assert first.kid in {key.kid for key in kept.keys}
    gone = rotate(tmp_path, 4, NOW_S + 101 + KEEP_S)
    assert first.kid not in {key.kid for key in gone.keys}
    assert len(gone.keys) == 3
    assert len(list(tmp_path.iterdir())) == 3


def test_the_new_key_signs_whatever_the_clock_says(tmp_path):
    make(tmp_path)
    second = rotate(tmp_path, 2, NOW_S).signing
    third = rotate(tmp_path, 3, NOW_S - 1000).signing
    assert second.created_at_s == NOW_S + 1
    assert third.created_at_s == NOW_S + 2
    assert make(tmp_path).signing.kid == third.kid


def test_rotating_before_the_first_start_makes_one_key(tmp_path):
    assert len(rotate(tmp_path / "new", 1, NOW_S).keys) == 1


def test_the_newest_key_signs_though_its_name_comes_first(tmp_path):
    make(tmp_path, now_s=999_999_999)
    newest = rotate(tmp_path, 2, 1_000_000_000).signing
    assert min(path.name for path in tmp_path.iterdir()).startswith("1000000000.")
    assert newest.created_at_s == 1_000_000_000
    assert make(tmp_path).signing.kid == newest.kid


def test_other_files_in_the_folder_are_nobodys_key(tmp_path):
    keyring = make(tmp_path)
    for name in ("notes.pem", f"{NOW_S}.short.pem", f"x.{keyring.signing.kid}.pem", "vault.keys"):
        (tmp_path / name).write_text("not a key")
    assert len(make(tmp_path).keys) == 1


@pytest.mark.parametrize("damage", ["empty", "cut", "other kind", "other key", "no text"])
def test_a_damaged_key_is_refused_and_left_alone(tmp_path, damage):
    kid = make(tmp_path).signing.kid
    path = tmp_path / f"{NOW_S}.{kid}.pem"
    whole = path.read_bytes()
    if damage == "other key":
        (tmp_path / "other").mkdir()
        other = make(tmp_path / "other", seed=9).signing.kid
        content = (tmp_path / "other" / f"{NOW_S}.{other}.pem").read_bytes()
    else:
        content = {
            "empty": b"",
            "cut": whole[:60],
            "other kind": whole.replace(b"PRIVATE", b"PUBLIC"),
            "no text": bytes(100),
        }[damage]
    path.write_bytes(content)
    with pytest.raises(KeyFileError) as refused:
        make(tmp_path)
    advice = "restore it from your copy, or move it away"
    assert str(refused.value) == f"the key file {path} is damaged: {advice}"
    assert path.read_bytes() == content


@pytest.mark.parametrize("weak", [bytes(32), b"\x01" * 32, b"secret" * 5 + b"!!", bytes(26) + b"123456"])
def test_a_key_that_can_be_guessed_is_refused(tmp_path, weak):
    for _ in range(2):  # the one just made is looked at as well
        with pytest.raises(KeyFileError, match="holds a key that can be guessed: "):
            load_or_create_keyring(tmp_path, NOW_S, lambda _: weak)
    with pytest.raises(KeyFileError, match="holds a key that can be guessed: "):
        rotate_keyring(tmp_path, NOW_S, random.Random(1).randbytes, KEEP_S)


def test_a_key_that_others_can_read_is_refused(tmp_path):
    (tmp_path / f"{NOW_S}.{make(tmp_path).signing.kid}.pem").chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        make(tmp_path)
