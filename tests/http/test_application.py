"""The application as a whole: documents, addresses nobody serves, request ids, requests written by hand."""

from __future__ import annotations

import asyncio
import random

import pytest

from ledgerd.config import Clock
from ledgerd.http.application import request_id_chooser
from ledgerd.http.problems import PROBLEMS
from ledgerd.http.routes import ROUTES
from tests.http.edge import parsed
from tests.http.outside import REQUEST_ID


async def raw(world, *lines: str, body: bytes = b"") -> tuple[int, dict[str, str], bytes]:
    """Send a request as it stands, and return the answer's status, headers and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", world.client.port)
    writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body)
    answer = await one_answer(reader)
    writer.close()
    await writer.wait_closed()
    return parsed(answer)


async def one_answer(reader: asyncio.StreamReader) -> bytes:
    """Read a head and its body, without waiting for the connection's end."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((line.split()[1] for line in head.splitlines() if line.startswith(b"Content-Length")), b"0")
    return head + await reader.readexactly(int(length))


# Documents ----------------------------------------------------------------------------------------


async def test_the_document_describes_what_is_served(world):
    answer = await world.get("/openapi.json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json["openapi"].startswith("3.1")
    described = {
        (method.upper(), path) for path, methods in answer.json["paths"].items() for method in methods
    }
    assert {(route.method, route.path) for route in ROUTES} <= described
    assert (await world.get("/openapi.json/")).bare == answer.bare
    assert (await world.call("HEAD", "/openapi.json")).status == 200


async def test_the_real_clock_has_no_sandbox(open_world):
    async with open_world(clock=Clock()) as world:
        document = (await world.get("/openapi.json")).json
        assert "/api/sandbox/advance-clock/" not in document["paths"]


async def test_pages_open_in_a_browser_and_need_nothing_else(world):
    paths = ["/docs", "/problems", *(f"/problems/{slug}" for slug in PROBLEMS)]
    for path in paths:
        answer = await world.get(path)
        assert answer.status == 200, path
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert (await world.get(f"{path}/")).bare == answer.bare
        text = answer.body.decode()
        assert "http://" not in text.replace("http://127.0.0.1", "").replace("http://localhost", ""), path
        assert 'src="//' not in text
        assert "https://" not in text, path
    for slug, kind in PROBLEMS.items():
        page = (await world.get(f"/problems/{slug}")).body.decode()
        assert kind.title in page
    assert (await world.get("/problems/none-such")).slug == "not-found"


async def test_a_problem_s_type_can_be_opened(world):
    answer = await world.get("/nothing")
    assert (await world.get(answer.json["type"])).status == 200


# Requests by hand ---------------------------------------------------------------------------------


async def test_addresses_that_are_spelled_oddly(world):
    """No spelling reaches a handler by another address than its own, and none is answered by anything but a
    problem.
    """
    for target, status in (
        ("//api/me/", 404),
        ("/api//me/", 404),
        ("/api/./me/", 404),
        ("/api/x/../me/", 404),
        ("/api/me/?a=%00&b=%FF&&&==", 401),
        ("/api/me/?" + "a=1&" * 1_000, 401),
        ("/api/%6de/", 401),
        ("/api/payments/./", 401),
        ("/api/payments/%2e%2e/", 401),
        ("/api/payments/%zz/", 401),
        ("http://elsewhere.example/api/me/", 401),
        ("*", 400),
        ("/api/me/#x", 401),
    ):
        got, headers, body = await raw(world, f"GET {target} HTTP/1.1", "Host: x")
        assert got == status, target
        assert headers["content-type"] == "application/problem+json"
        assert b"/problems/" in body
        assert "elsewhere" not in f"{headers}{body!r}"
    got, headers, _ = await raw(world, "OPTIONS /api/me/ HTTP/1.1", "Host: x")
    assert (got, headers["allow"]) == (405, "GET, HEAD")
    for method in ("BREW", "get"):  # no method at all
        assert (await raw(world, f"{method} /api/me/ HTTP/1.1", "Host: x"))[0] == 400


async def test_a_transaction_id_of_dots_can_be_looked_up(world, borrower):
    loan_id = (await world.lend(borrower))["loan_id"]
    for dots in (".", "..", "..."):
        assert (await world.pay(borrower, loan_id, "1.00", dots)).status == 201
        got, _, body = await raw(
            world,
            f"GET /api/payments/{dots}/ HTTP/1.1",
            "Host: x",
            f"Authorization: Bearer {borrower.token}",
        )
        assert got == 200
        assert f'"transaction_id":"{dots}"'.encode() in body


async def test_the_edge_s_own_refusals_are_problems_too(world):
    for lines in (
        ("GET /livez HTTP/1.1", "Host: x", "X: " + "y" * 9_000),
        ("GET /livez HTTP/9.9", "Host: x"),
        ("GET /livez HTTP/1.1", "Host: x", "Content-Length: -1"),
        ("POST /api/login/ HTTP/1.1", "Host: x", "Content-Length: 2", "Content-Length: 3"),
        ("POST /api/login/ HTTP/1.1", "Host: x", "Content-Length: 2", "Transfer-Encoding: chunked"),
        ("GET /livez HTTP/1.1", "Host: x", "Bad Header: y"),
    ):
        status, headers, body = await raw(world, *lines)
        assert status == 400, lines
        assert headers["content-type"] == "application/problem+json"
        assert REQUEST_ID.fullmatch(headers["x-request-id"])
        assert b"/problems/malformed" in body
    status, _, body = await raw(
        world, "POST /api/login/ HTTP/1.1", "Host: x", "Expect: 200-ok", "Content-Length: 2"
    )
    assert (status, b"/problems/expectation-failed" in body) == (417, True)


async def test_a_body_is_asked_for_only_from_whom_it_is_taken(world, borrower):
    lines = (
        "POST /api/make-payment/ HTTP/1.1",
        "Host: x",
        "Expect: 100-continue",
        "Content-Type: application/json",
        "Content-Length: 2",
    )
    status, _, body = await raw(world, *lines)
    assert (status, b"/problems/unauthorized" in body) == (401, True)
    authorized = f"Authorization: Bearer {borrower.token}"
    reader, writer = await asyncio.open_connection("127.0.0.1", world.client.port)
    writer.write("\r\n".join([*lines, authorized, "Connection: close", "", ""]).encode())
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{}")
    assert parsed(await one_answer(reader))[0] == 422
    writer.close()
    await writer.wait_closed()


# Request ids --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", ["a", "A-z0.9_", "z" * 64])
def test_a_good_request_id_is_kept(sent):
    assert request_id_chooser(random.Random(1).getrandbits)(sent) == sent


@pytest.mark.parametrize("sent", [None, "", "z" * 65, "a b", "é", "١", "a\n", "a:b"])
def test_any_other_makes_a_new_one(sent):
    choose = request_id_chooser(random.Random(1).getrandbits)
    made = {choose(sent) for _ in range(100)}
    assert len(made) == 100
    assert all(map(REQUEST_ID.fullmatch, made))
