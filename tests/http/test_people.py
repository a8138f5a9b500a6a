"""Registering, logging in and out, refreshing, and the tokens that each call takes or turns away."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import Counter
from urllib.parse import urlencode

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ledgerd.config import Identity
from tests.http.outside import NOW_S, PASSWORD, Answer, Caller, forged, unsigned

NUMBER, OTHER_NUMBER, UNKNOWN_NUMBER = "234567890124", "999941057058", "496858245152"
USER = ["user_id", "name", "email", "aadhar_id", "annual_income", "credit_score", "score_status"]
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
async def strict_world(open_world):
    """Identities are Aadhaar numbers."""
    async with open_world(identity=Identity(kind="aadhaar")) as world:
        world.secrets.update({NUMBER, OTHER_NUMBER, UNKNOWN_NUMBER, "2345 6789 0124"})
        yield world


def bad_credentials(answer: Answer) -> bool:
    return (answer.status, answer.slug) == (401, "bad-credentials")


# Registering --------------------------------------------------------------------------------------


async def test_a_borrower_registers_and_is_shown_masked(strict_world):
    world = strict_world
    answer = await world.register(
        name="Ashā Rao", email="Asha@Example.com", aadhar_id=NUMBER, annual_income=600000.5
    )
    assert answer.status == 201
    assert list(answer.json) == USER
    assert answer.json == {
        "user_id": answer.json["user_id"],
        "name": "Ashā Rao",
        "email": "Asha@Example.com",
        "aadhar_id": "XXXX XXXX 0124",
        "annual_income": "600000.50",
        "credit_score": None,
        "score_status": "pending",
    }
    asha = await world.log_in(NUMBER)
    me = await world.scored(asha)
    assert list(me) == USER
    assert me == answer.json | {"credit_score": 300, "score_status": "scored"}
    claims = jwt.decode(asha.token, options={"verify_signature": False})
    assert NUMBER not in str(claims)
    assert set(claims) == {"iss", "aud", "sub", "scope", "iat", "exp", "jti", "sid"}
    assert claims["scope"] == "borrower"
    assert (claims["iat"], claims["exp"]) == (NOW_S, NOW_S + 900)
    metrics = (await world.get("/metrics")).body.decode()
    assert NUMBER not in metrics


async def test_a_person_registers_once(strict_world):
    world = strict_world
    fields = {"email": "Asha@Example.com", "aadhar_id": NUMBER}
    assert (await world.register(**fields)).status == 201
    refusals = set()
    for again in (
        fields,
        {"email": "other@example.com", "aadhar_id": NUMBER},
        {"email": "aSHA@eXAMPLE.COM", "aadhar_id": OTHER_NUMBER},
    ):
        answer = await world.register(**again)
        assert (answer.status, answer.slug) == (409, "already-registered")
        assert NUMBER not in answer.body.decode()
        refusals.add(str(answer.bare))
    assert len(refusals) == 1  # which of the two was taken is not said
    # The refused email with the free number took nothing: both are free still.
    assert (await world.register(email="new@example.com", aadhar_id=OTHER_NUMBER)).status == 201
    answers = await asyncio.gather(*(world.register(aadhar_id=UNKNOWN_NUMBER) for _ in range(10)))
    assert Counter(answer.status for answer in answers) == {201: 1, 409: 9}


async def test_bad_fields_are_all_named_at_once(strict_world):
    world = strict_world
    bad = {
        "name": "a\x00b",
        "email": "nobody",
        "aadhar_id": "234567890125",
        "annual_income": "-1",
        "password": "short",
    }
    answer = await world.register(**bad)
    assert (answer.status, answer.slug) == (422, "invalid-fields")
    assert sorted(answer.paths) == sorted(bad)
    assert "234567890125" not in answer.body.decode()
    assert "short" not in answer.body.decode()


async def test_each_bad_field_is_named(strict_world):
    world = strict_world
    bad = {
        "name": ("", " ", "x" * 201, "a\x00b", "a\nb", "a\u202eb", "a\u2028b", 1, None, True, []),
        "email": ("", "a", "a@b", "a@b.c d", "@b.cc", "a@.cc", "a@b..cc", "a\n@b.cc", "é@b.cc", 1, None),
        "aadhar_id": (
            *("", "23456789012", "2345678901244", "123456789012", "034567890124", "234567890125"),
            *(
                "2345 6789 0124",
                " 234567890124",
                "२३४५६७८९०१२४",
                "２３４５６７８９０１２４",
                234567890124,
                None,
            ),
        ),
        "annual_income": ("", "-1", "1e5", "NaN", "600000.001", "٣", 1e16, True, None, [], "99999999999999"),
        "password": ("", "1234567", "x" * 257, 12345678, None),
    }
    for field, value in ((field, value) for field, values in bad.items() for value in values):
        answer = await world.register(**{"aadhar_id": NUMBER, field: value})
        assert (answer.status, answer.slug, answer.paths) == (422, "invalid-fields", [field]), (field, value)
    for name, value in (("role", "admin"), ("credit_score", 900), ("user_id", "0" * 16)):
        answer = await world.register(aadhar_id=NUMBER, **{name: value})
        assert (answer.status, answer.paths) == (422, [name])
    answer = await world.post("/api/register-user/", {"name": "Asha"})
    assert (answer.status, answer.slug) == (422, "invalid-fields")
    # None of them has taken the number. Somebody may have no income.
    formula = '=HYPERLINK("http://example.com")'
    kept = await world.register(aadhar_id=NUMBER, annual_income="0", name=formula)
    assert (kept.status, kept.json["name"], kept.json["annual_income"]) == (201, formula, "0.00")
    assert (await world.get("/api/me/", await world.log_in(NUMBER))).json["name"] == formula


async def test_any_text_can_be_an_identity(world):
    for identity, shown in (
        ("ab", "XX"),
        ("customer-0042", "XXXXXXXXX0042"),
        (" padded-0001 ", "XXXXXXX0001"),
    ):
        answer = await world.register(aadhar_id=identity)
        assert (answer.status, answer.json["aadhar_id"]) == (201, shown)
    assert (await world.register(aadhar_id="padded-0001")).slug == "already-registered"
    for bad in ("", "  ", "x" * 65, "a\tb"):
        assert (await world.register(aadhar_id=bad)).paths == ["aadhar_id"]


# Logging in ---------------------------------------------------------------------------------------


async def test_logging_in_by_either(world, borrower):
    for body in (
        {"aadhar_id": borrower.identity},
        {"email": borrower.email},
        {"email": borrower.email.upper()},
    ):
        answer = await world.post("/api/login/", {**body, "password": PASSWORD})
        assert answer.status == 200
        assert set(answer.json) == {"access_token", "refresh_token", "token_type", "expires_in"}
        assert (answer.json["token_type"], answer.json["expires_in"]) == ("Bearer", 900)
        assert (await world.get("/api/me/", answer.json["access_token"])).json["user_id"] == borrower.id
    both = {"aadhar_id": borrower.identity, "email": borrower.email, "password": PASSWORD}
    assert (await world.post("/api/login/", both)).slug == "invalid-fields"
    assert (await world.post("/api/login/", {"password": PASSWORD})).slug == "invalid-fields"
    assert (await world.post("/api/login/", {"email": borrower.email})).paths == ["password"]


async def test_a_wrong_login_tells_nothing(world, borrower):
    answers = [
        await world.post("/api/login/", body)
        for body in (
            {"aadhar_id": borrower.identity, "password": "wrong horse"},
            {"aadhar_id": "nobody", "password": PASSWORD},
            {"aadhar_id": "", "password": ""},
            {"email": borrower.email, "password": PASSWORD + " "},
            {"email": "nobody@example.com", "password": PASSWORD},
            {"email": "not an address", "password": PASSWORD},
            {"email": "\u0130\x00", "password": "\x00"},
        )
    ]
    assert all(map(bad_credentials, answers))
    assert len({str(answer.bare) for answer in answers}) == 1


async def test_two_hundred_logins_at_once_are_all_answered_while_others_pay(world, borrower, loan):
    """Registrations that come with them take their turn, and nothing that payments need."""
    logins = [asyncio.ensure_future(world.log_in(borrower.identity)) for _ in range(200)]
    await asyncio.sleep(0)
    new = [asyncio.ensure_future(world.register()) for _ in range(4)]
    for number in range(100):
        assert (await world.pay(world.payer, loan, "1.00", f"t-{number}")).status == 201
    await asyncio.gather(*logins)  # each of them asserts 200
    assert {answer.status for answer in await asyncio.gather(*new)} == {201}


async def test_guessing_is_slowed_for_that_account_alone(world, borrower):
    other = await world.borrower()
    wrong = {"aadhar_id": borrower.identity, "password": "wrong horse"}
    for _ in range(5):
        assert bad_credentials(await world.post("/api/login/", wrong))
    for body in (wrong, wrong | {"password": PASSWORD}):
        answer = await world.post("/api/login/", body)
        assert (answer.status, answer.slug) == (429, "too-many-attempts")
        assert int(answer.headers["Retry-After"]) == 1
    await world.log_in(other.identity)
    assert (await world.get("/api/me/", borrower)).status == 200  # who is logged in, stays so
    world.time.now_s += 1
    assert bad_credentials(await world.post("/api/login/", wrong))
    assert (await world.post("/api/login/", wrong)).headers["Retry-After"] == "2"
    world.time.now_s += 2
    await world.log_in(borrower.identity)
    # Nobody who does not exist can be told from one who does.
    nobody = {"aadhar_id": "nobody", "password": "wrong horse"}
    slugs = [(await world.post("/api/login/", nobody)).slug for _ in range(6)]
    assert slugs == ["bad-credentials"] * 5 + ["too-many-attempts"]


# Refreshing and logging out -----------------------------------------------------------------------


async def refresh(world, token: str | None) -> Answer:
    answer = await world.post("/api/token/", {"grant_type": "refresh_token", "refresh_token": token})
    if answer.status == 200:
        world.keep(Caller("", answer.json["access_token"], answer.json["refresh_token"]))
    return answer


async def test_a_refresh_token_works_once_and_twice_ends_the_login(world, borrower):
    elsewhere = await world.log_in(borrower.identity)
    world.time.now_s += 600
    first = await refresh(world, borrower.refresh_token)
    assert set(first.json) == {"access_token", "refresh_token", "token_type", "expires_in"}
    second = await refresh(world, first.json["refresh_token"])
    tokens = [borrower.token, first.json["access_token"], second.json["access_token"]]
    assert [(await world.get("/api/me/", token)).status for token in tokens] == [200, 200, 200]
    assert bad_credentials(await refresh(world, borrower.refresh_token))  # used before: stolen by somebody
    assert [(await world.get("/api/me/", token)).status for token in tokens] == [401, 401, 401]
    assert bad_credentials(await refresh(world, second.json["refresh_token"]))
    assert (await world.get("/api/me/", elsewhere)).status == 200  # another login is not touched
    assert (await refresh(world, elsewhere.refresh_token)).status == 200


async def test_a_refresh_token_raced_works_once(world, borrower):
    answers = await asyncio.gather(*(refresh(world, borrower.refresh_token) for _ in range(10)))
    assert Counter(answer.status for answer in answers) == {200: 1, 401: 9}
    [won] = [answer for answer in answers if answer.status == 200]
    assert (await world.get("/api/me/", won.json["access_token"])).status == 401


async def test_a_refresh_token_that_is_none(world, borrower):
    for token in ("", "x", borrower.refresh_token[:-1], borrower.refresh_token + "A", "é", "x" * 256):
        assert bad_credentials(await refresh(world, token)), token
    for token in (None, borrower.token, "x" * 257):  # access tokens are longer than any refresh token
        assert (await refresh(world, token)).paths == ["refresh_token"]
    world.time.now_s += 2_592_001
    assert bad_credentials(await refresh(world, borrower.refresh_token))


async def test_logging_out_works_at_once(world, borrower):
    elsewhere = await world.log_in(borrower.identity)
    answer = await world.post("/api/logout/", None, borrower)
    assert (answer.status, answer.body) == (204, b"")
    assert (await world.get("/api/me/", borrower)).status == 401
    assert (await world.post("/api/logout/", None, borrower)).status == 401
    assert bad_credentials(await refresh(world, borrower.refresh_token))
    assert (await world.get("/api/me/", elsewhere)).status == 200
    twice = await world.log_client_in(world.payer)
    assert (await world.post("/api/logout", None, world.payer)).status == 204
    assert (await world.get("/api/payments/x/", world.payer)).status == 401
    assert (await world.get("/api/payments/x/", twice)).slug == "payment-not-found"


# Clients ------------------------------------------------------------------------------------------


async def test_a_client_logs_in_as_json_and_as_a_form(world):
    body = {"grant_type": "client_credentials", "client_id": world.ops.id, "client_secret": world.ops.secret}
    form = urlencode(body).encode()
    for answer in (
        await world.post("/api/token/", body),
        await world.call("POST", "/api/token/", form, None, {"Content-Type": FORM}),
        await world.call("POST", "/api/token", form, None, {"Content-Type": f"{FORM}; charset=UTF-8"}),
    ):
        assert answer.status == 200
        assert set(answer.json) == {"access_token", "token_type", "expires_in"}
        token = world.keep(Caller("", answer.json["access_token"])).token
        assert (await world.get("/api/billing-runs/", token)).status == 200
        assert (await world.get("/api/payments/x/", token)).status == 403


async def test_a_borrower_refreshes_with_a_form_too(world, borrower):
    form = urlencode({"grant_type": "refresh_token", "refresh_token": borrower.refresh_token}).encode()
    answer = await world.call("POST", "/api/token/", form, None, {"Content-Type": FORM})
    assert answer.status == 200
    assert set(answer.json) == {"access_token", "refresh_token", "token_type", "expires_in"}


async def test_what_a_token_request_may_not_be(world):
    good = {"grant_type": "client_credentials", "client_id": world.ops.id, "client_secret": world.ops.secret}
    for changed in (
        {"client_secret": world.payer.secret},
        {"client_secret": ""},
        {"client_id": "0" * 16},
        {"client_id": "x"},
        {"client_id": "\x00é"},
    ):
        assert bad_credentials(await world.post("/api/token/", good | changed)), changed
    for body, paths in (
        ({"grant_type": "client_credentials"}, ["client_id", "client_secret"]),
        ({"grant_type": "refresh_token"}, ["refresh_token"]),
        ({**good, "refresh_token": "x"}, ["refresh_token"]),
        ({**good, "grant_type": "password"}, ["grant_type"]),
        ({**good, "scope": "ops"}, ["scope"]),
        ({}, ["grant_type"]),
    ):
        answer = await world.post("/api/token/", body)
        assert (answer.status, answer.slug, answer.paths) == (422, "invalid-fields", paths), body
    for form, status in (
        (b"", 422),
        (b"grant_type=client_credentials&grant_type=client_credentials", 422),
        (b"grant_type=client_credentials&client_id=%FF", 400),
        (b"grant_type", 400),
        ("grant_type=é".encode(), 400),
        (b"&".join(b"a%d=1" % number for number in range(100)), 400),
    ):
        answer = await world.call("POST", "/api/token/", form, None, {"Content-Type": FORM})
        assert answer.status == status, form
    # Elsewhere a form is no body.
    answer = await world.call("POST", "/api/login/", b"email=a&password=b", None, {"Content-Type": FORM})
    assert answer.status == 415


# Tokens that are none -----------------------------------------------------------------------------


async def test_a_forged_token_is_turned_away(world, borrower):
    claims = jwt.decode(borrower.token, options={"verify_signature": False})
    [public] = (await world.get("/.well-known/jwks.json")).json["keys"]
    kid, stranger = public["kid"], Ed25519PrivateKey.from_private_bytes(b"s" * 32)
    ours = world.service.services.tokens._keyring.signing.public
    pem = ours.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert (await world.get("/api/me/", forged(world, claims, {}))).status == 200, (
        "or this test shows nothing"
    )
    hs256 = {"alg": "HS256", "typ": "at+jwt", "kid": kid}
    bad = [
        forged(world, claims, {}, stranger),
        forged(world, claims, {"kid": "../../x"}),
        forged(world, claims, {"typ": "JWT"}),
        *(unsigned({"alg": alg, "typ": "at+jwt", "kid": kid}, claims) for alg in ("none", "None", "")),
        *(
            unsigned(hs256, claims, lambda text, key=key: hmac.digest(key, text, hashlib.sha256))
            for key in (pem, public["x"].encode(), ours.public_bytes_raw())
        ),
        forged(world, claims | {"aud": "another"}, {}),
        forged(world, claims | {"iss": "another"}, {}),
        forged(world, claims | {"exp": NOW_S - 1, "iat": NOW_S - 901}, {}),
        forged(world, claims | {"iat": NOW_S + 60, "exp": NOW_S + 120}, {}),
        forged(world, claims | {"exp": NOW_S + 10_000}, {}),
        forged(world, claims | {"sub": "borrower:0000000000000001"}, {}),
        forged(world, claims | {"sub": borrower.id}, {}),
        *(forged(world, {k: v for k, v in claims.items() if k != name}, {}) for name in claims),
        borrower.token[:-4],
        borrower.token[:-1] + ("A" if borrower.token[-1] != "A" else "B"),
        borrower.refresh_token,
        "x" * 7_000,
        ".".join(["e30"] * 1_000),
        "",
        "null",
    ]
    for token in bad:
        answer = await world.get("/api/me/", token)
        assert (answer.status, answer.slug) == (401, "unauthorized"), token
    for header in ("", "Bearer", "Basic abc", borrower.token, f"bearer{borrower.token}", "Bearer \xe9\x80"):
        answer = await world.get("/api/me/", None, Authorization=header)
        assert (answer.status, answer.slug) == (401, "unauthorized"), header
    good = await world.get("/api/me/", None, Authorization=f"bearer  {borrower.token}")
    assert good.status == 200  # the scheme's case does not matter


async def test_a_token_of_no_key_of_ours_asks_the_store_nothing(world, borrower, loan, asked):
    claims = jwt.decode(borrower.token, options={"verify_signature": False})
    kids = ("../../x", "' OR 1=1 --", "https://example.com/key", "unknown", "", "k" * 2_000)
    tokens = [forged(world, claims, {"kid": kid}) for kid in kids]
    asked.clear()
    for token in tokens:
        for answer in (await world.get("/api/me/", token), await world.pay(Caller("", token), loan, "1.00")):
            assert (answer.status, answer.slug) == (401, "unauthorized"), token
    assert asked == []
    assert (await world.get("/api/me/", forged(world, claims, {}))).status == 200
    assert asked  # or this test shows nothing


async def test_a_token_lives_as_long_as_it_says(world, borrower):
    world.time.now_s += 899.9
    assert (await world.get("/api/me/", borrower)).status == 200
    world.time.now_s += 0.1
    answer = await world.get("/api/me/", borrower)
    assert (answer.status, answer.slug) == (401, "unauthorized")
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    fresh = await refresh(world, borrower.refresh_token)
    assert (await world.get("/api/me/", fresh.json["access_token"])).status == 200
