"""The Ed25519 keys that sign access tokens, each a PEM file in the keys folder: `<made at, s>.<kid>.pem`.

The newest key signs. The ones before it only verify, and only tokens issued before they were retired, so
that an old key that leaks forges nothing new. A kid is the key's RFC 7638 thumbprint. Used by
http/tokens.py and app.py.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ledgerd.storage.folders import sync_folder
from ledgerd.storage.keyfiles import (
    KeyFileError,
    check_strength,
    create_key_file,
    ensure_keys_dir,
    read_key_file,
)

SEED_BYTES = 32
_FILE_NAME = re.compile(r"([0-9]{1,12})\.([A-Za-z0-9_-]{43})\.pem", re.ASCII)


@dataclass(frozen=True, slots=True)
class TokenKey:
    """One key. `retired_at_s` is when the next one was made, None for the key that signs."""

    kid: str
    created_at_s: int
    retired_at_s: int | None
    private: Ed25519PrivateKey = field(repr=False)
    public: Ed25519PublicKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class Keyring:
    """All keys, oldest first; never empty."""

    keys: tuple[TokenKey, ...]

    @property
    def signing(self) -> TokenKey:
        """Return the newest key."""
        return self.keys[-1]

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public halves as a JSON Web Key Set, for whoever verifies tokens elsewhere."""
        return {
            "keys": [
                {**_public_jwk(key.public), "kid": key.kid, "use": "sig", "alg": "EdDSA"} for key in self.keys
            ]
        }


def load_or_create_keyring(keys_dir: Path, now_s: float, random_bytes: Callable[[int], bytes]) -> Keyring:
    """Return the keys in the folder, a first one made when there is none; KeyFileError for a damaged one."""
    ensure_keys_dir(keys_dir)
    return _load(keys_dir) or _create(keys_dir, int(now_s), random_bytes)


def rotate_keyring(
    keys_dir: Path, now_s: float, random_bytes: Callable[[int], bytes], keep_s: int
) -> Keyring:
    """Make a new key to sign with, and remove those retired more than `keep_s` (a token's life) ago.

    A service that runs must be handed the result (`Tokens.use_keyring`).
    """
    ensure_keys_dir(keys_dir)
    before = _load(keys_dir)
    # Newest whatever the clock says, or an old key would go on signing.
    created_at_s = max(int(now_s), before.signing.created_at_s + 1) if before else int(now_s)
    _create(keys_dir, created_at_s, random_bytes)
    for key in before.keys if before else ():
        if key.retired_at_s is not None and key.retired_at_s + keep_s < now_s:
            _path(keys_dir, key.created_at_s, key.kid).unlink(missing_ok=True)
    sync_folder(keys_dir)
    keyring = _load(keys_dir)
    assert keyring is not None
    return keyring


def _load(keys_dir: Path) -> Keyring | None:
    found: list[tuple[int, str, Ed25519PrivateKey]] = []
    try:
        paths = sorted(keys_dir.glob("*.pem"))
    except OSError as error:
        raise KeyFileError(f"cannot read the keys folder {keys_dir}: {error.strerror}") from error
    for path in paths:
        match = _FILE_NAME.fullmatch(path.name)
        if match is not None:
            found.append((int(match[1]), match[2], _read(path, match[2])))
    if not found:
        return None
    found.sort(key=lambda each: each[:2])
    retirements = [*(created_at_s for created_at_s, _, _ in found[1:]), None]
    return Keyring(
        tuple(
            TokenKey(kid, created_at_s, retired_at_s, private, private.public_key())
            for (created_at_s, kid, private), retired_at_s in zip(found, retirements, strict=True)
        )
    )


def _read(path: Path, kid: str) -> Ed25519PrivateKey:
    try:
        private = load_pem_private_key(read_key_file(path) or b"", password=None)
    except (ValueError, TypeError):
        private = None
    if not isinstance(private, Ed25519PrivateKey) or _thumbprint(private.public_key()) != kid:
        raise KeyFileError(f"the key file {path} is damaged: restore it from your copy, or move it away")
    check_strength(path, private.private_bytes_raw())
    return private


def _create(keys_dir: Path, created_at_s: int, random_bytes: Callable[[int], bytes]) -> Keyring:
    private = Ed25519PrivateKey.from_private_bytes(random_bytes(SEED_BYTES))
    path = _path(keys_dir, created_at_s, _thumbprint(private.public_key()))
    create_key_file(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    keyring = _load(keys_dir)
    assert keyring is not None
    return keyring


def _path(keys_dir: Path, created_at_s: int, kid: str) -> Path:
    return keys_dir / f"{created_at_s}.{kid}.pem"


def _public_jwk(public: Ed25519PublicKey) -> dict[str, str]:
    return {"crv": "Ed25519", "kty": "OKP", "x": _base64url(public.public_bytes_raw())}


def _thumbprint(public: Ed25519PublicKey) -> str:
    jwk = _public_jwk(public)
    canonical = f'{{"crv":"{jwk["crv"]}","kty":"{jwk["kty"]}","x":"{jwk["x"]}"}}'
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
