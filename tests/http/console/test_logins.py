from __future__ import annotations

import pytest

from ledgerd.config import Auth
from tests.http.console.visitor import Visitor, borrower_visitor, ops_visitor
from tests.http.outside import PASSWORD

COOKIE = "ledgerd-console"


async def test_a_client_of_ops_comes_in_by_its_secret(world):
    visitor = await ops_visitor(world)
    page = await visitor.get("/console/")
    assert page.status == 200
    assert page.html.h1.text == "The book"
    assert f"client {world.ops.id}" in page.text


@pytest.mark.parametrize("name", ["email", "identity"])
async def test_a_borrower_comes_in_by_email_or_identity(world, borrower, name):
    visitor = Visitor(world)
    page = await visitor.log_in(getattr(borrower, name), PASSWORD)
    assert page.status == 200
    assert page.html.h1.text == "My loans"
    assert "Borrower 1" in page.text
    assert borrower.identity not in page.text


async def test_a_client_that_only_pays_does_not_come_in(world):
    page = await Visitor(world).log_in(world.payer.id, world.payer.secret)
    assert page.status == 401
    assert "has not the scope ops" in page.text


@pytest.mark.parametrize("who", ["0123456789abcdef", "nobody@example.com", "nobody", "ops", ""])
async def test_what_is_wrong_is_told_alike(world, borrower, who):
    visitor = Visitor(world)
    page = await visitor.log_in(who or borrower.email, "wrong")
    assert page.status == 401
    assert page.html.select_one("[role=alert]").text == "The credentials are not right."
    assert visitor.cookies == {}


async def test_a_wrong_login_keeps_who_and_not_the_secret(world, borrower):
    page = await Visitor(world).log_in(borrower.email, "wrong")
    assert page.html.select_one("#who")["value"] == borrower.email
    assert not page.html.select_one("#secret").get("value")


async def test_guessing_is_slowed_down_as_for_the_api(open_world, tmp_path):
    async with open_world(auth=Auth(keys_dir=str(tmp_path / "keys"), login_failures=2)) as world:
        borrower = await world.borrower()
        pages = [await Visitor(world).log_in(borrower.email, "wrong") for _ in range(4)]
        assert [page.status for page in pages] == [401, 401, 429, 429]
        assert int(pages[-1].headers["Retry-After"]) >= 1
        assert (await Visitor(world).log_in(borrower.email, PASSWORD)).status == 429


async def test_the_cookie_is_for_this_site_alone_and_no_script(world, borrower):
    visitor = Visitor(world)
    form = {"who": borrower.email, "secret": PASSWORD}
    answer = await visitor.ask("POST", "/console/login", form)
    assert answer.status == 303
    parts = answer.headers["Set-Cookie"].split("; ")
    assert parts[0].startswith(f"{COOKIE}=")
    assert parts[1:] == ["Path=/console", "Max-Age=43200", "HttpOnly", "SameSite=Lax"]


async def test_it_is_secure_where_the_browser_came_by_https(world, borrower):
    form = {"who": borrower.email, "secret": PASSWORD}
    here = f"https://{world.client.host}:{world.client.port}"
    answer = await Visitor(world).ask("POST", "/console/login", form, Origin=here)
    assert answer.headers["Set-Cookie"].endswith("; Secure")


async def test_one_returns_to_the_page_that_was_asked_for(world, borrower, loan):
    visitor = Visitor(world)
    address = f"/console/loans/{loan}/"
    login = await visitor.get(address)
    assert login.html.h1.text == "Log in"
    page = await visitor.submit(login, "/console/login", who=borrower.email, secret=PASSWORD)
    assert page.address.endswith(address)
    assert page.status == 200


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.example/console/",
        "//evil.example/console/",
        "/\\evil.example/console/",
        "/console/\\..",
        "/docs",
        "javascript:alert(1)",
        "/console/\r\nSet-Cookie: a=b",
        "console/",
    ],
)
async def test_and_never_to_another_site(world, borrower, elsewhere):
    form = {"who": borrower.email, "secret": PASSWORD, "next": elsewhere}
    answer = await Visitor(world).ask("POST", "/console/login", form)
    assert answer.headers["Location"] == "/console/"


async def test_who_is_logged_in_is_not_asked_again(world, borrower):
    visitor = await borrower_visitor(world, borrower)
    assert (await visitor.ask("GET", "/console/login")).headers["Location"] == "/console/"


async def test_logging_in_anew_ends_the_session_before(world, borrower):
    visitor = await borrower_visitor(world, borrower)
    before = dict(visitor.cookies)
    form = {"who": world.ops.id, "secret": world.ops.secret}
    session = world.service.services.sessions.find(before[COOKIE])
    answer = await visitor.ask("POST", "/console/login", {**form, "csrf": session.csrf})
    assert answer.status == 303
    assert visitor.cookies != before
    assert world.service.services.sessions.find(before[COOKIE]) is None


async def test_logging_out_ends_the_session_at_once(world, borrower):
    visitor = await borrower_visitor(world, borrower)
    copied = Visitor(world, dict(visitor.cookies))
    page = await visitor.submit(await visitor.get("/console/"), "/console/logout")
    assert page.html.h1.text == "Log in"
    assert visitor.cookies == {}
    assert (await copied.ask("GET", "/console/")).headers["Location"] == "/console/login"


async def test_fields_have_a_length(world):
    form = {"who": "x" * 257, "secret": "y"}
    assert (await Visitor(world).ask("POST", "/console/login", form)).status == 422


async def test_an_identity_that_looks_like_a_client_s_id_is_a_borrower_s(world):
    borrower = await world.borrower(aadhar_id="0123456789abcdef")
    page = await Visitor(world).log_in(borrower.identity, PASSWORD)
    assert page.html.h1.text == "My loans"
