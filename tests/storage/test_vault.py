from __future__ import annotations

import hashlib
import hmac
import random
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledgerd.storage.keyfiles import KeyFileError
from ledgerd.storage.vault import FILE_NAME, Vault, VaultError, load_or_create_vault_keys

KEY, INDEX_KEY = b"abcdefghijklmnopqrstuvwxyz012345", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ543210"
OTHER_KEY = KEY[::-1]
NUMBER = "234567890124"


def make_vault(kind="aadhaar", keys=None, current=1, index_key=INDEX_KEY, seed=1) -> Vault:
    return Vault(keys or {1: KEY}, current, index_key, kind, random.Random(seed).randbytes)


# What is an identity ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "number",
    [
        "234567890124",
        "222233334444",
        "333344445555",
        "999941057058",
        "496858245152",
        "521185133376",
        "200030030002",  # a palindrome with a right check digit: no rule of ours against it
    ],
)
def test_a_number_with_a_right_check_digit_is_an_identity(number):
    assert make_vault().parse(number) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "234567890123",
        "987654321098",
        "999900001111",
        "111122223333",  # Verhoeff is content, but no number begins with 1
        "012345678909",
        "23456789012",
        "2345678901245",
        "2345 6789 0124",
        "2345-6789-0124",
        " 234567890124",
        "234567890124\n",
        "２３４５６７８９０１２４",
        "२३४५६७८९०१२४",
        "23456789012\u0664",
        "+23456789012",
        "2" * 100_000,
        "\ud800" * 12,
    ],
)
def test_any_other_text_is_none(text):
    assert make_vault().parse(text) is None


@given(st.integers(2 * 10**10, 10**11 - 1))
def test_one_check_digit_in_ten_is_right(stem):
    vault = make_vault()
    assert sum(vault.parse(f"{stem}{digit}") is not None for digit in range(10)) == 1


@given(st.integers(0, 11), st.integers(1, 9))
def test_a_digit_mistyped_is_found(position, step):
    digits = list(NUMBER)
    digits[position] = str((int(digits[position]) + step) % 10)
    assert make_vault().parse("".join(digits)) is None


@pytest.mark.parametrize(
    ("text", "identity"),
    [
        ("user-17", "user-17"),
        ("  user 17\t", "user 17"),
        ("x" * 64, "x" * 64),
        ("नाम", "नाम"),
        ("x" * 65, None),
        ("", None),
        ("   ", None),
        ("a\x00b", None),
        ("a\nb", None),
        ("a\u202eb", None),
        ("\ud800", None),
    ],
)
def test_an_opaque_identity_is_any_printable_text(text, identity):
    assert make_vault("opaque").parse(text) == identity


# How it is known, kept and shown ----------------------------------------------------------------------


def test_the_look_up_key_is_a_keyed_hash():
    expected = hmac.new(INDEX_KEY, NUMBER.encode(), hashlib.sha256).digest()[:16]
    vault = make_vault()
    assert [vault.identity_key(NUMBER) for _ in range(2)] == [expected] * 2
    assert make_vault(index_key=OTHER_KEY).identity_key(NUMBER) != expected


def test_the_fingerprint_names_the_index_key_alone():
    assert make_vault().fingerprint == make_vault(keys={7: OTHER_KEY}, current=7).fingerprint
    assert make_vault().fingerprint != make_vault(index_key=OTHER_KEY).fingerprint


@given(st.integers(-(2**63), 2**63 - 1), st.text(min_size=1, max_size=64).filter(str.isprintable))
def test_what_is_sealed_opens(user_id, identity):
    vault = make_vault("opaque")
    sealed = vault.seal(user_id, identity)
    assert sealed[0] == 1
    assert vault.open(user_id, sealed) == identity


def test_the_same_number_never_looks_the_same_twice():
    vault = make_vault()
    first, second = vault.seal(7, NUMBER), vault.seal(7, NUMBER)
    assert first[13:] != second[13:]
    assert NUMBER.encode() not in first


def test_a_row_opens_for_its_own_user_alone():
    vault = make_vault()
    with pytest.raises(VaultError):
        vault.open(8, vault.seal(7, NUMBER))


def test_every_byte_of_a_row_counts():
    vault = make_vault()
    sealed = vault.seal(7, NUMBER)
    for position in range(len(sealed)):
        damaged = bytearray(sealed)
        damaged[position] ^= 1
        with pytest.raises(VaultError) as error:
            vault.open(7, bytes(damaged))
        assert NUMBER not in str(error.value)
    for length in range(len(sealed)):
        with pytest.raises(VaultError):
            vault.open(7, sealed[:length])


def test_a_new_key_seals_and_the_old_one_still_opens():
    sealed = make_vault().seal(7, NUMBER)
    rotated = make_vault(keys={1: KEY, 2: OTHER_KEY}, current=2)
    assert rotated.open(7, sealed) == NUMBER
    assert rotated.seal(7, NUMBER)[0] == 2
    with pytest.raises(VaultError):
        make_vault(keys={2: OTHER_KEY}, current=2).open(7, sealed)


@pytest.mark.parametrize(
    ("kind", "identity", "masked", "last_four"),
    [
        ("aadhaar", NUMBER, "XXXX XXXX 0124", "0124"),
        ("opaque", "user-12345", "XXXXXX2345", "2345"),
        ("opaque", "12345678", "XXXX5678", "5678"),
        ("opaque", "1234567", "XXXXXXX", ""),
        ("opaque", "x", "X", ""),
    ],
)
def test_a_mask_shows_the_last_four_at_most(kind, identity, masked, last_four):
    vault = make_vault(kind)
    assert vault.mask(identity) == masked
    assert vault.last_four(identity) == last_four


@pytest.mark.parametrize(
    ("keys", "current", "index_key"),
    [
        ({1: b"short"}, 1, INDEX_KEY),
        ({1: KEY}, 1, b"short"),
        ({1: KEY}, 2, INDEX_KEY),
        ({256: KEY}, 256, INDEX_KEY),
        ({1: KEY}, 1, KEY),
        ({}, 1, INDEX_KEY),
    ],
)
def test_keys_that_protect_nothing_are_refused(keys, current, index_key):
    with pytest.raises(ValueError, match="vault") as error:
        Vault(keys, current, index_key, "aadhaar", random.Random(1).randbytes)
    assert KEY.decode() not in str(error.value)


# The key file ----------------------------------------------------------------------


def test_keys_are_made_once_and_privately(tmp_path):
    keys_dir = tmp_path / "keys"
    made = load_or_create_vault_keys(keys_dir, random.Random(1).randbytes)
    again = load_or_create_vault_keys(keys_dir, random.Random(2).randbytes)
    assert made == again
    assert (made.current_key_id, set(made.encryption_keys)) == (1, {1})
    assert made.index_key != made.encryption_keys[1]
    assert stat.S_IMODE(keys_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE((keys_dir / FILE_NAME).stat().st_mode) == 0o600


def test_keys_are_not_shown(tmp_path):
    keys = load_or_create_vault_keys(tmp_path, random.Random(1).randbytes)
    vault = Vault(
        keys.encryption_keys, keys.current_key_id, keys.index_key, "aadhaar", random.Random(1).randbytes
    )
    for key in (keys.index_key, keys.encryption_keys[1]):
        assert key.hex() not in repr(keys) + repr(vault)
        assert repr(key) not in repr(keys) + repr(vault)


def test_a_second_key_in_the_file_is_the_one_that_seals(tmp_path):
    load_or_create_vault_keys(tmp_path, random.Random(1).randbytes)
    with (tmp_path / FILE_NAME).open("a") as file:
        file.write(f"\nencryption 2 {OTHER_KEY.hex()}\n")
    keys = load_or_create_vault_keys(tmp_path, random.Random(1).randbytes)
    assert keys.current_key_id == 2
    assert keys.encryption_keys[2] == OTHER_KEY


INDEX_LINE, KEY_LINE = f"index {INDEX_KEY.hex()}\n", f"encryption 1 {KEY.hex()}\n"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "# nothing\n",
        INDEX_LINE,
        KEY_LINE,
        INDEX_LINE + KEY_LINE[:-2],
        INDEX_LINE + KEY_LINE.replace("encryption 1", "encryption 256"),
        INDEX_LINE + KEY_LINE + KEY_LINE.replace(KEY.hex(), OTHER_KEY.hex()),
        INDEX_LINE + INDEX_LINE.replace(INDEX_KEY.hex(), INDEX_KEY[::-1].hex()) + KEY_LINE,
        INDEX_LINE + f"encryption 1 {INDEX_KEY.hex()}\n",
        INDEX_LINE + KEY_LINE + "and more\n",
        INDEX_LINE + KEY_LINE.upper(),
        "\x00" * 200,
        "\xff\xfe",
    ],
)
def test_a_damaged_file_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / FILE_NAME
    path.write_text(content, encoding="latin-1")
    path.chmod(0o600)
    with pytest.raises(KeyFileError) as refusal:
        load_or_create_vault_keys(tmp_path, random.Random(1).randbytes)
    assert "restore it from your copy" in str(refusal.value)
    assert KEY.hex() not in str(refusal.value)
    assert path.read_text(encoding="latin-1") == content


@pytest.mark.parametrize("weak", [bytes(32), b"\xff" * 32, b"changeme" * 4, bytes(26) + b"123456"])
@pytest.mark.parametrize("which", ["index", "encryption 1", "encryption 2"])
def test_a_key_that_can_be_guessed_is_refused(tmp_path, which, weak):
    keys = {"index": INDEX_KEY, "encryption 1": KEY, "encryption 2": OTHER_KEY, which: weak}
    path = tmp_path / FILE_NAME
    path.write_text("".join(f"{name} {key.hex()}\n" for name, key in keys.items()))
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=f"{path} holds a key that can be guessed: ") as refusal:
        load_or_create_vault_keys(tmp_path, random.Random(1).randbytes)
    assert weak.hex() not in str(refusal.value)


def test_a_file_that_others_can_read_is_refused(tmp_path):
    load_or_create_vault_keys(tmp_path, random.Random(1).randbytes)
    (tmp_path / FILE_NAME).chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_or_create_vault_keys(tmp_path, random.Random(1).randbytes)
