"""Clients: machines that log in with a secret of their own; and how such secrets are made and kept.

A secret is 256 random bits, kept as its SHA-256: there is nothing to guess, so it needs no slow hash. Used by
http/accounts.py, and by the command line, which makes clients with no more than a store.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ledgerd.http.person import valid_name
from ledgerd.ids import Ids, format_id

SECRET_BYTES = 32
CLIENT_SCOPES = ("payments:write", "ops")


class Records(Protocol):
    """The part of the store's seam that people and clients need."""

    async def read(self, name: str, *params: Any) -> Any:
        """Run a named read."""
        ...

    async def write(self, name: str, *params: Any) -> Any:
        """Run a named write, durable when it returns."""
        ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing was done. `code` names the problem; `detail` is for the caller to read."""

    code: str
    detail: str
    retry_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """A new client. The secret is shown this once."""

    client_id: str
    client_secret: str = field(repr=False)
    scopes: tuple[str, ...]


async def create_client(
    store: Records,
    ids: Ids,
    random_bytes: Callable[[int], bytes],
    now_s: Callable[[], float],
    name: str,
    scopes: Iterable[str],
) -> ClientCredentials | Refusal:
    """Make a client with a name like a person's and one or more of CLIENT_SCOPES; anything else is refused as
    `invalid-fields`.
    """
    if not valid_name(name):
        detail = "A client's name is 1 to 200 characters that show: no control characters, not blank alone."
        return Refusal("invalid-fields", detail)
    wanted = set(scopes)
    if not wanted or not wanted <= set(CLIENT_SCOPES):
        return Refusal("invalid-fields", f"A client's scopes are one or more of: {', '.join(CLIENT_SCOPES)}.")
    granted = tuple(scope for scope in CLIENT_SCOPES if scope in wanted)
    client_id, secret = ids.new(), new_secret(random_bytes)
    await store.write(
        "create_client", client_id, name, secret_hash(secret), " ".join(granted), int(now_s() * 1000)
    )
    return ClientCredentials(client_id=format_id(client_id), client_secret=secret, scopes=granted)


def new_secret(random_bytes: Callable[[int], bytes]) -> str:
    """Return 256 random bits as URL-safe text."""
    return base64.urlsafe_b64encode(random_bytes(SECRET_BYTES)).rstrip(b"=").decode()


def secret_hash(secret: str) -> bytes:
    """Return a secret as it is kept."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
