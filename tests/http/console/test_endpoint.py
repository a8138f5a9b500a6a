from __future__ import annotations

import pytest

from ledgerd.config import Console
from tests.http.console.visitor import Visitor, borrower_visitor, ops_visitor
from tests.http.outside import ALWAYS, PASSWORD

FORM = {"who": "nobody@example.com", "secret": "wrong"}


async def test_pages_bear_a_strict_policy(world, borrower):
    for page in (
        await Visitor(world).get("/console/login"),
        await (await borrower_visitor(world, borrower)).get("/console/"),
    ):
        headers = page.headers
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["Referrer-Policy"] == "same-origin"
        assert [headers[name] for name in ALWAYS] == list(ALWAYS.values())
        assert headers["X-Request-ID"]


async def test_every_file_that_a_page_names_is_there(world):
    html = (await Visitor(world).get("/console/login")).html
    named = [tag["src"] for tag in html.select("script[src]")] + [
        tag["href"] for tag in html.select("link[href]")
    ]
    assert len(named) == 6
    for address in named:
        assert (await Visitor(world).get(address)).status == 200


async def test_nobody_is_sent_to_the_login(world):
    answer = await Visitor(world).ask("GET", "/console/loans/x/?a=b")
    assert (answer.status, answer.body) == (303, b"")
    assert answer.headers["Location"] == "/console/login?next=%2Fconsole%2Floans%2Fx%2F%3Fa%3Db"
    assert (await Visitor(world).ask("GET", "/console/")).headers["Location"] == "/console/login"
    assert (await Visitor(world).ask("POST", "/console/logout", {})).headers["Location"] == "/console/login"


async def test_a_part_of_a_page_sends_the_whole_page_there(world):
    answer = await Visitor(world).ask("GET", "/console/", None, **{"HX-Request": "true"})
    assert answer.status == 401
    assert answer.headers["HX-Redirect"] == "/console/login"
    assert answer.body == b""


async def test_a_problem_is_a_page(world, borrower):
    visitor = await borrower_visitor(world, borrower)
    page = await visitor.get("/console/loans/0123456789abcdef/")
    assert page.status == 404
    assert page.html.h1.text == "Loan not found"
    assert page.headers["X-Request-ID"] in page.text


async def test_a_page_that_can_not_be_made_is_a_problem_s_page(world, borrower, monkeypatch):
    world.errors_allowed = True
    visitor = await borrower_visitor(world, borrower)

    def unreadable(_user):
        return object()

    monkeypatch.setattr("ledgerd.http.people.user_shown", unreadable)
    page = await visitor.get("/console/")
    assert page.status == 500
    assert page.headers["X-Request-ID"] in page.text
    assert "internal error" in world.log.getvalue()


async def test_an_unknown_page_is_not_found(world):
    assert (await world.get("/console/nothing/")).status == 404
    assert (await world.post("/console/", {})).status == 405


@pytest.mark.parametrize("csrf", [None, "", "x" * 43])
async def test_a_form_without_its_token_does_nothing(world, borrower, csrf):
    visitor = await borrower_visitor(world, borrower)
    answer = await visitor.ask("POST", "/console/logout", {} if csrf is None else {"csrf": csrf})
    assert answer.status == 400
    assert (await visitor.get("/console/")).html.h1.text == "My loans"


async def test_the_token_of_another_session_does_nothing(world, borrower):
    visitor, other = await borrower_visitor(world, borrower), await ops_visitor(world)
    theirs = (await other.get("/console/")).form("/console/logout").select_one("[name=csrf]")["value"]
    assert (await visitor.ask("POST", "/console/logout", {"csrf": theirs})).status == 400


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 400),
        ({"Sec-Fetch-Site": "same-site"}, 400),
        ({"Sec-Fetch-Site": "none"}, 400),
        ({"Origin": "https://evil.example"}, 400),
        ({"Origin": "null"}, 400),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://ledger.example"}, 401),
        ({}, 401),
    ],
)
async def test_a_form_of_another_site_does_nothing(world, headers, status):
    assert (await Visitor(world).ask("POST", "/console/login", FORM, **headers)).status == status


async def test_a_form_is_a_form(world):
    visitor = Visitor(world)
    assert (await visitor.ask("POST", "/console/login", FORM, **{"Content-Type": "text/plain"})).status == 415
    assert (await visitor.ask("POST", "/console/login", {**FORM, "more": "x"})).status == 422
    assert (await visitor.ask("POST", "/console/login", {"who": "x"})).status == 422
    assert (await visitor.ask("POST", "/console/login", {"who": "x" * 20_000, "secret": ""})).status == 413
    assert (await visitor.ask("GET", "/console/login?next=a&next=b")).status == 422


async def test_an_unused_session_ends(open_world):
    async with open_world(console=Console(session_idle_s=60)) as world:
        borrower = await world.borrower()
        visitor = await borrower_visitor(world, borrower)
        world.time.now_s += 59
        assert (await visitor.ask("GET", "/console/")).status == 200
        world.time.now_s += 60
        assert (await visitor.ask("GET", "/console/")).status == 303


async def test_a_stopping_service_says_so(world, borrower):
    visitor = await borrower_visitor(world, borrower)
    world.service.services.draining = True
    answer = await visitor.ask("GET", "/console/")
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "1"
    assert "stopping" in answer.text


async def test_heads_are_answered_like_pages(world):
    answer = await Visitor(world).ask("HEAD", "/console/login")
    assert (answer.status, answer.body) == (200, b"")


async def test_what_is_typed_stands_in_no_log(world, borrower):
    visitor = Visitor(world)
    await visitor.log_in(borrower.email, PASSWORD)
    await visitor.get("/console/loans/secret-text/")
    world.access.flush()
    text = world.log.getvalue()
    assert "secret-text" not in text
    assert borrower.email not in text
    assert "/console/loans/{loan_id}/" in text
