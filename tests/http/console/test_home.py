from __future__ import annotations

from tests.http.console.visitor import borrower_visitor, ops_visitor


async def test_each_has_a_start_page_of_their_own(world, borrower):
    assert (await (await ops_visitor(world)).get("/console/")).html.h1.text == "The book"
    assert (await (await borrower_visitor(world, borrower)).get("/console/")).html.h1.text == "My loans"
