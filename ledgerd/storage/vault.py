"""The Aadhaar vault: the one place where an Aadhaar number is checked, hashed, sealed, opened and masked.

An identity is the canonical text: 12 digits for kind "aadhaar", any id text for kind "opaque". Elsewhere it
is known by its keyed hash alone; at rest it is AES-256-GCM under its user's id. No number and no key is
ever in a repr or an error. The owner module of cryptography's AEAD and of stdnum. Used by http/accounts.py,
the import of bank histories and app.py.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from stdnum import verhoeff

from ledgerd.storage.keyfiles import (
    KeyFileError,
    check_strength,
    create_key_file,
    ensure_keys_dir,
    read_key_file,
)

KEY_BYTES = 32
NONCE_BYTES = 12
IDENTITY_KEY_BYTES = 16
OPAQUE_CHARACTERS_MAX = 64
OPAQUE_WHOLLY_MASKED = 8  # an id shorter than this would be half shown by its last four
FILE_NAME = "vault.keys"

# As UIDAI issues them: no number begins with 0 or 1. stdnum's own check refuses palindromes too; we do not.
_AADHAAR = re.compile(r"[2-9][0-9]{11}", re.ASCII)
_KEY_LINE = re.compile(r"(index|encryption ([0-9]{1,3})) ([0-9a-f]{64})", re.ASCII)
_HEADING = (
    "# The keys of the Aadhaar vault. Keep a copy, away from the database's: without it no number opens.\n"
)


class VaultError(Exception):
    """A sealed identity does not open: another key, another user's row, or damaged bytes."""


@dataclass(frozen=True, slots=True)
class VaultKeys:
    """What the key file holds. New identities are sealed with `current_key_id`; the others only open."""

    encryption_keys: dict[int, bytes] = field(repr=False)
    current_key_id: int
    index_key: bytes = field(repr=False)


class Vault:
    """Checks, hashes, seals and masks identities. `nonce(n)` gives n random bytes, never the same twice."""

    def __init__(
        self,
        encryption_keys: dict[int, bytes],
        current_key_id: int,
        index_key: bytes,
        kind: Literal["aadhaar", "opaque"],
        nonce: Callable[[int], bytes],
    ) -> None:
        if any(len(key) != KEY_BYTES for key in (index_key, *encryption_keys.values())):
            raise ValueError(f"the vault's keys are {KEY_BYTES} bytes each")
        if index_key in encryption_keys.values():
            raise ValueError("the vault's index key may not be an encryption key too")
        if current_key_id not in encryption_keys or not all(0 <= key_id <= 255 for key_id in encryption_keys):
            raise ValueError("the vault's key ids are 0 to 255, and the current one is among its keys")
        self._ciphers = {key_id: AESGCM(key) for key_id, key in encryption_keys.items()}
        self._current_key_id = current_key_id
        self._hasher = hmac.new(index_key, digestmod=hashlib.sha256)
        self._kind = kind
        self._nonce = nonce

    @property
    def fingerprint(self) -> bytes:
        """16 bytes that name the index key without telling it: a database is of use with this one alone."""
        return self._keyed_hash(b"fingerprint\x00")

    def parse(self, text: str) -> str | None:
        """Return the canonical identity, or None when the text is none.

        aadhaar: 12 ASCII digits, nothing around or between them, the last one checking the others.
        opaque: 1 to 64 printable characters, once stripped.
        """
        if self._kind == "aadhaar":
            return text if _AADHAAR.fullmatch(text) and verhoeff.is_valid(text) else None
        stripped = text.strip()
        return stripped if 1 <= len(stripped) <= OPAQUE_CHARACTERS_MAX and stripped.isprintable() else None

    def identity_key(self, identity: str) -> bytes:
        """Return the 16 bytes of HMAC-SHA-256 by which the identity is looked up and kept unique."""
        return self._keyed_hash(identity.encode())

    def seal(self, user_id: int, identity: str) -> bytes:
        """Return key id (1 byte), nonce (12), ciphertext and tag; they open for this user id alone."""
        nonce = self._nonce(NONCE_BYTES)
        sealed = self._ciphers[self._current_key_id].encrypt(nonce, identity.encode(), _owner(user_id))
        return bytes((self._current_key_id,)) + nonce + sealed

    def open(self, user_id: int, sealed: bytes) -> str:
        """Return the identity; VaultError when the bytes are not this user's or no key of ours opens them."""
        cipher = self._ciphers.get(sealed[0]) if sealed else None
        if cipher is None:
            raise VaultError("a vault row names a key that is not in the key file")
        nonce, ciphertext = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, ciphertext, _owner(user_id)).decode()
        except (InvalidTag, ValueError):
            raise VaultError("a vault row does not open: it is damaged, or another user's") from None

    def mask(self, identity: str) -> str:
        """Return it as answers show it: `XXXX XXXX 0124`; of an opaque id, X for all but the last four."""
        if self._kind == "aadhaar":
            return f"XXXX XXXX {identity[-4:]}"
        shown = self.last_four(identity)
        return "X" * (len(identity) - len(shown)) + shown

    def last_four(self, identity: str) -> str:
        """Return the four last characters, or nothing of an id so short that they would give it away."""
        if self._kind == "opaque" and len(identity) < OPAQUE_WHOLLY_MASKED:
            return ""
        return identity[-4:]

    def _keyed_hash(self, message: bytes) -> bytes:
        hasher = self._hasher.copy()
        hasher.update(message)
        return hasher.digest()[:IDENTITY_KEY_BYTES]


def load_or_create_vault_keys(keys_dir: Path, random_bytes: Callable[[int], bytes]) -> VaultKeys:
    """Return the keys in `keys_dir`/vault.keys, made when there is no such file.

    Raises KeyFileError when the file cannot be trusted.
    """
    ensure_keys_dir(keys_dir)
    path = keys_dir / FILE_NAME
    content = read_key_file(path)
    if content is None:
        index, encryption = random_bytes(KEY_BYTES), random_bytes(KEY_BYTES)
        create_key_file(path, f"{_HEADING}index {index.hex()}\nencryption 1 {encryption.hex()}\n".encode())
        content = read_key_file(path)
    keys = _parse_keys(content or b"")
    if keys is None:
        raise KeyFileError(f"the key file {path} is damaged: restore it from your copy")
    for key in (keys.index_key, *keys.encryption_keys.values()):
        check_strength(path, key)
    return keys


def _parse_keys(content: bytes) -> VaultKeys | None:
    encryption: dict[int, bytes] = {}
    index = b""
    for line in content.decode("ascii", "replace").splitlines():
        if not line or line.startswith("#"):
            continue
        match = _KEY_LINE.fullmatch(line)
        if match is None:
            return None
        key = bytes.fromhex(match[3])
        if key in (index, *encryption.values()):
            return None
        if match[2] is None:
            if index:
                return None
            index = key
        elif int(match[2]) > 255 or int(match[2]) in encryption:
            return None
        else:
            encryption[int(match[2])] = key
    if not index or not encryption:
        return None
    return VaultKeys(encryption, max(encryption), index)


def _owner(user_id: int) -> bytes:
    return user_id.to_bytes(8, "big", signed=True)
