from __future__ import annotations

from tests.http.console.visitor import borrower_visitor, ops_visitor


async def test_both_see_a_loan_and_no_other_borrower_does(world, borrower, loan):
    for visitor in (await ops_visitor(world), await borrower_visitor(world, borrower)):
        page = await visitor.get(f"/console/loans/{loan}/")
        assert page.status == 200
        assert loan in page.html.h1.text
    stranger = await borrower_visitor(world, await world.borrower())
    assert (await stranger.get(f"/console/loans/{loan}/")).status == 404
