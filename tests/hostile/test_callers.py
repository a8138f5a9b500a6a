"""Who calls, and what they may not: every route of the table as everybody, and what is somebody else's.

A route that is not in THINGS fails here until somebody has said what of whom it shows.
"""

from __future__ import annotations

import ast
import hashlib
import hmac
import importlib
import json
import pkgutil
import re
from pathlib import Path
from urllib.parse import quote

import argon2.low_level
import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import ledgerd
from ledgerd.config import Identity
from ledgerd.http.routes import ROUTES
from tests.http.outside import GOOD_BODIES, NOW_S, PASSWORD, Caller, World, forged, unsigned
from tests.http.test_endpoint import try_route

# By the route's name: what somebody could reach for that is another's. None: it names nothing, and what it
# does is the caller's own or open to all.
THINGS: dict[str, str | None] = {
    "registerUser": None,
    "login": None,
    "token": None,
    "logout": None,
    "me": None,
    "applyLoan": None,
    "listLoans": None,
    "getLoan": "loan_id",
    "makePayment": "loan_id",
    "makePayments": None,  # of clients alone, who pay any loan
    "getPayment": "transaction_id",
    "getStatement": "loan_id",
    "startBillingRun": None,
    "listBillingRuns": None,
    "getBillingRun": None,  # of operators alone, who see every run
    "advanceClock": None,
    "livez": None,
    "readyz": None,
    "metrics": None,
    "jwks": None,
}
WITH_TOKEN = [route for route in ROUTES if route.scopes]


def test_every_route_is_classified():
    assert THINGS.keys() == {route.name for route in ROUTES}
    for route in ROUTES:
        assert (THINGS[route.name] is not None) == (
            "borrower" in route.scopes
            and (
                any(p.name in {"loan_id", "transaction_id"} for p in route.parameters)
                or route.name == "makePayment"
            )
        ), route.name


# Tokens -------------------------------------------------------------------------------------------


async def bad_tokens(world: World, borrower: Caller) -> dict[str, str]:
    """A token for each way to be none, made of a good one."""
    claims = jwt.decode(borrower.token, options={"verify_signature": False})
    [public] = (await world.get("/.well-known/jwks.json")).json["keys"]
    header = {"typ": "at+jwt", "kid": public["kid"]}
    raw = world.service.services.tokens._keyring.signing.public.public_bytes_raw()
    ended = await world.log_in(borrower.identity)
    assert (await world.post("/api/logout/", None, ended)).status == 204
    assert borrower.refresh_token is not None
    return {
        "expired": forged(world, {**claims, "iat": NOW_S - 901, "exp": NOW_S - 1}, {}),
        "not yet": forged(world, {**claims, "iat": NOW_S + 60, "exp": NOW_S + 120}, {}),
        "of another key": forged(world, claims, {}, Ed25519PrivateKey.from_private_bytes(b"s" * 32)),
        "of an unknown key": forged(world, claims, {"kid": "../../x"}),
        "alg none": unsigned({**header, "alg": "none"}, claims),
        "HS256 by the public key": unsigned(
            {**header, "alg": "HS256"}, claims, lambda text: hmac.digest(raw, text, hashlib.sha256)
        ),
        "of another type": forged(world, claims, {"typ": "JWT"}),
        "refresh": borrower.refresh_token,
        "ended by logout": ended.token,
        "of nobody": forged(world, {**claims, "sub": "borrower:0000000000000001"}, {}),
        "of another kind": forged(world, {**claims, "sub": borrower.id}, {}),
        "with more scopes, unsigned": _with_scope(borrower.token, "borrower payments:write ops"),
        "for another audience": forged(world, {**claims, "aud": "another"}, {}),
    }


def _with_scope(token: str, scope: str) -> str:
    """A good token whose payload was changed and whose signature was kept."""
    head, _, signature = token.split(".")
    claims = jwt.decode(token, options={"verify_signature": False})
    payload = unsigned({}, {**claims, "scope": scope}).split(".")[1]
    return f"{head}.{payload}.{signature}"


async def test_no_route_takes_a_token_that_is_none(world, borrower, asked):
    """On each route the same 401, that tells the three cases apart and no more, and nothing is done."""
    tokens = await bad_tokens(world, borrower)
    before = await world.head()
    details: dict[str, set[str]] = {}
    for route in WITH_TOKEN:
        for name, token in {**tokens, "none": None}.items():
            asked.clear()
            answer = await try_route(world, route, token)
            assert (answer.status, answer.slug) == (401, "unauthorized"), (route.name, name)
            details.setdefault(name, set()).add(str(answer.bare))
            # Who is not in the vault is looked for there; of the others nothing is asked.
            assert [each[1] for each in asked] == (["is_registered"] if name == "of nobody" else []), name
    assert all(len(seen) == 1 for seen in details.values()), details
    assert len(set().union(*details.values())) == 4, "none, invalid, expired, ended"
    assert await world.head() == before
    assert (await world.get("/api/me/", borrower)).status == 200  # or this test shows nothing


# Other people's -----------------------------------------------------------------------------------


async def test_what_is_another_s_can_not_be_told_from_what_is_not_there(world, borrower, asked):
    loan_id = (await world.lend(borrower))["loan_id"]
    assert (await world.pay(borrower, loan_id, "1.00", "mine")).status == 201
    other = await world.borrower()
    absent = {"loan_id": "0" * 16, "transaction_id": "nobodys"}
    for route in ROUTES:
        thing = THINGS[route.name]
        if thing is None:
            continue
        asked.clear()
        there = await try_route(
            world, route, other, **{thing: {"loan_id": loan_id, "transaction_id": "mine"}[thing]}
        )
        done = {each[0] for each in asked}
        asked.clear()
        missing = await try_route(world, route, other, **{thing: absent[thing]})
        assert (there.status, there.bare) == (404, missing.bare), route.name
        assert (done | {each[0] for each in asked}) <= {"load", "read"}, route.name  # nothing is written
        assert len(asked) <= 1, route.name
    # The same of a list: whatever cursor is sent, it shows the caller's own.
    own = (await world.lend(other))["loan_id"]
    for cursor in ("0" * 16, loan_id, f"{int(loan_id, 16) - 1:016x}"):
        listed = (await world.get(f"/api/loans/?cursor={cursor}", other)).json["loans"]
        assert [loan["loan_id"] for loan in listed] == [own]


async def test_neighbours_of_an_id_are_nobodys(world, borrower, loan):
    """Who counts on from an id finds nothing, though ids made in one millisecond follow each other."""
    other = await world.borrower()
    number = int(loan, 16)
    for near in (*range(number - 40, number + 40), number ^ 1 << 62, number + 2**21):
        answer = await world.get(f"/api/loans/{near:016x}/", other)
        assert (answer.status, answer.slug) == (404, "loan-not-found")


# Fields that are not the caller's -------------------------------------------------------------------

TYPICAL = {
    *("role", "roles", "admin", "is_admin", "scope", "scopes", "sub", "user_id", "owner_id", "id", "_id"),
    *("__proto__", "constructor", "__class__", "$ref", "$where", "created_at", "paid_on", "date", "now"),
    *("password_hash", "sealed_identity", "identity_key", "status", "version", "seq", "approved", "force"),
}


def fields_of_everything() -> set[str]:
    """The fields of every Struct of ledgerd, and the columns of its tables."""
    found = set(TYPICAL)
    for module in pkgutil.walk_packages(ledgerd.__path__, "ledgerd."):
        if not module.name.endswith("__main__"):
            for kind in vars(importlib.import_module(module.name)).values():
                if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                    found |= set(kind.__struct_fields__)
    for script in Path(ledgerd.__file__).parent.rglob("*.sql"):
        found |= set(
            re.findall(r"^\s+([a-z_]+) (?:INTEGER|TEXT|BLOB)", script.read_text("utf-8"), re.MULTILINE)
        )
    return found


async def test_no_field_but_its_own_is_taken_by_any_body(world, borrower):
    fields = fields_of_everything()
    assert fields > {
        "credit_score",
        "principal_paise",
        "loan_status",
        "once_key",
        "password_hash",
        "disbursed_on",
    }
    who = {"borrower": borrower, "ops": world.ops, "payments:write": world.payer}
    before = await world.head()
    for route in ROUTES:
        if route.body is None or route.batch:
            continue
        caller = who[min(route.scopes)] if route.scopes else None
        for name in sorted(fields - set(route.body.__struct_fields__)):
            answer = await world.post(route.path, {**GOOD_BODIES[route.name], name: 1}, caller)
            assert (answer.status, answer.paths) == (422, [name]), (route.name, name)
            if route.form:
                form = f"grant_type=refresh_token&refresh_token=x&{quote(name)}=1".encode()
                kind = {"Content-Type": "application/x-www-form-urlencoded"}
                answer = await world.call("POST", route.path, form, None, kind)
                assert (answer.status, answer.paths) == (422, [name]), (route.name, name)
    batch = [
        {**GOOD_BODIES["makePayment"], name: 1}
        for name in sorted(fields - set(GOOD_BODIES["makePayment"]) - {"for_bill"})
    ]
    results = (await world.post("/api/make-payments/", batch, world.payer)).json
    assert {result["status"] for result in results} == {422}
    assert await world.head() == before


async def test_no_parameter_but_its_own_changes_an_answer(world, borrower, loan):
    """A query can't make somebody else of the caller."""
    other = await world.borrower()
    for path in ("/api/me/?", "/api/loans/?", f"/api/loans/{loan}/?", f"/api/get-statement/?loan_id={loan}&"):
        for who in (borrower, other):
            plain = (await world.get(path.rstrip("?&"), who)).bare
            for name in ("user_id", "owner", "sub", "scope", "access_token", "as", "role", "debug", "fields"):
                assert (await world.get(f"{path}{name}={borrower.id}", who)).bare == plain, name
    token = f"/api/me/?access_token={borrower.token}"
    assert (await world.get(token)).status == 401  # a token in an address would end in somebody's log


# Guessing -----------------------------------------------------------------------------------------


async def test_a_guess_costs_one_hash_whoever_it_is_about(open_world, monkeypatch):
    """Counted, not timed: the hashes of a wrong password and of nobody's are as many, and as dear."""
    dear: list[bytes] = []
    verify = argon2.low_level.verify_secret

    def counted(hash: bytes, *arguments: object) -> bool:
        dear.append(hash.rpartition(b"$")[0].rpartition(b"$")[0])  # its parameters
        return verify(hash, *arguments)

    async with open_world(identity=Identity(kind="aadhaar")) as world:
        known, unknown = "234567890124", "999941057058"
        assert (await world.register(aadhar_id=known, email="asha@example.in")).status == 201
        monkeypatch.setattr(argon2.low_level, "verify_secret", counted)
        monkeypatch.setattr(argon2._password_hasher, "verify_secret", counted)
        seen = set()
        for who in (
            {"aadhar_id": known},
            {"aadhar_id": unknown},
            {"aadhar_id": "no number"},
            {"email": "asha@example.in"},
            {"email": "nobody@example.in"},
            {"email": "no address"},
        ):
            dear.clear()
            answer = await world.post("/api/login/", {**who, "password": "wrong horse"})
            seen.add((str(answer.bare), tuple(dear)))
            assert len(dear) == 1, who
        assert len(seen) == 1
        right = await world.post("/api/login/", {"aadhar_id": known, "password": PASSWORD})
        assert right.status == 200
        for body in (
            {"grant_type": "client_credentials", "client_id": world.ops.id, "client_secret": "wrong"},
            {"grant_type": "client_credentials", "client_id": "0" * 16, "client_secret": "wrong"},
            {"grant_type": "refresh_token", "refresh_token": "wrong"},
        ):
            answer = await world.post("/api/token/", body)
            assert (answer.status, answer.slug) == (401, "bad-credentials")
            seen.add((str(answer.bare), ()))
        assert len({bare for bare, _ in seen}) == 1


async def test_one_account_has_one_count_however_it_is_spelled(world):
    """Else each spelling would have guesses of its own."""
    await world.borrower(email="asha@example.in", aadhar_id="asha")
    spellings = (
        "asha@example.in",
        "ASHA@example.in",
        "Asha@Example.IN",
        "aſha@example.in",
        "ASHA@EXAMPLE.IN",
    )
    slugs = [
        (await world.post("/api/login/", {"email": email, "password": "wrong horse"})).slug
        for email in (*spellings, "asha@EXAMPLE.in")
    ]
    assert slugs == ["bad-credentials"] * 5 + ["too-many-attempts"]


WHERE_SECRETS_ARE = (
    *("http/accounts.py", "http/clients.py", "http/keyring.py", "http/passwords.py", "http/people.py"),
    *("http/tokens.py", "storage/people.py", "storage/vault.py"),
)


def test_secrets_are_compared_in_constant_time():
    """Nowhere with == or !=: what is compared byte by byte tells, by its time, how much of it was right."""
    secret = re.compile(r"(secret|password|digest|signature|token|hash|mac)$")
    offenders, compared = [], 0
    root = Path(ledgerd.__file__).parent
    for path in (root / name for name in WHERE_SECRETS_ARE):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                sides = [ast.unparse(side) for side in (node.left, *node.comparators)]
                if any(secret.search(side) for side in sides):
                    offenders.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
            compared += isinstance(node, ast.Attribute) and node.attr == "compare_digest"
    assert compared
    assert offenders == []


# What is left behind ------------------------------------------------------------------------------

EVIL = 'evil"}\r\n{"event":"evil","level":"error"}\x1b[31m\u2028\u202e'
NUMBERS = ("234567890124", "999941057058", "496858245152")


@pytest.fixture
async def strict_world(open_world):
    async with open_world(identity=Identity(kind="aadhaar")) as opened:
        opened.secrets.update(
            {*NUMBERS, *(f"{n[:4]} {n[4:8]} {n[8:]}" for n in NUMBERS), "a long passphrase"}
        )
        yield opened


async def test_a_whole_life_and_every_hostile_text_leave_clean_lines(strict_world):
    """Every line of the log is one JSON object of ours; nothing sent in secret, or to forge a line, is in it.
    The World looks for the secrets when it ends.
    """
    world = strict_world
    asha = await world.borrower(aadhar_id=NUMBERS[0], password="a long passphrase")
    loan_id = (await world.lend(asha))["loan_id"]
    await world.advance(31)
    assert (await world.pay(asha, loan_id, "10.00", "t1")).status == 201
    fresh = await world.post(
        "/api/token/", {"grant_type": "refresh_token", "refresh_token": asha.refresh_token}
    )
    world.secrets.update((fresh.json["access_token"], fresh.json["refresh_token"]))
    who = {"borrower": asha, "ops": world.ops, "payments:write": world.payer}
    answers = []
    for route in ROUTES:
        caller = who[min(route.scopes)] if route.scopes and route.name != "logout" else None
        for text in (
            EVIL,
            *NUMBERS[1:],
            "=cmd|' /C calc'!A1",
            "%0d%0aSet-Cookie:evil=1",
            "../" * 40 + "evil",
        ):
            path = (
                re.sub(r"\{\w+\}", quote(text, ""), route.path)
                + f"?cursor={quote(text)}&loan_id={quote(text)}"
            )
            headers = {"X-Request-ID": quote(text)[:64], "User-Agent": "evil", "Idempotency-Key": quote(text)}
            bodies = [None]
            if route.body is not None:
                good = GOOD_BODIES[route.name]
                fields = good if isinstance(good, dict) else {}
                bodies = [{**fields, name: text} for name in route.body.__struct_fields__]
                bodies += [
                    {**fields, text: text},
                    json.dumps(text).encode(),
                    text.encode("utf-8", "surrogatepass"),
                ]
            answers += [await world.call(route.method, path, body, caller, headers) for body in bodies]
        tokens = (EVIL.encode().hex(), NUMBERS[1], "evil.evil.evil")
        answers += [await try_route(world, route, token) for token in tokens]
    assert (await world.post("/api/logout/", None, asha)).status == 204
    world.access.flush()
    text = world.log.getvalue()
    assert "evil" not in text
    assert "calc" not in text
    lines = [json.loads(line) for line in text.split("\n")[:-1]]
    requests = [line for line in lines if line["event"] == "request"]
    assert len(requests) >= len(answers) > 400
    known = {
        "method",
        "route",
        "status",
        "duration_ms",
        "request_id",
        "timestamp",
        "event",
        "level",
        "loan_id",
    }
    assert all(set(line) <= known for line in requests)
    shown = [str(answer.headers) for answer in answers]
    assert not any("evil" in headers or "Set-Cookie" in headers for headers in shown)
    metrics = (await world.get("/metrics")).body.decode()
    assert not any(secret in metrics for secret in (*world.secrets, "evil"))
