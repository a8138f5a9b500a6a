from __future__ import annotations

from tests.http.console.visitor import borrower_visitor, ops_visitor


async def test_each_has_a_start_page_of_their_own(world, borrower):
    assert (await (await ops_visitor(world)).get("/console/")).html.h1.text == "The book"
    assert (await (await borrower_visitor(world, borrower)).get("/console/")).html.h1.text == "My loans"


async def test_a_borrower_without_loans_is_led_to_one(world, borrower):
    page = await (await borrower_visitor(world, borrower)).get("/console/")
    assert "You have no loan yet." in page.text
    assert not page.html.table
    assert "Credit score 300." in page.text
    assert borrower.identity not in page.text
    assert page.html.select('main a[href="/console/apply/"]')


async def test_own_loans_are_listed_as_they_stand(world, borrower, loan):
    second = (await world.lend(borrower, "1000", tenure=1))["loan_id"]
    await world.lend(await world.borrower())
    await world.advance(46)
    payoff = (await world.loan(world.ops, second))["payoff"]
    await world.pay(borrower, second, payoff)
    page = await (await borrower_visitor(world, borrower)).get("/console/")
    [first, closed] = page.table("Loans")
    shown = await world.loan(world.ops, loan)
    assert first[0] == loan
    assert first[1] == "past due"
    assert first[2].replace(",", "") == shown["outstanding"]["total"]
    assert first[3:6] == ["207.00", shown["next_due"]["amount_due"], "15 Feb 2026"]
    assert first[6:] == ["1 Jan 2026", "5,000.00"]
    assert closed[0] == second
    assert closed[1:6] == ["closed", "0.00", "0.00", "nothing", ""]
    assert page.html.select(f'a[href="/console/loans/{loan}/"]')


async def test_many_loans_are_paged(world, borrower, monkeypatch):
    monkeypatch.setattr("ledgerd.http.console.home.LOANS_A_PAGE", 2)
    lent = [(await world.lend(borrower, "10"))["loan_id"] for _ in range(3)]
    visitor = await borrower_visitor(world, borrower)
    page = await visitor.get("/console/")
    [more] = [link["href"] for link in page.html.select("main a") if link.text == "More loans"]
    rest = await visitor.get(f"/console/{more}")
    assert [row[0] for row in page.table("Loans") + rest.table("Loans")] == lent
    assert (await visitor.get("/console/?cursor=x")).status == 422
