"""What holds for every call: who may make it, its addresses and methods, headers, draining, one log line."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter

import pytest
from structlog.testing import capture_logs

from ledgerd.actors.messages import ActorFailed, Overloaded
from ledgerd.http.endpoint import problem_of
from ledgerd.http.overdue import Late
from ledgerd.http.passwords import Busy
from ledgerd.http.problems import Problem
from ledgerd.http.route import Route
from ledgerd.http.routes import ROUTES
from ledgerd.storage.ports import StorageFull, StoreError
from tests.http.outside import GOOD_BODIES, REQUEST_ID, Answer, Caller, World

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


async def test_who_is_turned_away_is_told_why_and_with_what_to_come_back(world, borrower):
    ended = await world.log_in(borrower.identity)
    await world.post("/api/logout/", None, ended)
    realm = 'Bearer realm="ledgerd"'
    invalid = f'{realm}, error="invalid_token"'
    for authorization, detail, challenge in (
        (None, "Send an access token.", realm),
        ("", "Send a Bearer token.", realm),
        ("Basic abc", "Send a Bearer token.", realm),
        (f"Token {borrower.token}", "Send a Bearer token.", realm),
        (f"Bearer{borrower.token}", "Send a Bearer token.", realm),
        ("Bearer", "The access token is not valid.", invalid),
        ("Bearer x", "The access token is not valid.", invalid),
        (f"bearer {ended.token}", "The login of this access token has ended.", invalid),
    ):
        answer = await world.call("GET", "/api/me/", None, None, {"Authorization": authorization})
        assert (answer.status, answer.json["detail"]) == (401, detail), authorization
        assert answer.headers["WWW-Authenticate"] == challenge, authorization
    for path, who, scopes in (
        ("/api/me/", world.ops, "borrower"),
        ("/api/loans/", world.payer, "borrower ops"),
        ("/api/billing-runs/", borrower, "ops"),
    ):
        answer = await world.get(path, who)
        assert (answer.status, answer.json["detail"]) == (403, f"One of these scopes is needed: {scopes}.")
        challenge = f'{realm}, error="insufficient_scope", scope="{scopes}"'
        assert answer.headers["WWW-Authenticate"] == challenge
    for spelled in ("Bearer", "Bearer ", "bearer", "BEARER", "bEaReR  "):
        authorization = f"{spelled} {borrower.token} "
        answer = await world.call("GET", "/api/me/", None, None, {"Authorization": authorization})
        assert answer.status == 200, spelled


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
            assert answer.json["detail"] == "The service is stopping."
            assert answer.headers["Retry-After"] == "1"


# What goes wrong ----------------------------------------------------------------------------------

SOON, LATER = {"Retry-After": "1"}, {"Retry-After": "10"}
UNKNOWN = Problem("outcome-unknown", "Send it again, the same.")


@pytest.mark.parametrize(
    ("error", "problem", "logged"),
    [
        (Problem("not-found", "x"), Problem("not-found", "x"), None),
        (Overloaded("mailboxes"), Problem("overloaded", "Try again: mailboxes.", {}, SOON), None),
        (Busy(), Problem("overloaded", "Too many passwords wait to be looked at.", {}, SOON), None),
        (
            StorageFull("x"),
            Problem("storage-full", "The disk is nearly full: nothing was done.", {}, LATER),
            None,
        ),
        (StoreError("why"), UNKNOWN, {"event": "outcome unknown", "error": "why"}),
        (ActorFailed("why"), UNKNOWN, {"event": "outcome unknown", "error": "why"}),
        (Late("why"), UNKNOWN, {"event": "outcome unknown", "error": "why"}),
        (
            error := ValueError("secret"),
            Problem("internal", "A bug; it is in our log."),
            {"event": "internal error", "exc_info": error},
        ),
    ],
)
def test_whatever_goes_wrong_has_its_problem_and_what_nobody_expects_is_logged(error, problem, logged):
    with capture_logs() as lines:
        told = problem_of(error, ROUTES[0], "r-1")
    assert vars(told) == vars(problem)
    always = {"log_level": "error", "route": ROUTES[0].path, "request_id": "r-1"}
    assert lines == ([] if logged is None else [always | logged])


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


HOSTS = ["evil.example", "evil.example:99999", "evil.example/x", "evil example", "<evil>", "[evil", '"evil']


async def test_what_a_caller_calls_us_comes_back_nowhere(world, borrower):
    """A link made of Host would lead others to whoever sent it, by way of a cache or a log."""
    everything = await world.new_client("payments:write", "ops")
    pages = [
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/problems/"),
        ("GET", "/none"),
        ("PUT", "/docs"),
    ]
    for host in HOSTS:
        named = ("Host", "X-Forwarded-Host", "X-Original-URL", "Origin", "Referer")
        headers = {**dict.fromkeys(named, host), "Forwarded": f"host={host}"}
        for method, pattern, name, scopes in [
            *((route.method, route.path, route.name, route.scopes) for route in ROUTES),
            *((method, path, "", frozenset()) for method, path in pages),
        ]:
            who = None if not scopes else borrower if "borrower" in scopes else everything
            if name == "logout":
                who = await world.log_in(borrower.identity)
            path = re.sub(r"\{\w+\}", "0" * 16, pattern)
            answer = await world.call(method, path, GOOD_BODIES.get(name), who, headers)
            assert b"evil" not in answer.body, (method, path, host)
            assert "evil" not in str(answer.headers), (method, path, host)
            if name == "applyLoan":
                assert answer.headers["Location"].startswith("/api/loans/")
    assert "evil" not in flushed(world)


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
