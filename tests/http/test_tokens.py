from __future__ import annotations

import base64
import builtins
import io
import json
import os
import random
import socket
import sqlite3
import warnings

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ledgerd.http.keyring import load_or_create_keyring, rotate_keyring
from ledgerd.http.tokens import SWEEP_AT_LEAST, BadToken, Caller, Revocations, Tokens
from ledgerd.ids import format_id

NOW_S = 1_800_000_000
TTL_S = 900
USER_ID, LOGIN_ID = 0x0123456789ABCDEF, 77


class World:
    """Tokens of a service whose time stands still until it is moved."""

    def __init__(self, keys_dir, cache_size=100):
        self.now_s = float(NOW_S)
        self.keys_dir = keys_dir
        self.keyring = load_or_create_keyring(keys_dir, NOW_S - 1000, random.Random(1).randbytes)
        self.revocations = Revocations(lambda: self.now_s)
        self.tokens = Tokens(
            self.keyring, "ledgerd", "api", TTL_S, cache_size, lambda: self.now_s, self.revocations
        )

    def issue(self, number=USER_ID, kind="borrower", scopes=("borrower",), login_id=LOGIN_ID, jti="j1"):
        return self.tokens.issue(format_id(number), kind, scopes, login_id, jti)

    def forge(self, key=None, algorithm="EdDSA", header=None, **claims):
        """A token with our claims but for these; None leaves a claim out."""
        ours = {
            "iss": "ledgerd",
            "aud": "api",
            "sub": f"borrower:{format_id(USER_ID)}",
            "scope": "borrower",
            "iat": NOW_S,
            "exp": NOW_S + TTL_S,
            "jti": "j1",
            "sid": format_id(LOGIN_ID),
        }
        claims = {name: value for name, value in (ours | claims).items() if value is not None}
        headers = {"typ": "at+jwt", "kid": self.keyring.signing.kid} | (header or {})
        # PyJWT checks what it encodes; we want to send the worst.
        signer = jwt.PyJWS()
        payload = json.dumps(claims).encode()
        return signer.encode(payload, key or self.keyring.signing.private, algorithm, headers)


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


# What is accepted ----------------------------------------------------------------------


def test_a_token_says_who_calls(world):
    caller = world.tokens.verify(world.issue())
    assert caller == Caller(
        kind="borrower",
        id=USER_ID,
        scopes=frozenset({"borrower"}),
        login_id=LOGIN_ID,
        expires_at_s=NOW_S + TTL_S,
        jti="j1",
        namespace="b:0123456789abcdef",
    )


def test_a_client_has_scopes_and_a_namespace_of_its_own(world):
    caller = world.tokens.verify(world.issue(kind="client", scopes=("payments:write", "ops")))
    assert caller.kind == "client"
    assert caller.scopes == {"payments:write", "ops"}
    assert caller.namespace == "c:0123456789abcdef"


def test_the_token_is_as_the_contract_says(world):
    token = world.issue()
    header = jwt.get_unverified_header(token)
    assert header == {"alg": "EdDSA", "typ": "at+jwt", "kid": world.keyring.signing.kid}
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims == {
        "iss": "ledgerd",
        "aud": "api",
        "sub": "borrower:0123456789abcdef",
        "scope": "borrower",
        "iat": NOW_S,
        "exp": NOW_S + TTL_S,
        "jti": "j1",
        "sid": format_id(LOGIN_ID),
    }


def test_the_forger_of_these_tests_makes_good_tokens_too(world):
    """Or every refusal below would prove nothing."""
    assert isinstance(world.tokens.verify(world.forge()), Caller)
    assert isinstance(world.tokens.verify(world.forge(header={"typ": "AT+JWT"})), Caller)
    assert isinstance(world.tokens.verify(world.forge(nbf=NOW_S, iat=NOW_S + 5)), Caller)
    assert isinstance(world.tokens.verify(world.forge(more="than needed")), Caller)
    assert isinstance(world.tokens.verify(world.forge(exp=NOW_S + 1)), Caller)


# What is not ----------------------------------------------------------------------


@pytest.mark.parametrize("claim", ["iss", "aud", "sub", "scope", "iat", "exp", "jti", "sid"])
def test_every_claim_is_required_and_of_its_type(world, claim):
    for value in (None, "", 7.5, True, [], {}, ["api"], 10**30, -1, "x" * 500):
        if claim in ("scope", "jti") and isinstance(value, str):
            continue  # no scope at all, and any name of a token, are in order
        assert world.tokens.verify(world.forge(**{claim: value})) is BadToken.INVALID, value


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "somebody"},
        {"aud": "ap"},
        {"aud": ["api"]},
        {"aud": ["api", "other"]},
        {"sub": format_id(USER_ID)},
        {"sub": f"admin:{format_id(USER_ID)}"},
        {"sub": "borrower:1"},
        {"sub": f"borrower:{format_id(USER_ID).upper()}"},
        {"sub": f"borrower:{format_id(USER_ID)}:"},
        {"sid": "77"},
        {"iat": NOW_S + 6, "exp": NOW_S + 60},
        {"nbf": NOW_S + 6},
        {"nbf": "soon"},
        {"exp": NOW_S + TTL_S + 1},
        {"iat": NOW_S, "exp": NOW_S},
        {"iat": NOW_S, "exp": NOW_S - 1},
        {"iat": str(NOW_S)},
        {"exp": float(NOW_S + 60)},
    ],
)
def test_a_claim_that_is_not_ours_is_refused(world, claims):
    assert world.tokens.verify(world.forge(**claims)) is BadToken.INVALID


@pytest.mark.parametrize(
    "header",
    [
        {"typ": "JWT"},
        {"typ": None},
        {"typ": "application/at+jwt"},
        {"typ": ["at+jwt"]},
        {"kid": "unknown"},
        {"kid": ""},
        {"kid": "../../etc/passwd"},
        {"kid": "' OR 1=1 --"},
        {"kid": "https://example.com/key"},
        {"kid": "k" * 2000},
        {"crit": ["exp"]},
        {"crit": ["unheard-of"], "unheard-of": 1},
        {"b64": False, "crit": ["b64"]},
    ],
)
def test_a_header_that_is_not_ours_is_refused(world, header):
    assert world.tokens.verify(world.forge(header=header)) is BadToken.INVALID


BAD_KIDS = (
    "unknown", "", "../../etc/passwd", "/etc/passwd", "' OR 1=1 --", "https://example.com/key", "k" * 2_000,
    "k" * 10_000,
)  # fmt: skip


def test_a_key_is_looked_for_in_memory_alone(world, monkeypatch):
    """No file is opened, no socket and no database, whatever key a token names or says to fetch."""
    touched = []
    bad = [world.forge(header={"kid": kid}) for kid in BAD_KIDS]
    bad += [
        world.forge(random_key(), header={name: "https://example.com/key"}) for name in ("jku", "x5u", "jwk")
    ]
    good = world.issue()
    for room, name in ((builtins, "open"), (io, "open"), (os, "open"), (os, "stat"), (sqlite3, "connect")):
        monkeypatch.setattr(room, name, lambda *args, **_: touched.append(args))
    monkeypatch.setattr(socket.socket, "connect", lambda *args: touched.append(args))
    verdicts = [world.tokens.verify(token) for token in bad]
    is_good = isinstance(world.tokens.verify(good), Caller)
    monkeypatch.undo()
    assert set(verdicts) == {BadToken.INVALID}
    assert is_good
    assert touched == []


def random_key():
    return Ed25519PrivateKey.from_private_bytes(random.Random(5).randbytes(32))


def test_other_algorithms_are_refused(world):
    public_pem = world.keyring.signing.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the weak keys of the forger
        for key in (b"k" * 64, world.keyring.signing.public.public_bytes_raw()):
            assert world.tokens.verify(world.forge(key, "HS256")) is BadToken.INVALID
    # PyJWT would not sign with a public PEM: put the header of a good one over a made-up signature.
    for algorithm in ("none", "None", "", "HS256", "eddsa", ["EdDSA"], None):
        header = {"alg": algorithm, "typ": "at+jwt", "kid": world.keyring.signing.kid}
        encoded = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
        _, payload, signature = world.forge().split(".")
        for end in ("", signature, base64.urlsafe_b64encode(public_pem).decode()):
            assert world.tokens.verify(f"{encoded}.{payload}.{end}") is BadToken.INVALID


def test_a_token_of_another_key_or_changed_by_one_character_is_refused(world, tmp_path):
    other = load_or_create_keyring(tmp_path / "other", NOW_S, random.Random(9).randbytes)
    assert world.tokens.verify(world.forge(other.signing.private)) is BadToken.INVALID
    token = world.issue()
    assert isinstance(world.tokens.verify(token), Caller)
    for position in range(0, len(token) - 2, 7):
        changed = token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]
        assert world.tokens.verify(changed) is BadToken.INVALID


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "." * 4000,
        "A" * 4096,
        "A" * 100_000,
        "é.é.é",
        "\ud800",
        "\x00",
        base64.urlsafe_b64encode(b"[" * 2500).decode() + ".e30.AA",
        base64.urlsafe_b64encode(b'{"alg":' * 400).decode() + ".e30.AA",
        base64.urlsafe_b64encode(b'{"kid":' + b"9" * 2900 + b"}").decode() + ".e30.AA",
        base64.urlsafe_b64encode(b'"text"').decode() + ".e30.AA",
        base64.urlsafe_b64encode(b"null").decode() + ".e30.AA",
    ],
)
def test_what_is_no_token_is_refused(world, text):
    assert world.tokens.verify(text) is BadToken.INVALID


@pytest.mark.parametrize("now_s", [1_000_000_000, 4_000_000_000])
def test_only_our_own_clock_counts(world, now_s):
    """Long past or to come by the machine's clock."""
    world.now_s = now_s
    token = world.forge(iat=now_s, nbf=now_s, exp=now_s + TTL_S)
    assert isinstance(world.tokens.verify(token), Caller)
    assert isinstance(world.tokens.verify(world.issue()), Caller)
    world.now_s += world.tokens.access_ttl_s
    assert world.tokens.verify(token) is BadToken.EXPIRED
    assert world.tokens.access_ttl_s == TTL_S


def test_a_token_over_four_kibibytes_is_refused_though_signed(world):
    assert isinstance(world.tokens.verify(world.forge(more="x" * 2500)), Caller)
    by_length = {len(token): token for size in range(2700, 2800) if (token := world.forge(more="x" * size))}
    assert isinstance(world.tokens.verify(by_length[4096]), Caller)
    assert world.tokens.verify(by_length[4097]) is BadToken.INVALID
    long = world.forge(more="x" * 3000)
    assert len(long) > 4096
    assert world.tokens.verify(long) is BadToken.INVALID


def test_nothing_is_looked_at_in_a_token_that_is_too_long(world, monkeypatch):
    looked_at, look = [], jwt.get_unverified_header

    def looking(text):
        looked_at.append(text)
        return look(text)

    monkeypatch.setattr(jwt, "get_unverified_header", looking)
    for text in (
        "x" * 4_097,
        "x" * 100_000,
        "." * 10_000,
        f"e30.{'A' * 1_000_000}.AA",
        world.forge(m="x" * 3_000),
    ):
        assert world.tokens.verify(text) is BadToken.INVALID
    assert looked_at == []
    world.tokens.verify("a.b.c")
    assert looked_at == ["a.b.c"]


@pytest.mark.parametrize("payload", [b"[]", b"null", b'"x"', b"[" * 2500, b"\xff", b"9" * 2600])
def test_a_signed_payload_that_is_no_object_is_refused(world, payload):
    key = world.keyring.signing
    token = jwt.PyJWS().encode(payload, key.private, "EdDSA", {"typ": "at+jwt", "kid": key.kid})
    assert world.tokens.verify(token) is BadToken.INVALID


# Time, revocation, and the tokens seen before -----------------------------------------------------


def test_a_token_ends_at_its_second_seen_before_or_not(world):
    seen, unseen = world.issue(jti="j1"), world.issue(jti="j2")
    assert isinstance(world.tokens.verify(seen), Caller)
    world.now_s = NOW_S + TTL_S - 0.001
    assert isinstance(world.tokens.verify(seen), Caller)
    world.now_s = NOW_S + TTL_S
    assert world.tokens.verify(seen) is BadToken.EXPIRED
    assert world.tokens.verify(unseen) is BadToken.EXPIRED
    assert world.tokens.verify(seen) is BadToken.EXPIRED


def test_a_revoked_login_ends_at_once_seen_before_or_not(world):
    seen, unseen, other = world.issue(), world.issue(jti="j2"), world.issue(login_id=78)
    assert isinstance(world.tokens.verify(seen), Caller)
    world.revocations.revoke(LOGIN_ID, NOW_S + TTL_S)
    assert world.tokens.verify(seen) is BadToken.REVOKED
    assert world.tokens.verify(unseen) is BadToken.REVOKED
    assert isinstance(world.tokens.verify(other), Caller)


def test_a_token_seen_before_is_not_verified_again(world):
    token = world.issue()
    first = world.tokens.verify(token)
    assert world.tokens.verify(token) is first
    assert world.tokens.verify("".join(token)) is first  # by its text, not by the object


def test_the_tokens_that_are_kept_are_bounded_and_the_least_used_goes(tmp_path):
    world = World(tmp_path, cache_size=3)
    tokens = [world.issue(jti=f"j{number}") for number in range(4)]
    callers = [world.tokens.verify(token) for token in tokens[:3]]
    assert world.tokens.verify(tokens[0]) is callers[0]  # used: 1 is now the oldest
    world.tokens.verify(tokens[3])
    assert world.tokens.verify(tokens[0]) is callers[0]
    assert world.tokens.verify(tokens[2]) is callers[2]
    assert world.tokens.verify(tokens[1]) is not callers[1]
    for number in range(50):
        world.tokens.verify(world.issue(jti=f"k{number}"))
    assert len(world.tokens._verified) == 3


def test_bad_tokens_are_not_kept(world):
    for number in range(20):
        world.tokens.verify(world.forge(aud=f"a{number}"))
    assert len(world.tokens._verified) == 0


def test_after_a_rotation_old_tokens_count_and_new_ones_bear_the_new_key(world):
    old = world.issue()
    seen = world.tokens.verify(old)
    world.now_s += 10
    keyring = rotate_keyring(world.keys_dir, world.now_s, random.Random(2).randbytes, TTL_S)
    world.tokens.use_keyring(keyring)
    again = world.tokens.verify(old)
    assert again == seen
    assert again is not seen  # verified anew
    new = world.issue()
    assert jwt.get_unverified_header(new)["kid"] == keyring.signing.kid
    assert isinstance(world.tokens.verify(new), Caller)
    assert {key["kid"] for key in world.tokens.jwks()["keys"]} == {key.kid for key in keyring.keys}


def test_a_retired_key_makes_no_new_tokens(world):
    stolen = world.keyring.signing.private
    world.tokens.use_keyring(rotate_keyring(world.keys_dir, world.now_s, random.Random(2).randbytes, TTL_S))
    world.now_s = NOW_S + 60
    assert isinstance(world.tokens.verify(world.forge(stolen, iat=NOW_S)), Caller)
    assert world.tokens.verify(world.forge(stolen, iat=NOW_S + 50)) is BadToken.INVALID


def test_a_key_that_is_gone_verifies_nothing(world, tmp_path):
    token = world.issue()
    assert isinstance(world.tokens.verify(token), Caller)
    world.tokens.use_keyring(load_or_create_keyring(tmp_path / "new", NOW_S, random.Random(3).randbytes))
    assert world.tokens.verify(token) is BadToken.INVALID


# Revocations ----------------------------------------------------------------------


def test_revocations_forget_what_has_expired_and_only_that():
    now_s = 100.0
    revocations = Revocations(lambda: now_s)
    for login_id in range(SWEEP_AT_LEAST - 1):
        revocations.revoke(login_id, 50)
    revocations.revoke(5000, 200)
    assert len(revocations) == 1
    assert revocations.is_revoked(5000)
    assert not revocations.is_revoked(0)


def test_revocations_keep_the_living_however_many():
    revocations = Revocations(lambda: 100.0)
    for login_id in range(5 * SWEEP_AT_LEAST):
        revocations.revoke(login_id, 101)
    assert all(revocations.is_revoked(login_id) for login_id in range(5 * SWEEP_AT_LEAST))


def test_revocations_forget_as_time_passes_and_seldom_look():
    now_s, looked = 0, 0

    def look() -> float:
        nonlocal looked
        looked += 1
        return now_s

    revocations = Revocations(look)
    for login_id in range(20 * SWEEP_AT_LEAST):
        now_s = login_id
        revocations.revoke(login_id, login_id + 2 * SWEEP_AT_LEAST)
        assert len(revocations) <= 4 * SWEEP_AT_LEAST
    assert looked <= 20


def test_why_a_token_is_not_accepted_is_told():
    assert [bad.value for bad in BadToken] == [
        "The access token is not valid.",
        "The access token has expired.",
        "The login of this access token has ended.",
    ]


def test_a_revocation_is_never_shortened():
    now_s = 100.0
    revocations = Revocations(lambda: now_s)
    revocations.revoke(7, 200)
    revocations.revoke(7, 100)
    for login_id in range(1000, 1000 + SWEEP_AT_LEAST):
        revocations.revoke(login_id, 50)
    assert revocations.is_revoked(7)


def test_keys_are_not_shown(world):
    shown = repr(world.tokens) + repr(world.keyring)
    assert "PrivateKey" not in shown
