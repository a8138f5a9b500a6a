"""The files that pages of the console name: scripts and styles, of our own and vendored.

Each bears a digest of its content in its address, so that browsers keep it for ever and never an old one.
What is vendored is listed in static/ASSETS.toml with its version, licence and digest, which a test holds.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Final

BASE: Final = "/console/static/"
HEADERS: Final = {"Cache-Control": "public, max-age=31536000, immutable"}
_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is served."""

    address: str
    content_type: str
    body: bytes


def _load() -> dict[str, Asset]:
    assets = {}
    for file in (files("ledgerd.http") / "static").iterdir():
        name = PurePosixPath(file.name)
        if name.suffix in _TYPES:
            body = file.read_bytes()
            digest = hashlib.sha256(body).hexdigest()[:16]
            address = f"{BASE}{name.stem}.{digest}{name.suffix}"
            assets[file.name] = Asset(address, _TYPES[name.suffix], body)
    return assets


ASSETS: Final = _load()


def address_of(name: str) -> str:
    """Return where the file of this name is served."""
    return ASSETS[name].address
