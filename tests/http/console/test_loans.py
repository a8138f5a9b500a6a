from __future__ import annotations

from tests.http.console.visitor import ops_visitor


async def test_all_loans_are_listed_page_by_page(world, borrower, monkeypatch):
    monkeypatch.setattr("ledgerd.http.console.loans.LOANS_A_PAGE", 2)
    visitor = await ops_visitor(world)
    assert (await visitor.get("/console/loans/")).table("The oldest first") == [["There is no loan."]]
    other = await world.borrower()
    lent = [(await world.lend(who, "10"))["loan_id"] for who in (borrower, other, borrower)]
    page = await visitor.get("/console/loans/")
    [more] = [link["href"] for link in page.html.select("main a") if link.text == "More loans"]
    rest = await visitor.get(f"/console/loans/{more}")
    rows = page.table("The oldest first") + rest.table("The oldest first")
    assert [row[0] for row in rows] == lent
    assert rows[0][1:] == ["active", "10.00", "0.00", "0.41", "15 Feb 2026", "1 Jan 2026", "10.00"]
    assert (await visitor.get("/console/loans/?cursor=x")).status == 422


async def test_a_borrower_s_page_shows_who_it_is_and_what_they_owe(world, monkeypatch):
    borrower = await world.borrower(aadhar_id="identity-9876", name="Asha Rao")
    loan = (await world.lend(borrower))["loan_id"]
    await world.lend(await world.borrower())
    visitor = await ops_visitor(world)
    page = await visitor.get(f"/console/borrowers/{borrower.id}/")
    assert page.html.h1.text == "Asha Rao"
    assert page.figure("Annual income") == "6,00,000.00"
    assert page.figure("Credit score") == "300"
    assert "9876" in page.figure("Identity")
    assert "identity-9876" not in page.text
    assert [row[0] for row in page.table("Loans")] == [loan]
    monkeypatch.setattr("ledgerd.http.console.loans.LOANS_A_PAGE", 1)
    second = (await world.lend(borrower))["loan_id"]
    page = await visitor.get(f"/console/borrowers/{borrower.id}/?cursor={loan}")
    assert [row[0] for row in page.table("Loans")] == [second]


async def test_an_unknown_borrower_is_not_found(world, borrower):
    visitor = await ops_visitor(world)
    for user_id in ("0123456789abcdef", "x", world.ops.id):
        assert (await visitor.get(f"/console/borrowers/{user_id}/")).status == 404
    assert (await visitor.get(f"/console/borrowers/{borrower.id}/?cursor=x")).status == 422
