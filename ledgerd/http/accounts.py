"""Accounts: registering, logging in and out, refreshing, and the clients that machines log in as.

What the handlers of people call; it knows no HTTP. Answers are plain values or a `Refusal`. Nothing that
was sent in secret (a password, a client secret, a token, an identity) comes back in a refusal or is kept as
it was sent. A login does the same work whether or not the user exists. `Busy`, from the password pool,
passes through.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ledgerd.config import Auth
from ledgerd.http.clients import (
    ClientCredentials,
    Records,
    Refusal,
    create_client,
    new_secret,
    secret_hash,
)
from ledgerd.http.passwords import Passwords
from ledgerd.http.person import email_key
from ledgerd.http.throttle import Throttle
from ledgerd.http.tokens import BadToken, Caller, Revocations, Tokens
from ledgerd.ids import Ids, format_id, parse_id
from ledgerd.storage.vault import Vault

BORROWER_SCOPES = ("borrower",)
# A token issued while its login ends may live this much longer than one issued just before.
REVOCATION_MARGIN_S = 60
# How long it is taken on trust that a borrower, once seen in the vault, still is.
REGISTERED_FOR_S = 10
REGISTERED_MAX = 10_000


@dataclass(frozen=True, slots=True)
class User:
    """A borrower as answers show one; the score is None while pending."""

    user_id: int
    name: str
    email: str
    masked_identity: str
    annual_income_paise: int
    credit_score: int | None


@dataclass(frozen=True, slots=True)
class Grant:
    """What a login gives; clients get no refresh token (None)."""

    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_in_s: int


_BAD_CREDENTIALS = Refusal("bad-credentials", "The credentials are not right.")
_ALREADY_REGISTERED = Refusal("already-registered", "This Aadhaar ID or email is registered already: log in.")


class Accounts:
    """All that people and clients do about themselves. `now_s` is real time, in seconds since the epoch."""

    def __init__(
        self,
        store: Records,
        vault: Vault,
        tokens: Tokens,
        passwords: Passwords,
        throttle: Throttle,
        revocations: Revocations,
        ids: Ids,
        random_bytes: Callable[[int], bytes],
        now_s: Callable[[], float],
        auth: Auth,
    ) -> None:
        self._store = store
        self._vault = vault
        self._tokens = tokens
        self._passwords = passwords
        self._throttle = throttle
        self._revocations = revocations
        self._ids = ids
        self._random_bytes = random_bytes
        self._now_s = now_s
        self._auth = auth
        self._registered_until_s: OrderedDict[int, float] = OrderedDict()

    async def load_revocations(self) -> None:
        """Fill the revocations from the store; to be awaited before the first request."""
        for login_id, expires_at_s in await self._store.read("revoked_logins", int(self._now_s())):
            self._revocations.revoke(login_id, expires_at_s)

    def recognise(self, token: str) -> Caller | BadToken | None:
        """Return whom the token speaks for, or None when the vault must be asked: see `authenticate`."""
        caller = self._tokens.verify(token)
        return caller if isinstance(caller, BadToken) or self._is_known(caller) else None

    async def authenticate(self, token: str) -> Caller | BadToken:
        """Return whom the token speaks for; a borrower must also be registered in the vault."""
        caller = self._tokens.verify(token)
        if isinstance(caller, BadToken) or self._is_known(caller):
            return caller
        if not await self._store.read("is_registered", caller.id):
            return BadToken.INVALID
        self._registered_until_s[caller.id] = self._now_s() + REGISTERED_FOR_S
        self._registered_until_s.move_to_end(caller.id)
        if len(self._registered_until_s) > REGISTERED_MAX:
            self._registered_until_s.popitem(last=False)
        return caller

    def _is_known(self, caller: Caller) -> bool:
        """Return whether the vault need not be asked: it knows no clients, and was asked a moment ago."""
        return caller.kind != "borrower" or self._registered_until_s.get(caller.id, 0.0) > self._now_s()

    async def register(
        self, name: str, email: str, identity_text: str, annual_income_paise: int, password: str
    ) -> User | Refusal:
        """Add a borrower, pending a score. The fields were checked: see http/person.py and `Vault.parse`."""
        identity = self._vault.parse(identity_text)
        if identity is None:
            return Refusal("invalid-fields", "The Aadhaar ID is not valid.")
        identity_key = self._vault.identity_key(identity)
        # Before the hash, which costs a thousand times as much; the write asks again.
        if await self._store.read("is_taken", identity_key, email_key(email)):
            return _ALREADY_REGISTERED
        password_hash = await self._passwords.hash(password)
        user_id = self._ids.new()
        written = await self._store.write(
            "register_user",
            user_id,
            name,
            email,
            email_key(email),
            annual_income_paise,
            password_hash,
            int(self._now_s() * 1000),
            identity_key,
            self._vault.seal(user_id, identity),
            self._vault.last_four(identity),
        )
        if "refused" in written:
            return _ALREADY_REGISTERED
        return User(
            user_id=user_id,
            name=name,
            email=email,
            masked_identity=self._vault.mask(identity),
            annual_income_paise=annual_income_paise,
            credit_score=None,
        )

    async def login(
        self, identity_text: str | None, email: str | None, password: str, address: str
    ) -> Grant | Refusal:
        """Return tokens for the borrower with this identity or, when it is None, this email; see `prove`."""
        user_id = await self.prove(identity_text, email, password, address)
        return user_id if isinstance(user_id, Refusal) else await self._begin_login(user_id)

    async def prove(
        self, identity_text: str | None, email: str | None, password: str, address: str
    ) -> int | Refusal:
        """Return the id of the borrower with this identity or, when it is None, this email, whose password it
        is. `address` is the caller's, for the throttle.
        """
        lookup: tuple[bytes | None, str | None]
        if identity_text is None:
            lookup = None, email_key(email or "")
        else:
            # A text that is no identity is still looked up, and found nowhere.
            lookup = self._vault.identity_key(self._vault.parse(identity_text) or ""), None
        account_key = hashlib.sha256(repr(lookup).encode()).digest()
        if retry_after_s := self._throttle.check(account_key, address):
            return _too_many_attempts(retry_after_s)
        user = await self._store.read("user_for_login", *lookup)
        right = await self._passwords.verify(user and user["password_hash"], password)
        # A delay that began meanwhile holds for this attempt too, right or wrong.
        if retry_after_s := self._throttle.check(account_key, address):
            return _too_many_attempts(retry_after_s)
        if not right:
            self._throttle.failed(account_key, address)
            return _BAD_CREDENTIALS
        self._throttle.succeeded(account_key, address)
        user_id: int = user["user_id"]
        return user_id

    async def client_token(self, client_id: str, client_secret: str) -> Grant | Refusal:
        """Return an access token for a client, with the scopes that it has now."""
        scopes = await self.prove_client(client_id, client_secret)
        if isinstance(scopes, Refusal):
            return scopes
        access_token = self._tokens.issue(
            client_id, "client", scopes, self._ids.new(), format_id(self._ids.new())
        )
        return self._grant(access_token, None)

    async def prove_client(self, client_id: str, client_secret: str) -> tuple[str, ...] | Refusal:
        """Return the scopes that the client has now, whose secret it is."""
        number = parse_id(client_id)
        client = await self._store.read("client_by_id", -1 if number is None else number)
        expected = client["secret_hash"] if client else bytes(hashlib.sha256().digest_size)
        if not hmac.compare_digest(secret_hash(client_secret), expected) or client is None:
            return _BAD_CREDENTIALS
        return tuple(client["scopes"].split())

    async def refresh(self, refresh_token: str) -> Grant | Refusal:
        """Return a login's next tokens for a refresh token not used before; a used one ends the login."""
        now_s = int(self._now_s())
        successor = new_secret(self._random_bytes)
        exchanged = await self._store.write(
            "exchange_refresh_token",
            secret_hash(refresh_token),
            secret_hash(successor),
            now_s,
            now_s + self._auth.refresh_ttl_s,
            self._revoked_until_s(),
        )
        if exchanged.get("refused") == "reused":
            self._revocations.revoke(exchanged["login_id"], self._revoked_until_s())
        if "refused" in exchanged:
            return _BAD_CREDENTIALS
        return self._grant(self._borrower_token(exchanged["user_id"], exchanged["login_id"]), successor)

    async def logout(self, caller: Caller) -> None:
        """End the caller's login: its access and refresh tokens stop working, after restarts too."""
        expires_at_s = self._revoked_until_s()
        await self._store.write("revoke_login", caller.login_id, expires_at_s, int(self._now_s()))
        self._revocations.revoke(caller.login_id, expires_at_s)

    async def me(self, caller: Caller) -> User | None:
        """Return the borrower who calls, or None when the vault does not know them."""
        return await self.user(caller.id)

    async def user(self, user_id: int) -> User | None:
        """Return a borrower, or None when the vault does not know this id."""
        row = await self._store.read("user_by_id", user_id)
        if row is None:
            return None
        identity = self._vault.open(user_id, row["sealed_identity"])
        return User(
            user_id=user_id,
            name=row["name"],
            email=row["email"],
            masked_identity=self._vault.mask(identity),
            annual_income_paise=row["annual_income_paise"],
            credit_score=row["credit_score"],
        )

    async def create_client(self, name: str, scopes: Iterable[str]) -> ClientCredentials | Refusal:
        """Make a client; see http/clients.py."""
        return await create_client(self._store, self._ids, self._random_bytes, self._now_s, name, scopes)

    async def _begin_login(self, user_id: int) -> Grant:
        login_id, refresh_token, now_s = self._ids.new(), new_secret(self._random_bytes), int(self._now_s())
        await self._store.write(
            "store_refresh_token",
            secret_hash(refresh_token),
            login_id,
            user_id,
            now_s + self._auth.refresh_ttl_s,
            now_s,
        )
        return self._grant(self._borrower_token(user_id, login_id), refresh_token)

    def _borrower_token(self, user_id: int, login_id: int) -> str:
        return self._tokens.issue(
            format_id(user_id), "borrower", BORROWER_SCOPES, login_id, format_id(self._ids.new())
        )

    def _grant(self, access_token: str, refresh_token: str | None) -> Grant:
        return Grant(
            access_token=access_token,
            refresh_token=refresh_token,
            expires_in_s=self._tokens.access_ttl_s,
        )

    def _revoked_until_s(self) -> int:
        return int(self._now_s()) + self._tokens.access_ttl_s + REVOCATION_MARGIN_S


def _too_many_attempts(retry_after_s: int) -> Refusal:
    return Refusal("too-many-attempts", "Too many failed logins: wait, then try again.", retry_after_s)
