from __future__ import annotations

from tests.http.console.visitor import borrower_visitor, ops_visitor


async def test_a_client_of_ops_comes_in_by_its_secret(world):
    visitor = await ops_visitor(world)
    page = await visitor.get("/console/")
    assert page.html.h1.text == "The book"
    assert "Log out" in page.text


async def test_a_borrower_comes_in_by_email(world, borrower):
    visitor = await borrower_visitor(world, borrower)
    assert (await visitor.get("/console/")).html.h1.text == "My loans"
