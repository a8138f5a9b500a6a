"""Access tokens: signed JWTs (EdDSA, RFC 9068), and who a token says is calling.

One algorithm, keys by kid from memory alone, every claim required and its type checked. A token once
verified is kept, so that its next use costs a look-up; expiry and revocation are looked at on every use.
The owner module of jwt. Used by http/accounts.py.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import jwt

from ledgerd.http.keyring import Keyring
from ledgerd.ids import format_id, parse_id

TOKEN_CHARACTERS_MAX = 4096
# How far our own clock may step back between issuing a token and reading it.
CLOCK_STEP_S = 5
SWEEP_AT_LEAST = 1024

_ALGORITHMS = ["EdDSA"]
_TYPE = "at+jwt"
_REQUIRED = ["exp", "iat", "iss", "aud", "sub", "jti", "sid", "scope"]

Kind = Literal["borrower", "client"]


class BadToken(Enum):
    """Why a token is not accepted; the value is the text for the caller."""

    INVALID = "The access token is not valid."
    EXPIRED = "The access token has expired."
    REVOKED = "The login of this access token has ended."


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a token speaks for. `namespace` keeps one caller's transaction ids apart from another's."""

    kind: Kind
    id: int
    scopes: frozenset[str]
    login_id: int
    expires_at_s: int
    jti: str
    namespace: str


class Revocations:
    """Logins that have ended while their access tokens have not. Filled from the store at start."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._expires_at_s: dict[int, int] = {}
        self._sweep_at = SWEEP_AT_LEAST

    def __len__(self) -> int:
        return len(self._expires_at_s)

    def revoke(self, login_id: int, expires_at_s: int) -> None:
        """Let no token of the login count; after `expires_at_s` all have expired, and it is forgotten."""
        self._expires_at_s[login_id] = max(expires_at_s, self._expires_at_s.get(login_id, 0))
        if len(self._expires_at_s) >= self._sweep_at:
            now_s = self._now_s()
            kept = {login: ends for login, ends in self._expires_at_s.items() if ends > now_s}
            self._expires_at_s = kept
            self._sweep_at = max(SWEEP_AT_LEAST, 2 * len(kept))

    def is_revoked(self, login_id: int) -> bool:
        """Return whether the login has ended."""
        return login_id in self._expires_at_s


class Tokens:
    """Issues and verifies access tokens. `now_s` is the real time in seconds since the epoch."""

    def __init__(
        self,
        keyring: Keyring,
        issuer: str,
        audience: str,
        access_ttl_s: int,
        cache_size: int,
        now_s: Callable[[], float],
        revocations: Revocations,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._access_ttl_s = access_ttl_s
        self._cache_size = cache_size
        self._now_s = now_s
        self._revocations = revocations
        # By the token's whole text: a digest of it would cost more than all the rest of a look-up.
        self._verified: OrderedDict[str, Caller] = OrderedDict()
        self._decoder = jwt.PyJWT()
        self.use_keyring(keyring)

    @property
    def access_ttl_s(self) -> int:
        """Return how long a token lives."""
        return self._access_ttl_s

    def use_keyring(self, keyring: Keyring) -> None:
        """Sign and verify with these keys from now on; whatever was verified before is verified again."""
        self._keyring = keyring
        self._keys = {key.kid: key for key in keyring.keys}
        self._verified.clear()

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public keys as a JSON Web Key Set."""
        return self._keyring.jwks()

    def issue(self, subject: str, kind: Kind, scopes: tuple[str, ...], login_id: int, jti: str) -> str:
        """Return a new token for the borrower or client whose public id is `subject`."""
        issued_at_s = int(self._now_s())
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": f"{kind}:{subject}",
            "scope": " ".join(scopes),
            "iat": issued_at_s,
            "exp": issued_at_s + self._access_ttl_s,
            "jti": jti,
            "sid": format_id(login_id),
        }
        key = self._keyring.signing
        return jwt.encode(claims, key.private, algorithm="EdDSA", headers={"typ": _TYPE, "kid": key.kid})

    def verify(self, token: str) -> Caller | BadToken:
        """Return whom the token speaks for: a look-up for a token seen before, else a signature check."""
        if len(token) > TOKEN_CHARACTERS_MAX:
            return BadToken.INVALID
        caller = self._verified.get(token)
        if caller is not None:
            self._verified.move_to_end(token)
        else:
            verdict = self._verify_unseen(token)
            if isinstance(verdict, BadToken):
                return verdict
            caller = self._remember(token, verdict)
        if caller.expires_at_s <= self._now_s():
            self._verified.pop(token, None)
            return BadToken.EXPIRED
        if self._revocations.is_revoked(caller.login_id):
            return BadToken.REVOKED
        return caller

    def _remember(self, token: str, caller: Caller) -> Caller:
        self._verified[token] = caller
        if len(self._verified) > self._cache_size:
            self._verified.popitem(last=False)
        return caller

    def _verify_unseen(self, token: str) -> Caller | BadToken:
        if not token.isascii():
            return BadToken.INVALID
        try:
            header = jwt.get_unverified_header(token)
            kid, typ = header.get("kid"), header.get("typ")
            key = self._keys.get(kid) if isinstance(kid, str) else None
            if key is None or not isinstance(typ, str) or typ.lower() != _TYPE:
                return BadToken.INVALID
            # The times are compared with our own injected clock below.
            claims = self._decoder.decode(
                token,
                key.public,
                algorithms=_ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
                options={
                    "require": _REQUIRED,
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return BadToken.INVALID
        if not self._is_timely(claims, key.retired_at_s):
            return BadToken.INVALID
        return _caller(claims) or BadToken.INVALID

    def _is_timely(self, claims: dict[str, Any], key_retired_at_s: int | None) -> bool:
        """Return whether it was issued in the past, by a key in use then, for no longer than we do."""
        issued_at_s, expires_at_s = claims["iat"], claims["exp"]
        not_before_s = claims.get("nbf", issued_at_s)
        if not all(type(time_s) is int for time_s in (issued_at_s, expires_at_s, not_before_s)):
            return False
        latest_s = self._now_s() + CLOCK_STEP_S
        if key_retired_at_s is not None:
            latest_s = min(latest_s, key_retired_at_s + CLOCK_STEP_S)
        lifetime_s = expires_at_s - issued_at_s
        return bool(max(issued_at_s, not_before_s) <= latest_s and 0 < lifetime_s <= self._access_ttl_s)


def _caller(claims: dict[str, Any]) -> Caller | None:
    """Return the claims as a caller, or None when one of them is not of our making."""
    if not all(isinstance(claims[name], str) for name in ("sub", "jti", "sid", "scope")):
        return None
    kind, _, subject = claims["sub"].partition(":")
    caller_id, login_id = parse_id(subject), parse_id(claims["sid"])
    if kind not in ("borrower", "client") or caller_id is None or login_id is None:
        return None
    return Caller(
        kind=kind,
        id=caller_id,
        scopes=frozenset(claims["scope"].split()),
        login_id=login_id,
        expires_at_s=claims["exp"],
        jti=claims["jti"],
        namespace=f"{kind[0]}:{format_id(caller_id)}",
    )
