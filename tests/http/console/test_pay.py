from __future__ import annotations

import asyncio

import pytest

from tests.http.console.visitor import Seen, Visitor, borrower_visitor


async def form_of(world, borrower, loan) -> tuple[Visitor, Seen, str]:
    """Somebody at the form of a loan, and where it goes."""
    visitor = await borrower_visitor(world, borrower)
    action = f"/console/loans/{loan}/pay/"
    return visitor, await visitor.get(action), action


async def test_what_is_due_is_offered_and_paid(world, borrower, loan):
    await world.advance(30)
    visitor, page, action = await form_of(world, borrower, loan)
    offered = [one["value"] for one in page.form(action).select("[name=choice]")]
    assert offered == ["207.00", "5057.00", "other"]
    receipt = await visitor.submit(page, action)
    assert receipt.html.h1.text == "207.00 paid"
    assert receipt.table("Where it went") == [
        ["Bill 1, due by 15 Feb 2026", "57.00", "150.00"],
        ["Together", "57.00", "150.00"],
    ]
    assert receipt.figure("Then outstanding").startswith("4,850.00")
    assert receipt.figure("Next due") == "200.79 by 17 Mar 2026"
    assert (await world.loan(world.ops, loan))["principal_received"] == "150.00"


async def test_another_amount_is_paid_ahead_of_time(world, borrower, loan):
    visitor, page, action = await form_of(world, borrower, loan)
    assert [one["value"] for one in page.form(action).select("[name=choice]")] == ["5000.00", "other"]
    receipt = await visitor.submit(page, action, amount=" 12.5 ")
    assert receipt.html.h1.text == "12.50 paid"
    assert receipt.table("Where it went")[0][0].startswith("Beyond the bills")


async def test_the_payoff_closes_the_loan(world, borrower, loan):
    visitor, page, action = await form_of(world, borrower, loan)
    receipt = await visitor.submit(page, action, choice="5000.00")
    assert receipt.figure("Next due") == "nothing the loan is paid off"
    page = await visitor.get(action)
    assert page.html.h1.text == "Paid off"
    assert not page.html.select(f'form[action="{action}"]')
    page = await visitor.get(f"/console/loans/{loan}/")
    assert not page.html.select(f'a[href="{action}"]')


async def test_a_form_sent_twice_counts_once(world, borrower, loan):
    visitor, page, action = await form_of(world, borrower, loan)
    first, second = await asyncio.gather(*(visitor.submit(page, action, amount="10") for _ in range(2)))
    assert first.status == second.status == 200
    assert first.address == second.address
    assert (await world.loan(world.ops, loan))["principal_received"] == "10.00"
    again = await visitor.submit(page, action, amount="10")
    assert again.html.h1.text == "10.00 paid"
    assert (await world.loan(world.ops, loan))["principal_received"] == "10.00"


async def test_a_used_form_with_another_amount_says_so_and_then_pays(world, borrower, loan):
    visitor, page, action = await form_of(world, borrower, loan)
    await visitor.submit(page, action, amount="10")
    refused = await visitor.submit(page, action, amount="11")
    assert refused.status == 409
    assert "has paid already" in refused.html.select_one("[role=alert]").text
    assert (await world.loan(world.ops, loan))["principal_received"] == "10.00"
    receipt = await visitor.submit(refused, action, amount="11")
    assert receipt.html.h1.text == "11.00 paid"
    assert (await world.loan(world.ops, loan))["principal_received"] == "21.00"


@pytest.mark.parametrize(
    ("amount", "says"),
    [
        ("", "digits"),
        ("0", "more than"),
        ("-1", "digits"),
        ("1,000", "digits"),
        ("1.234", "digits"),
        ("99999", "The payoff is 5000.00 today: pay at most that."),
    ],
)
async def test_a_refusal_stands_in_the_form_and_nothing_is_done(world, borrower, loan, amount, says):
    visitor, page, action = await form_of(world, borrower, loan)
    head = await world.head()
    refused = await visitor.submit(page, action, amount=amount)
    assert refused.status == 422
    assert says in refused.html.select_one("[role=alert]").text
    field = refused.html.select_one("#amount")
    assert (field["value"], field["aria-invalid"]) == (amount, "true")
    assert await world.head() == head


async def test_nobody_pays_another_one_s_loan_or_sees_their_receipt(world, borrower, loan):
    visitor, page, action = await form_of(world, borrower, loan)
    receipt = await visitor.submit(page, action, amount="10")
    head = await world.head()
    stranger = await borrower_visitor(world, await world.borrower())
    assert (await stranger.get(action)).status == 404
    csrf = (await stranger.get("/console/")).form("/console/logout").select_one("[name=csrf]")["value"]
    fields = {"csrf": csrf, "transaction_id": "t", "amount": "1"}
    assert (await stranger.ask("POST", action, fields)).status == 404
    assert (await stranger.get(receipt.address)).status == 404
    assert await world.head() == head


async def test_without_the_token_nothing_is_paid(world, borrower, loan):
    visitor, _, action = await form_of(world, borrower, loan)
    head = await world.head()
    answer = await visitor.ask("POST", action, {"transaction_id": "t", "amount": "1"})
    assert answer.status == 400
    assert await world.head() == head


async def test_a_transaction_id_of_other_signs_is_refused(world, borrower, loan):
    visitor, page, action = await form_of(world, borrower, loan)
    refused = await visitor.submit(page, action, amount="1", transaction_id="a/b")
    assert refused.status == 422
