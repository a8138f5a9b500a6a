"""Bodies over HTTP, good and bad: each bad one gets its 4xx at once, does nothing, and never brings a 500."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from collections.abc import Awaitable, Callable

import pytest

from ledgerd.config import Limits
from ledgerd.http.routes import ROUTES
from tests.http.outside import GOOD_BODIES, Answer

WITH_BODY = [route for route in ROUTES if route.body is not None]
NESTED = b"[" * 100_000
MALFORMED = (
    b"", b" ", b"{", b"{]", b"}", b"nul", b"'a'", b"{'a': 1}", b'{"a": 1,}', b"{,}", b'{"a"}', b"\x00",
    b"{}\x00", b"{} {}x", b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", b'{"a": "\xff"}',
    b'{"a": "\xed\xa0\x80"}', b'{"\xc0\xaf": 1}', b'{"a": "\\x"}', b'{"a": NaN}',
    b'{"a": Infinity}', b'{"a": -}', b'{"a": 01}',
    b"NaN", b"{\"a\": '1'}", b'{"a": 1e}', b'{"a": "\n"}', b"//\n{}", b'{"a": .5}',
)  # fmt: skip
# A good payment, and what makes it no JSON: what stands there, and what is sent in its place.
PAYMENT = '{"loan_id": "LOAN", "amount": 1, "transaction_id": "t"}'
NO_JSON = (
    (b": 1,", b": NaN,"), (b": 1,", b": -Infinity,"), (b": 1,", b": 01,"), (b": 1,", b": .5,"),
    (b": 1,", b': "1\xff",'), (b": 1,", b': "\\ud800",'),
    (b'"t"}', b'"t"}x'), (b'"t"}', b'"t"}}'), (b'"t"}', b'"t",}'), (b'"t"}', b'"t"'),
    (b'{"l', b'\xef\xbb\xbf{"l'), (b'{"l', b'\xff\xfe{"l'), (b'{"l', b"{'l"), (b'{"l', b'\x00{"l'),
    (b'"t"', b'"\xff"'), (b'"t"', b'"\xed\xa0\x80"'), (b'"t"', b'"\\ud800"'), (b'"t"', b'"\\udc00\\ud800"'),
    (b'"t"', b'"\x01"'), (b'"t"', b'"\\x41"'), (b'"t"', b'"\xc0\xaf"'), (b'"amount"', b'"amount\xff"'),
)  # fmt: skip
NOT_AN_OBJECT = (b"[]", b'"text"', b"1", b"true", b"null", b"[{}]", b"1e400", b"-0")

# Literals of an amount, and what they come to.
AMOUNTS = {
    "1": "1.00", "1.0": "1.00", "1.00": "1.00", "1.5": "1.50", '"1"': "1.00", '"01.5"': "1.50",
    "2.07": "2.07", '"1\\u002e5"': "1.50", "0.01": "0.01", '"0000000000001.00"': "1.00",
}  # fmt: skip
NO_AMOUNTS = (
    "0", "0.0", "0.00", '"0"', '"0.00"', "-0", "-0.00", "-5", '"-5"', '"+5"', "10.001",
    '"10.001"', "1e2", '"1e2"', "1E2",
    "2.07e2", '"1e999999"', "1e999999", "1e400", '"1e-30"', '"NaN"', '"Infinity"', '"-Infinity"',
    '"sNaN"', '"1_000"', '"１２"', '"٣"', '"१"', '" 1"', '"1 "', '"1\\n"', '"0x10"', '"1,000"',
    '""', '"."',
    '"1."', '".5"', "true", "null", "[]", '["1"]', "{}", '{"a": 1, "a": 2}', "12345678901234",
    '"12345678901234"',
    '"99999999999999.99"', "9223372036854775808", "1.00000000000000000000", '"1\\u0000"', '"\\u0661"',
    '"1\\u200b"', '"1/2"', '"1;2"', '"₹1"', "9" * 5_000, f'"{"9" * 5_000}"',
)  # fmt: skip
# What stands behind a good body, and the field that is then named.
NO_FIELDS = {
    ', "amount": 1': "amount", ', "\\u0061mount": 1': "amount", ', "loan_id": "x"': "loan_id",
    ', "note": 1': "note", ', "": 1': "", ', "Amount": 1': "Amount", ', "for_bill": 1.0': "for_bill",
    ', "for_bill": "1"': "for_bill", ', "for_bill": true': "for_bill", ', "for_bill": 0': "for_bill",
    ', "for_bill": [1]': "for_bill",
}  # fmt: skip


# As what it may be sent ------------------------------------------------------------------------------


async def test_what_a_body_may_be_sent_as(world, borrower):
    loan_id = (await world.lend(borrower))["loan_id"]
    numbers = iter(range(1_000))

    async def send(content_type: str | None, encoding: str = "utf-8", **headers: str) -> Answer:
        body = {"loan_id": loan_id, "amount": "1.00", "transaction_id": f"t{next(numbers)}"}
        return await world.call(
            "POST",
            "/api/make-payment/",
            json.dumps(body).encode(encoding),
            borrower,
            {"Content-Type": content_type, **headers},
        )

    for good in (
        *("application/json", "application/json; charset=utf-8", "application/json;charset=UTF-8"),
        *(
            'Application/JSON; Charset="utf-8"',
            "application/json; charset=utf8",
            "application/json ;charset=utf-8",
        ),
    ):
        assert (await send(good)).status == 201, good
    for bad in (
        *(None, "", "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/*"),
        *(
            "application/json; charset=latin-1",
            "application/json, text/plain",
            "multipart/form-data; boundary=x",
        ),
        *("application/x-ndjson", "application/problem+json", "json", ";", "application/json; charset="),
    ):
        answer = await send(bad)
        assert (answer.status, answer.slug) == (415, "unsupported-media-type"), bad
    assert (await send("application/json; charset=utf-16", "utf-16")).status == 415
    assert (await send("application/json", "utf-16")).status == 400
    assert (await send("application/json", "utf-8-sig")).status == 400
    assert (await send("application/json", **{"Content-Encoding": "identity"})).status == 201
    for encoding in ("gzip", "deflate", "br", "zstd", "gzip, gzip", "GZIP"):
        packed = gzip.compress(b"{}")
        answer = await world.call(
            "POST", "/api/make-payment/", packed, borrower, {"Content-Encoding": encoding}
        )
        assert (answer.status, answer.slug) == (415, "unsupported-media-type"), encoding


async def test_a_body_has_a_largest_size(world, borrower):
    loan_id = (await world.lend(borrower))["loan_id"]
    body = json.dumps({"loan_id": loan_id, "amount": "1.00", "transaction_id": "padded"}).encode()
    assert (await world.post("/api/make-payment/", body.ljust(16_384), borrower)).status == 201

    async def pieces():
        for start in range(0, 16_385, 1_000):
            yield body.ljust(16_385)[start : start + 1_000]

    too_large = await world.post("/api/make-payment/", body.ljust(16_385), borrower)
    assert (too_large.status, too_large.slug) == (413, "body-too-large")
    assert "16384" in too_large.json["detail"]
    chunked = await world.client.post(
        "/api/make-payment/",
        data=pieces(),
        headers={"Authorization": f"Bearer {borrower.token}", "Content-Type": "application/json"},
    )
    assert chunked.status == 413
    assert (await chunked.json(content_type=None))["type"] == "/problems/body-too-large"
    assert (await world.post("/api/make-payment/", body.ljust(1_000_000), borrower)).status == 413
    assert (await world.pay(borrower, loan_id, "1.00", "padded")).status == 200


async def test_what_would_unpack_to_much_is_never_unpacked(world, borrower):
    packed = gzip.compress(bytes(12_000_000))
    assert len(packed) < 16_384
    tracemalloc.start()
    answer = await world.call("POST", "/api/make-payment/", packed, borrower, {"Content-Encoding": "gzip"})
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (answer.status, answer.slug) == (415, "unsupported-media-type")
    assert peak_bytes < 2_000_000
    larger = gzip.compress(bytes(50_000_000))
    answer = await world.call("POST", "/api/make-payment/", larger, borrower, {"Content-Encoding": "gzip"})
    assert answer.status == 415


async def test_the_largest_size_can_be_set(open_world):
    async with open_world(limits=Limits(body_bytes=200)) as world:
        assert (await world.post("/api/login/", b"{}".ljust(200))).slug == "invalid-fields"
        assert (await world.post("/api/login/", b"{}".ljust(201))).slug == "body-too-large"


# What it may be ------------------------------------------------------------------------------------


async def test_no_body_brings_the_service_down(world, borrower):
    """Each bad body at each address that takes one: 400 or 422 at once, and nothing done."""
    who = {"borrower": borrower, "ops": world.ops, "payments:write": world.payer}
    before = await world.head()
    for route in WITH_BODY:
        caller = who[min(route.scopes)] if route.scopes else None
        optional = () if route.body_required else (b"",)
        for body in MALFORMED:
            if body in optional:
                continue
            answer = await world.post(route.path, body, caller)
            assert (answer.status, answer.slug) == (400, "malformed"), (route.name, body)
        if route.batch:  # takes an array: the rest is in test_batches.py
            continue
        for body in NOT_AN_OBJECT:
            answer = await world.post(route.path, body, caller)
            assert (answer.status, answer.slug) == (422, "invalid-fields"), (route.name, body)
        answer = await world.post(route.path, b'{"unheard-of": 1}', caller)
        assert (answer.status, answer.paths) == (422, ["unheard-of"]), route.name
        for body in (NESTED[:16_000], b'{"a": ' + NESTED[:16_000], b'{"a":' * 3_000, NESTED):
            answer = await world.post(route.path, body, caller)
            assert answer.status in ({413} if body is NESTED else {400, 422}), (route.name, body[:20])
        for field in route.body.__struct_fields__:
            for value in (None, True, [], {}, 1.5, -1, "\x00", "\u202e", 10**400, [[[]]], "x" * 10_000):
                body = {**GOOD_BODIES[route.name], field: value, "unheard-of": 1}
                answer = await world.post(route.path, body, caller)
                assert (answer.status, answer.slug) == (422, "invalid-fields"), (route.name, field, value)
    assert await world.head() == before


async def test_what_is_no_json_is_malformed_and_pays_nothing(world, borrower, loan):
    good = PAYMENT.replace("LOAN", loan).encode()
    before = await world.head()
    for there, sent in NO_JSON:
        assert good.count(there) == 1
        answer = await world.post("/api/make-payment/", good.replace(there, sent), borrower)
        assert (answer.status, answer.slug) == (400, "malformed"), sent
    assert await world.head() == before
    assert (await world.post("/api/make-payment/", good, borrower)).status == 201


async def test_a_field_that_stands_twice_is_named_at_every_address(world, borrower):
    """Also with the same value both times, and with its name escaped."""
    who = {"borrower": borrower, "ops": world.ops, "payments:write": world.payer}
    before = await world.head()
    for route in (route for route in WITH_BODY if not route.batch):
        caller = who[min(route.scopes)] if route.scopes else None
        good = GOOD_BODIES[route.name] or {"date": "2026-01-01"}
        for name, value in good.items():
            for again in (name, f"\\u{ord(name[0]):04x}{name[1:]}"):
                body = f'{json.dumps(good)[:-1]}, "{again}": {json.dumps(value)}}}'.encode()
                answer = await world.post(route.path, body, caller)
                assert (answer.status, answer.slug, answer.paths) == (422, "invalid-fields", [name]), body
    assert await world.head() == before


async def test_deep_nesting_with_an_escape_is_refused_at_any_depth(world, borrower):
    """Two parsers look at such a body, and each has a depth of its own where it gives up."""
    for depth in (*range(10, 900, 100), *range(900, 1_005), 5_000):
        nested = "[" * depth + "]" * depth
        body = f'{{"loan_id": "\\u0061", "transaction_id": "x", "amount": {nested}}}'.encode()
        answer = await world.post("/api/make-payment/", body, borrower)
        assert answer.status in {400, 422}, depth


# A payment's body, to the letter --------------------------------------------------------------------


@pytest.fixture
async def send(world, borrower) -> Callable[..., Awaitable[Answer]]:
    """Sends a payment with this literal as its amount, and what stands before and behind it in the text."""
    loan_id = (await world.lend(borrower))["loan_id"]
    numbers = iter(range(1_000))

    async def send_one(amount: str, behind: str = "", before: str = "") -> Answer:
        text = f'"loan_id": "{loan_id}", "transaction_id": "t{next(numbers)}", "amount": {amount}'
        body = f"{{{before}{text}{behind}}}".encode("utf-8", "surrogatepass")
        return await world.post("/api/make-payment/", body, borrower)

    return send_one


async def test_amounts(send):
    for good, rupees in AMOUNTS.items():
        answer = await send(good)
        assert (answer.status, answer.json.get("amount")) == (201, rupees), good
    for bad in NO_AMOUNTS:
        answer = await send(bad)
        assert (answer.status, answer.slug, answer.paths) == (422, "invalid-fields", ["amount"]), bad
    assert (await send("9999999999999.99")).slug == "amount-exceeds-payoff"


async def test_fields_stand_once_and_are_known(send):
    for more, path in NO_FIELDS.items():
        answer = await send("1", more)
        assert (answer.status, answer.slug, answer.paths) == (422, "invalid-fields", [path]), more
    twice = await send("1", ', "for_bill": 1, "\\u0066or_bill": 1, "amount": 1')
    assert twice.paths == ["amount", "for_bill"]
    # A name is a name, however it is escaped.
    assert (await send("1", "", '"\\u0066or_bill": null, ')).status == 201
    for lone in ("\\ud800", "\\udc00", "\\ud800\\u0041", "\ud800"):
        assert (await send(f'"{lone}"')).status in {400, 422}
        assert (await send("1", f', "{lone}": 1')).status in {400, 422}


async def test_a_name_in_a_value_is_no_name(world, borrower):
    loan_id = (await world.lend(borrower))["loan_id"]
    named = {"loan_id": loan_id, "amount": "1.00", "transaction_id": "amount"}
    assert (await world.post("/api/make-payment/", named, borrower)).status == 201
    missing = await world.post("/api/make-payment/", {"loan_id": loan_id, "amount": 1}, borrower)
    assert missing.paths == ["transaction_id"]
