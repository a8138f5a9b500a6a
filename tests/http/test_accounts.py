from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path
from typing import Any

import jwt
import pytest

from ledgerd.config import Auth
from ledgerd.http import accounts
from ledgerd.http.accounts import Accounts, Grant, User
from ledgerd.http.clients import CLIENT_SCOPES, ClientCredentials, Refusal
from ledgerd.http.keyring import load_or_create_keyring
from ledgerd.http.passwords import Passwords
from ledgerd.http.throttle import Throttle
from ledgerd.http.tokens import BadToken, Caller, Revocations, Tokens
from ledgerd.ids import Ids, format_id
from ledgerd.storage import people
from ledgerd.storage.vault import Vault

TABLES = Path(people.__file__).parent / "migrations" / "tables" / "0001_tables.sql"
NOW_S = 1_800_000_000
NUMBER, OTHER_NUMBER, UNKNOWN_NUMBER = "234567890124", "999941057058", "496858245152"
PASSWORD = "correct horse"
HERE, ELSEWHERE = "203.0.113.7", "198.51.100.9"
ALREADY = Refusal("already-registered", "This Aadhaar ID or email is registered already: log in.")
AUTH = Auth(access_ttl_s=900, refresh_ttl_s=10_000, login_failures=5)


class Tables:
    """The named reads and writes over one file, as the store's engine runs them."""

    def __init__(self, path: Path) -> None:
        self.conn = sqlite3.connect(path, isolation_level=None)
        self.conn.execute("PRAGMA foreign_keys=ON")
        self.calls: list[str] = []

    async def read(self, name: str, *params: Any) -> Any:
        self.calls.append(name)
        await asyncio.sleep(0)
        return people.READS[name](self.conn, *params)

    async def write(self, name: str, *params: Any) -> Any:
        self.calls.append(name)
        await asyncio.sleep(0)
        self.conn.execute("BEGIN IMMEDIATE")
        result = people.WRITES[name](self.conn, *params)
        self.conn.execute("COMMIT")
        return result


class World:
    """A service with real parts and a time moved by hand; built over the same folder, it has restarted."""

    def __init__(self, folder: Path, seed: int = 1, identities: str = "aadhaar") -> None:
        chance = random.Random(seed)
        self.now_s = float(NOW_S)
        self.tables = Tables(folder / "tables.db")
        self.vault = Vault({1: b"e" * 32}, 1, b"i" * 32, identities, chance.randbytes)
        self.revocations = Revocations(lambda: self.now_s)
        keyring = load_or_create_keyring(folder / "keys", NOW_S, chance.randbytes)
        self.tokens = Tokens(
            keyring, AUTH.issuer, AUTH.audience, AUTH.access_ttl_s, 100, lambda: self.now_s, self.revocations
        )
        self.passwords = Passwords(2, chance.randbytes)
        self.throttle = Throttle(AUTH.login_failures, lambda: self.now_s)
        self.accounts = Accounts(
            self.tables,
            self.vault,
            self.tokens,
            self.passwords,
            self.throttle,
            self.revocations,
            Ids(lambda: self.now_s, chance.getrandbits),
            chance.randbytes,
            lambda: self.now_s,
            AUTH,
        )

    def close(self) -> None:
        self.passwords.close()
        self.tables.conn.close()

    async def register(self, number=NUMBER, email="Asha@Example.com", password=PASSWORD) -> User | Refusal:
        return await self.accounts.register("Asha Rao", email, number, 600_000_00, password)

    async def login(self, number=NUMBER, email=None, password=PASSWORD, address=HERE) -> Grant | Refusal:
        return await self.accounts.login(None if email else number, email, password, address)

    async def caller(self, grant: Grant) -> Caller | BadToken:
        return await self.accounts.authenticate(grant.access_token)


@pytest.fixture
def world(tmp_path):
    conn = sqlite3.connect(tmp_path / "tables.db")
    conn.executescript(TABLES.read_text())
    conn.close()
    world = World(tmp_path)
    yield world
    world.close()


# Registering ----------------------------------------------------------------------


async def test_a_borrower_registers_and_is_shown_masked(world):
    user = await world.register()
    assert user == User(user.user_id, "Asha Rao", "Asha@Example.com", "XXXX XXXX 0124", 600_000_00, None)
    caller = await world.caller(await world.login())
    assert await world.accounts.me(caller) == user


async def test_when_somebody_registered_is_kept_in_milliseconds(world):
    world.now_s += 0.25
    await world.register()
    assert world.tables.conn.execute("SELECT registered_at_ms FROM users").fetchone() == (NOW_S * 1000 + 250,)


async def test_the_score_shows_once_it_is_known(world):
    await world.register()
    world.tables.conn.execute("UPDATE users SET credit_score = 670")
    caller = await world.caller(await world.login())
    assert (await world.accounts.me(caller)).credit_score == 670


@pytest.mark.parametrize(
    ("number", "email"),
    [(NUMBER, "new@example.com"), (OTHER_NUMBER, "aSHA@eXAMPLE.COM"), (NUMBER, "Asha@Example.com")],
)
async def test_the_same_person_registers_once(world, number, email):
    await world.register()
    assert await world.register(number, email) == ALREADY


async def test_who_is_registered_already_costs_no_hash(world):
    await world.register()
    before = len(world.tables.calls)
    world.passwords.close()  # from now on a hash is an error
    for number, email in ((NUMBER, "new@example.com"), (OTHER_NUMBER, "aSHA@eXAMPLE.COM")):
        assert await world.register(number, email) == ALREADY
    assert world.tables.calls[before:] == ["is_taken", "is_taken"]


async def test_many_at_once_register_one(world):
    results = await asyncio.gather(*(world.register() for _ in range(20)))
    assert sum(isinstance(result, User) for result in results) == 1
    assert sum(isinstance(result, Refusal) for result in results) == 19


async def test_what_is_no_identity_is_refused_without_any_work(world):
    refused = Refusal("invalid-fields", "The Aadhaar ID is not valid.")
    assert await world.register("234567890123") == refused
    assert world.tables.calls == []


async def test_neither_number_nor_password_nor_token_lies_in_the_tables(world):
    await world.register()
    grant = await world.login()
    client = await world.accounts.create_client("till", ["ops"])
    rows = "\n".join(world.tables.conn.iterdump())
    content = (await asyncio.to_thread(Path.read_bytes, database_of(world))).decode("latin-1") + rows
    for secret in (
        NUMBER,
        NUMBER.encode().hex().upper(),
        PASSWORD,
        grant.refresh_token,
        grant.access_token,
        client.client_secret,
    ):
        assert secret not in content
    assert "Asha Rao" in content


def database_of(world) -> Path:
    return Path(world.tables.conn.execute("PRAGMA database_list").fetchone()[2])


# Logging in ----------------------------------------------------------------------


async def test_a_login_by_number_or_by_email_in_any_case(world):
    user = await world.register()
    for grant in (await world.login(), await world.login(email="ASHA@example.com")):
        caller = await world.caller(grant)
        assert (caller.kind, caller.id, caller.scopes) == ("borrower", user.user_id, {"borrower"})
        assert grant.expires_in_s == 900


async def test_every_login_is_one_of_its_own(world):
    await world.register()
    first, second = await world.login(), await world.login()
    assert first.refresh_token != second.refresh_token
    a, b = await world.caller(first), await world.caller(second)
    assert a.login_id != b.login_id
    assert a.jti != b.jti


async def test_a_token_tells_nothing_about_the_person(world):
    await world.register()
    grant = await world.login()
    text = str(jwt.decode(grant.access_token, options={"verify_signature": False}))
    assert not any(word in text for word in ("0124", "Asha", "example.com"))


async def test_wrong_and_unknown_look_the_same_and_do_the_same(world):
    await world.register()
    outcomes = []
    for number, email, password in (
        (NUMBER, None, "wrong horse"),
        (UNKNOWN_NUMBER, None, PASSWORD),
        ("no number", None, PASSWORD),
        (None, "asha@example.com", "wrong horse"),
        (None, "nobody@example.com", PASSWORD),
        (None, None, PASSWORD),
        (NUMBER, None, ""),
        (NUMBER, None, "\ud800"),
    ):
        world.tables.calls.clear()
        refusal = await world.accounts.login(number, email, password, HERE)
        outcomes.append((refusal, tuple(world.tables.calls)))
    assert set(outcomes) == {
        (Refusal("bad-credentials", "The credentials are not right."), ("user_for_login",))
    }


@pytest.mark.parametrize("nothing", ["", " ", "~" * 65])
async def test_a_text_that_is_no_identity_is_nobodys(world, tmp_path, nothing):
    """Not theirs either whose identity is the next best."""
    opaque = World(tmp_path, identities="opaque")
    try:
        for identity in ("~", "-", "0", "None"):
            assert isinstance(await opaque.register(identity, f"{identity}@example.com"), User)
            assert isinstance(await opaque.login(identity), Grant)
        assert (await opaque.login(nothing)).code == "bad-credentials"
    finally:
        opaque.close()


async def test_repeated_failures_have_to_wait_and_then_may_try_again(world):
    await world.register()
    for _ in range(5):
        assert (await world.login(password="wrong horse")).code == "bad-credentials"
    waits = Refusal("too-many-attempts", "Too many failed logins: wait, then try again.", 1)
    assert await world.login() == waits
    world.now_s += 1
    assert isinstance(await world.login(), Grant)
    assert (await world.login(password="wrong horse")).code == "bad-credentials"


async def test_a_right_password_forgives_the_wrong_ones_before(world):
    await world.register()
    for password in (["wrong horse"] * 4 + [PASSWORD]) * 2:
        result = await world.login(password=password)
    assert isinstance(result, Grant)


async def test_who_is_not_there_is_throttled_alike(world):
    for _ in range(5):
        assert (await world.login(UNKNOWN_NUMBER)).code == "bad-credentials"
    assert (await world.login(UNKNOWN_NUMBER)).code == "too-many-attempts"


async def test_the_owner_elsewhere_never_waits(world):
    await world.register()
    for _ in range(5):
        await world.login(password="wrong horse")
    assert isinstance(await world.login(address=ELSEWHERE), Grant)
    assert isinstance(await world.login(email="asha@example.com"), Grant)


async def test_of_many_guesses_at_once_only_the_first_few_learn_anything(world):
    await world.register()
    guesses = ["wrong horse"] * 10 + [PASSWORD] + ["wrong horse"] * 10
    results = await asyncio.gather(*(world.login(password=guess) for guess in guesses))
    assert [result.code for result in results].count("bad-credentials") == 5
    assert [result.code for result in results].count("too-many-attempts") == 16


async def test_many_right_logins_at_once_all_succeed(world):
    await world.register()
    assert all(
        isinstance(result, Grant) for result in await asyncio.gather(*(world.login() for _ in range(10)))
    )


# Refreshing and logging out ----------------------------------------------------------------------


async def test_a_refresh_token_works_once_and_carries_the_login_on(world):
    user = await world.register()
    first = await world.login()
    world.now_s += 5000
    second = await world.accounts.refresh(first.refresh_token)
    before = world.tokens.verify(first.access_token)
    assert before is BadToken.EXPIRED
    caller = await world.caller(second)
    assert (caller.id, caller.kind) == (user.user_id, "borrower")
    third = await world.accounts.refresh(second.refresh_token)
    assert (await world.caller(third)).login_id == caller.login_id


async def test_a_second_use_revokes_the_whole_login(world):
    await world.register()
    first, untouched = await world.login(), await world.login()
    second = await world.accounts.refresh(first.refresh_token)
    assert isinstance(await world.caller(second), Caller)
    assert (await world.accounts.refresh(first.refresh_token)).code == "bad-credentials"
    for grant in (first, second):
        assert await world.caller(grant) is BadToken.REVOKED
        assert (await world.accounts.refresh(grant.refresh_token)).code == "bad-credentials"
    assert isinstance(await world.caller(untouched), Caller)
    assert isinstance(await world.accounts.refresh(untouched.refresh_token), Grant)


async def test_of_two_uses_at_once_one_wins_and_the_login_ends(world):
    await world.register()
    first = await world.login()
    results = await asyncio.gather(*(world.accounts.refresh(first.refresh_token) for _ in range(2)))
    (won,) = [result for result in results if isinstance(result, Grant)]
    assert await world.caller(won) is BadToken.REVOKED


@pytest.mark.parametrize("text", ["", "x", "x" * 10_000, "\ud800", "\x00"])
async def test_what_nobody_issued_refreshes_nothing(world, text):
    assert (await world.accounts.refresh(text)).code == "bad-credentials"


async def test_an_access_token_refreshes_nothing_and_a_refresh_token_opens_nothing(world):
    await world.register()
    grant = await world.login()
    assert (await world.accounts.refresh(grant.access_token)).code == "bad-credentials"
    assert await world.accounts.authenticate(grant.refresh_token) is BadToken.INVALID


async def test_a_refresh_token_expires(world):
    await world.register()
    grant = await world.login()
    world.now_s += AUTH.refresh_ttl_s
    assert (await world.accounts.refresh(grant.refresh_token)).code == "bad-credentials"


async def test_logging_out_ends_that_login_at_once(world):
    await world.register()
    grant, other = await world.login(), await world.login()
    caller = await world.caller(grant)
    await world.accounts.logout(caller)
    assert await world.caller(grant) is BadToken.REVOKED
    assert (await world.accounts.refresh(grant.refresh_token)).code == "bad-credentials"
    assert isinstance(await world.caller(other), Caller)
    await world.accounts.logout(caller)  # again: no harm


async def test_logins_and_their_ends_survive_a_restart(world, tmp_path):
    await world.register()
    kept, ended = await world.login(), await world.login()
    await world.accounts.logout(await world.caller(ended))
    after = World(tmp_path, seed=2)
    try:
        await after.accounts.load_revocations()
        assert isinstance(await after.caller(kept), Caller)
        assert isinstance(await after.accounts.refresh(kept.refresh_token), Grant)
        assert await after.caller(ended) is BadToken.REVOKED
    finally:
        after.close()


async def test_an_end_outlives_every_token_of_its_login(world, tmp_path):
    await world.register()
    grant = await world.login()
    world.now_s += 1
    later = await world.accounts.refresh(grant.refresh_token)
    await world.accounts.logout(await world.caller(later))
    after = World(tmp_path, seed=2)
    try:
        after.now_s = world.now_s + AUTH.access_ttl_s - 1
        await after.accounts.load_revocations()
        assert await after.caller(later) is BadToken.REVOKED
    finally:
        after.close()


async def test_a_token_issued_up_to_a_minute_after_its_login_ended_is_ended_too(world, tmp_path):
    """As when a refresh and a logout come at once, and the one is slow."""
    user = await world.register()
    caller = await world.caller(await world.login())
    await world.accounts.logout(caller)
    world.now_s += 60
    late = world.tokens.issue(format_id(user.user_id), "borrower", ("borrower",), caller.login_id, "late")
    after = World(tmp_path, seed=2)
    try:
        after.now_s = world.now_s + AUTH.access_ttl_s - 1
        await after.accounts.load_revocations()
        assert await after.accounts.authenticate(late) is BadToken.REVOKED
    finally:
        after.close()


# Who calls ----------------------------------------------------------------------


async def test_a_borrower_whom_the_vault_does_not_know_is_nobody(world):
    user = await world.register()
    grant = await world.login()
    world.tables.conn.execute("DELETE FROM vault WHERE user_id = ?", (user.user_id,))
    assert await world.caller(grant) is BadToken.INVALID


async def test_a_borrower_seen_in_the_vault_is_looked_up_again_after_a_while(world):
    user = await world.register()
    grant = await world.login()
    world.tables.calls.clear()
    for _ in range(10):
        assert isinstance(await world.caller(grant), Caller)
    world.tables.conn.execute("DELETE FROM vault WHERE user_id = ?", (user.user_id,))
    world.now_s += 9.75
    assert isinstance(await world.caller(grant), Caller)
    assert world.tables.calls == ["is_registered"]
    world.now_s += 0.25
    assert await world.caller(grant) is BadToken.INVALID
    assert await world.accounts.me(Caller("borrower", 5, frozenset(), 1, NOW_S, "j", "b:5")) is None


async def test_of_those_seen_in_the_vault_the_ones_looked_up_last_are_remembered(world, monkeypatch):
    monkeypatch.setattr(accounts, "REGISTERED_MAX", 2)
    first, second, third = [
        (await world.register(number, f"{number}@example.com"), await world.login(number))[1]
        for number in (NUMBER, OTHER_NUMBER, UNKNOWN_NUMBER)
    ]
    await world.caller(first)
    world.now_s += 5
    await world.caller(second)
    world.now_s += 5
    for grant in (first, third):  # the first again, since it was too long ago; and one too many
        await world.caller(grant)
    world.tables.calls.clear()
    for grant in (first, third):
        assert isinstance(world.accounts.recognise(grant.access_token), Caller)
    assert world.accounts.recognise(second.access_token) is None
    assert isinstance(await world.caller(second), Caller)
    assert world.tables.calls == ["is_registered"]


# Clients ----------------------------------------------------------------------


async def test_a_client_gets_a_token_with_its_scopes_and_no_refresh_token(world):
    client = await world.accounts.create_client("till", ["ops", "payments:write", "ops"])
    assert client.scopes == CLIENT_SCOPES
    grant = await world.accounts.client_token(client.client_id, client.client_secret)
    assert grant.refresh_token is None
    world.tables.calls.clear()
    caller = await world.caller(grant)
    assert (caller.kind, format_id(caller.id), caller.scopes) == (
        "client",
        client.client_id,
        set(CLIENT_SCOPES),
    )
    assert world.tables.calls == []


async def test_all_tokens_of_a_client_share_its_namespace_and_end_alone(world):
    client = await world.accounts.create_client("till", ["ops"])
    first = await world.accounts.client_token(client.client_id, client.client_secret)
    second = await world.accounts.client_token(client.client_id, client.client_secret)
    a, b = await world.caller(first), await world.caller(second)
    assert a.namespace == b.namespace
    await world.accounts.logout(a)
    assert await world.caller(first) is BadToken.REVOKED
    assert isinstance(await world.caller(second), Caller)


async def test_wrong_client_credentials_all_look_the_same(world):
    client = await world.accounts.create_client("till", ["ops"])
    other = await world.accounts.create_client("shop", ["ops"])
    user = await world.register()
    refusals = {
        await world.accounts.client_token(client_id, secret)
        for client_id, secret in (
            (client.client_id, other.client_secret),
            (client.client_id, ""),
            (client.client_id, client.client_secret + "x"),
            (client.client_id, "\ud800"),
            (format_id(user.user_id), PASSWORD),
            ("0" * 16, client.client_secret),
            ("", client.client_secret),
            ("\ud800", client.client_secret),
        )
    }
    assert refusals == {Refusal("bad-credentials", "The credentials are not right.")}


@pytest.mark.parametrize(
    "scopes", [[], ["borrower"], ["ops", "borrower"], ["admin"], [""], ["ops payments:write"]]
)
async def test_a_client_has_scopes_that_clients_may_have(world, scopes):
    refusal = await world.accounts.create_client("till", scopes)
    assert refusal.code == "invalid-fields"
    assert world.tables.conn.execute("SELECT count(*) FROM clients").fetchone() == (0,)


async def test_secrets_are_not_shown(world):
    await world.register()
    grant, client = await world.login(), await world.accounts.create_client("till", ["ops"])
    assert isinstance(client, ClientCredentials)
    shown = repr(grant) + repr(client) + repr(vars(world.accounts))
    for secret in (grant.access_token, grant.refresh_token, client.client_secret, NUMBER, PASSWORD):
        assert secret not in shown
