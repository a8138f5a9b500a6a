"""What holds for every call: who may make it, headers, bodies of any kind, limits, one log line, no 500."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from collections import Counter
from typing import Any

from ledgerd.config import Limits
from ledgerd.http.route import Route
from ledgerd.http.routes import ROUTES
from tests.http.outside import REQUEST_ID, Answer, Caller, World

GOOD_BODIES: dict[str, Any] = {
    "registerUser": {
        "name": "Asha",
        "email": "asha@example.com",
        "aadhar_id": "asha",
        "annual_income": "1",
        "password": "correct horse",
    },
    "login": {"aadhar_id": "nobody", "password": "correct horse"},
    "token": {"grant_type": "refresh_token", "refresh_token": "none"},
    "applyLoan": {"amount": "1.00", "interest_rate": "1", "tenure": 1},
    "makePayment": {"loan_id": "0" * 16, "amount": "1.00", "transaction_id": "x"},
    "startBillingRun": {},
    "advanceClock": {"days": 1},
}
WITH_BODY = [route for route in ROUTES if route.body is not None]


async def try_route(world: World, route: Route, who: Caller | str | None, **ids: str) -> Answer:
    """Call a route with a good body, about these things."""
    path = route.path
    for name in re.findall(r"\{(\w+)\}", path):
        path = path.replace(f"{{{name}}}", ids.get(name, "0" * 16))
    if route.name == "getStatement":
        path += f"?loan_id={ids.get('loan_id', '0' * 16)}"
    body = GOOD_BODIES[route.name] if route.body else None
    if route.name == "makePayment" and "loan_id" in ids:
        body = {**body, "loan_id": ids["loan_id"]}
    return await world.call(route.method, path, body, who)


# Who may call -------------------------------------------------------------------------------------


async def test_every_route_takes_the_tokens_of_its_scopes_alone(world):
    """The table is the test: a new route is tried as everybody without a line here, but for its good body."""
    owner, other = await world.borrower(), await world.borrower()
    everything = await world.new_client("payments:write", "ops")
    loan_id = (await world.lend(owner))["loan_id"]
    paid = (await world.pay(owner, loan_id, "1.00", "x")).json
    run = (await world.post("/api/billing-runs/", {}, world.ops)).json
    ids = {"loan_id": loan_id, "transaction_id": paid["transaction_id"], "run_id": run["run_id"]}
    scopes = {
        "owner": (owner, {"borrower"}),
        "other": (other, {"borrower"}),
        "payer": (world.payer, {"payments:write"}),
        "ops": (world.ops, {"ops"}),
        "everything": (everything, {"payments:write", "ops"}),
    }
    ended = {name: await log_in_again(world, caller) for name, (caller, _) in scopes.items()}
    for caller in ended.values():
        assert (await world.post("/api/logout/", None, caller)).status == 204
    for route in ROUTES:
        tried = {}
        for name, (caller, granted) in scopes.items():
            who = await log_in_again(world, caller) if route.name == "logout" else caller
            answer = tried[name] = await try_route(world, route, who, **ids)
            told = f"{route.name} as {name}: {answer.status} {answer.body[:200]!r}"
            if not route.scopes or granted & route.scopes:
                assert answer.slug not in {"unauthorized", "insufficient-scope"}, told
            else:
                assert (answer.status, answer.slug) == (403, "insufficient-scope"), told
                assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"], told
        if route.scopes:
            for who in (None, "garbage", "a.b.c", *ended.values()):
                answer = await try_route(world, route, who, **ids)
                assert (answer.status, answer.slug) == (401, "unauthorized"), route.name
        if "loan_id" in route.path or route.name in {"getStatement", "makePayment"}:
            # What belongs to somebody else can't be told from what is not there.
            assert tried["owner"].status < 300, route.name
            missing = await try_route(world, route, other, **{**ids, "loan_id": "0" * 16})
            assert tried["other"].bare == missing.bare, route.name
            assert missing.status == 404
    world.time.now_s += 901
    for route in ROUTES:
        for caller, _ in scopes.values():
            answer = await try_route(world, route, caller, **ids)
            expected = "unauthorized" if route.scopes else None
            assert expected is None or (answer.status, answer.slug) == (401, expected), route.name


async def log_in_again(world: World, caller: Caller) -> Caller:
    return await (world.log_client_in(caller) if caller.secret else world.log_in(caller.identity))


async def test_a_token_is_looked_at_before_the_body(world):
    """Who may not call learns nothing of what is a good body, and nothing is read for them."""
    for route in (route for route in WITH_BODY if route.scopes):
        for body, headers in ((b"not JSON", {}), (b"x" * 100_000, {"Content-Type": "text/plain"})):
            answer = await world.call(route.method, route.path, body, None, headers)
            assert (answer.status, answer.slug) == (401, "unauthorized"), route.name


async def test_draining_turns_new_work_away(world, borrower):
    loan_id = (await world.lend(borrower))["loan_id"]
    await world.service.drain()
    for route in ROUTES:
        answer = await try_route(world, route, borrower, loan_id=loan_id)
        if route.tag == "Service":
            assert answer.status == (503 if route.name == "readyz" else 200)
        else:
            assert (answer.status, answer.slug) == (503, "draining"), route.name
            assert answer.headers["Retry-After"] == "1"


# Addresses and methods ----------------------------------------------------------------------------


async def test_every_address_without_its_slash_and_as_head(world, borrower):
    loan_id = (await world.lend(borrower))["loan_id"]
    who = {"borrower": borrower, "ops": world.ops, "payments:write": world.payer}
    for route in ROUTES:
        caller = who[min(route.scopes)] if route.scopes else None
        path = (
            route.path.replace("{loan_id}", loan_id).replace("{transaction_id}", "x").replace("{run_id}", "x")
        )
        if route.name == "getStatement":
            path += f"?loan_id={loan_id}"
        if route.method == "GET":
            bare_path = path.replace("/?", "?").rstrip("/")
            with_slash, without = await world.get(path, caller), await world.get(bare_path, caller)
            if route.name != "metrics":
                assert with_slash.bare == without.bare, route.name
            head = await world.call("HEAD", path, None, caller)
            assert (head.status, head.body) == (with_slash.status, b""), route.name
            assert head.headers["Content-Type"] == with_slash.headers["Content-Type"]
        else:
            answer = await world.post(path.rstrip("/"), GOOD_BODIES.get(route.name), caller)
            assert answer.status not in {301, 302, 307, 308, 404, 405}, route.name


async def test_other_methods_are_405_and_say_which_are_not(world):
    for pattern in {route.path for route in ROUTES} | {
        "/docs",
        "/openapi.json",
        "/problems",
        "/problems/internal",
    }:
        path = re.sub(r"\{\w+\}", "x", pattern)
        allowed = {route.method for route in ROUTES if route.path == pattern} or {"GET"}
        allowed |= {"HEAD"} if "GET" in allowed else set()
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"} - allowed:
            for spelled in {path, path.rstrip("/")}:
                answer = await world.call(method, spelled, None, world.ops)
                assert answer.status == 405, (method, spelled)
                assert answer.headers["Allow"] == ", ".join(sorted(allowed)), (method, spelled)
                assert method == "HEAD" or answer.slug == "method-not-allowed"


async def test_no_such_address(world):
    for path in (
        *(
            "/",
            "/api",
            "/api/",
            "/api/loan/",
            "/api/loans/x/y/",
            "/api/make-payment/x",
            "/api/make-payment//",
        ),
        *(
            "/API/loans/",
            "/api/Loans/",
            "/api/me/;x",
            "/favicon.ico",
            "/problems/none",
            "/%2e%2e/",
            "/livez/x",
        ),
        *("/api//me/", "/api/payments//", "/api/loans/%2F/x"),
    ):
        for method in ("GET", "POST", "DELETE"):
            answer = await world.call(method, path, None, world.ops)
            assert (answer.status, answer.slug) == (404, "not-found"), (method, path)


# Headers ------------------------------------------------------------------------------------------


async def test_every_answer_has_a_request_id(world, borrower):
    calls = [
        ("GET", "/livez", None),
        ("GET", "/api/me/", borrower),
        ("GET", "/api/me/", None),
        ("PUT", "/api/me/", None),
        ("GET", "/nothing", None),
        ("GET", "/docs", None),
        ("POST", "/api/login/", None),
        ("POST", "/api/logout/", borrower),
    ]
    for method, path, who in calls[:-1]:
        for good in ("abc", "A-b_c.9", "z" * 64):
            answer = await world.call(method, path, None, who, {"X-Request-ID": good})
            assert answer.headers["X-Request-ID"] == good, path
        made = set()
        for bad in ("", "z" * 65, "a b", "a\u00e9", "a/b", "x;y", "<script>"):
            answer = await world.call(method, path, None, who, {"X-Request-ID": bad})
            assert answer.headers["X-Request-ID"] != bad
            made.add(answer.headers["X-Request-ID"])
        assert len(made) == 7
        assert all(map(REQUEST_ID.fullmatch, made))
    method, path, who = calls[-1]
    assert (await world.call(method, path, None, who, {"X-Request-ID": "bye"})).headers[
        "X-Request-ID"
    ] == "bye"


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


async def test_the_largest_size_can_be_set(open_world):
    async with open_world(limits=Limits(body_bytes=200)) as world:
        assert (await world.post("/api/login/", b"{}".ljust(200))).slug == "invalid-fields"
        assert (await world.post("/api/login/", b"{}".ljust(201))).slug == "body-too-large"


# Bodies -------------------------------------------------------------------------------------------

NESTED = b"[" * 100_000
MALFORMED = (
    *(
        b"",
        b" ",
        b"{",
        b"{]",
        b"}",
        b"nul",
        b"'a'",
        b"{'a': 1}",
        b'{"a": 1,}',
        b"{,}",
        b'{"a"}',
        b"\x00",
        b"{}\x00",
    ),
    *(b"{} {}x", b"\xef\xbb\xbf{}", b"\xff\xfe{\x00}\x00", b'{"a": "\xff"}', b'{"a": "\xed\xa0\x80"}'),
    *(
        b'{"\xc0\xaf": 1}',
        b'{"a": "\\x"}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -}',
        b'{"a": 01}',
        b"NaN",
    ),
    *(b"{\"a\": '1'}", b'{"a": 1e}', b'{"a": "\n"}', b"//\n{}", b'{"a": .5}'),
)
NOT_AN_OBJECT = (b"[]", b'"text"', b"1", b"true", b"null", b"[{}]", b"1e400", b"-0")


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
            assert answer.status in {400, 422}, (route.name, body)
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


async def test_a_payment_s_body_to_the_letter(world, borrower):
    loan_id = (await world.lend(borrower))["loan_id"]
    numbers = iter(range(1_000))

    async def send(amount: str, more: str = "", first: str = "{") -> Answer:
        text = f'"loan_id": "{loan_id}", "transaction_id": "t{next(numbers)}", "amount": {amount}{more}}}'
        return await world.post(
            "/api/make-payment/", (first + text).encode("utf-8", "surrogatepass"), borrower
        )

    for good, paise in (
        *(
            ("1", "1.00"),
            ("1.0", "1.00"),
            ("1.00", "1.00"),
            ("1.5", "1.50"),
            ('"1"', "1.00"),
            ('"01.5"', "1.50"),
        ),
        *(('"1\\u002e5"', "1.50"), ("0.01", "0.01"), ('"0000000000001.00"', "1.00")),
    ):
        answer = await send(good)
        assert (answer.status, answer.json.get("amount")) == (201, paise), good
    for bad in (
        *(
            "0",
            "0.0",
            "0.00",
            '"0"',
            '"0.00"',
            "-0",
            "-0.00",
            "-5",
            '"-5"',
            '"+5"',
            "10.001",
            '"10.001"',
            "1e2",
        ),
        *(
            '"1e2"',
            "1E2",
            "2.07e2",
            '"1e999999"',
            "1e999999",
            '"1e-30"',
            '"NaN"',
            '"Infinity"',
            '"-Infinity"',
        ),
        *(
            '"sNaN"',
            '"1_000"',
            '"１２"',
            '"٣"',
            '" 1"',
            '"1 "',
            '"1\\n"',
            '"0x10"',
            '"1,000"',
            '"१"',
            '""',
            '"."',
        ),
        *('"1."', '".5"', "12345678901234", '"12345678901234"', '"99999999999999.99"', "true", "null", "[]"),
        *('["1"]', "{}", '{"a": 1, "a": 2}', '"1\\u0000"', '"\\u0661"', "9" * 5_000, f'"{"9" * 5_000}"'),
        *("1.00000000000000000000", "9223372036854775808", '"1\\u200b"', '"1/2"', '"1;2"', '"₹1"'),
    ):
        answer = await send(bad)
        assert (answer.status, answer.slug, answer.paths) == (422, "invalid-fields", ["amount"]), bad
    assert (await send("9999999999999.99")).slug == "amount-exceeds-payoff"
    for more, path in (
        *((', "amount": 1', "amount"), (', "\\u0061mount": 1', "amount"), (', "loan_id": "x"', "loan_id")),
        *(
            (', "note": "x"', "note"),
            (', "": 1', ""),
            (', "Amount": 1', "Amount"),
            (', "for_bill": 1.0', "for_bill"),
        ),
        *(
            (', "for_bill": "1"', "for_bill"),
            (', "for_bill": true', "for_bill"),
            (', "for_bill": 0', "for_bill"),
        ),
    ):
        answer = await send("1", more)
        assert (answer.status, answer.slug, answer.paths) == (422, "invalid-fields", [path]), more
    twice = await send("1", ', "for_bill": 1, "\\u0066or_bill": 1, "amount": 1')
    assert twice.paths == ["amount", "for_bill"]
    # The name of a field may stand in a value.
    named = {"loan_id": loan_id, "amount": "1.00", "transaction_id": "amount"}
    assert (await world.post("/api/make-payment/", named, borrower)).status == 201
    # A name is a name, however it is escaped.
    assert (await send("1", "", '{"\\u0066or_bill": null, ')).status == 201
    for lone in ("\\ud800", "\\udc00", "\\ud800\\u0041", "\ud800"):
        assert (await send(f'"{lone}"')).status in {400, 422}
        assert (await send("1", f', "{lone}": 1')).status in {400, 422}
    missing = await world.post("/api/make-payment/", {"loan_id": loan_id, "amount": 1}, borrower)
    assert missing.paths == ["transaction_id"]


async def test_deep_nesting_with_an_escape_is_refused_at_any_depth(world, borrower):
    """Two parsers look at such a body, and each has a depth of its own where it gives up."""
    for depth in (*range(10, 900, 100), *range(900, 1_005), 5_000):
        nested = "[" * depth + "]" * depth
        body = f'{{"loan_id": "\\u0061", "transaction_id": "x", "amount": {nested}}}'.encode()
        answer = await world.post("/api/make-payment/", body, borrower)
        assert answer.status in {400, 422}, depth


# The log ------------------------------------------------------------------------------------------


async def test_each_call_is_one_line_with_its_loan_and_no_secret(world, borrower):
    loan_id = (await world.lend(borrower))["loan_id"]
    await world.call(
        "POST",
        "/api/make-payment/",
        {"loan_id": loan_id, "amount": "1.00", "transaction_id": "t"},
        borrower,
        {"X-Request-ID": "mine"},
    )
    await world.get("/api/get-statement/?loan_id=" + loan_id, borrower)
    await world.post("/api/login/", {"aadhar_id": "a secret identity", "password": "a secret password"})
    await world.client.close()
    await asyncio.sleep(0)
    text = flushed(world)
    lines = [json.loads(line) for line in text.splitlines()]
    [line] = [line for line in lines if line.get("request_id") == "mine"]
    assert line.pop("timestamp").endswith("Z")
    assert line.pop("duration_ms") >= 0
    assert line == {
        "event": "request",
        "level": "info",
        "method": "POST",
        "route": "/api/make-payment/",
        "status": 201,
        "request_id": "mine",
        "loan_id": loan_id,
    }
    routes = Counter(line["route"] for line in lines if line["event"] == "request")
    assert routes["/api/make-payment/"] == routes["/api/apply-loan/"] == routes["/api/get-statement/"] == 1
    assert "a secret" not in text


def flushed(world: World) -> str:
    world.access.flush()
    return world.log.getvalue()
