from __future__ import annotations

import re

import pytest

from ledgerd.http.console.routes import PAGES
from tests.http.console.visitor import Visitor, borrower_visitor, ops_visitor


def address_of(route) -> str:
    return re.sub(r"\{\w+\}", "0123456789abcdef", route.path)


def test_each_page_stands_once_and_each_form_is_posted():
    assert len({(page.method, page.path) for page in PAGES}) == len(PAGES)
    for page in PAGES:
        assert (page.form is not None) == (page.method == "POST"), page.path
        assert page.path.startswith("/console/")


@pytest.mark.parametrize("route", PAGES, ids=lambda route: f"{route.method} {route.path}")
async def test_who_may_see_it(world, borrower, route):
    """Nobody is sent to the login; who may not see it is told that there is none; others get further."""
    fields = None if route.form is None else {}
    if route.who == "anyone":
        answer = await Visitor(world).ask(route.method, address_of(route), fields)
        assert answer.status in {200, 422}
        return
    answer = await Visitor(world).ask(route.method, address_of(route), fields)
    assert answer.status == 303
    assert answer.headers["Location"].startswith("/console/login")
    for who, visitor in (
        ("borrower", await borrower_visitor(world, borrower)),
        ("ops", await ops_visitor(world)),
    ):
        answer = await visitor.ask(route.method, address_of(route), fields)
        if route.who not in {"member", who}:
            assert answer.status == 404
            assert "not for this login" in answer.text
        else:
            assert "not for this login" not in answer.text
            assert answer.status in {200, 303, 400, 404, 422}
