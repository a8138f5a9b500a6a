from __future__ import annotations

import asyncio

import pytest

from ledgerd.config import Lending
from tests.http.console.visitor import Seen, Visitor, borrower_visitor

ACTION = "/console/apply/"
GOOD = {"amount": "5000", "interest_rate": "14", "tenure": "12"}


async def form_of(world, borrower) -> tuple[Visitor, Seen]:
    visitor = await borrower_visitor(world, borrower)
    return visitor, await visitor.get(ACTION)


async def loans_of(world, borrower) -> int:
    return len((await world.get("/api/loans/", borrower)).json["loans"])


async def test_who_is_eligible_is_lent_to_at_once(world, borrower):
    visitor, page = await form_of(world, borrower)
    assert "5,000.00 at most" in page.text
    lent = await visitor.submit(page, ACTION, **GOOD, repayment_plan="equal_emi")
    assert lent.status == 200
    assert lent.figure("Outstanding principal") == "5,000.00"
    assert "equal instalments" in lent.text


async def test_a_form_sent_twice_lends_once(world, borrower):
    visitor, page = await form_of(world, borrower)
    pages = await asyncio.gather(*(visitor.submit(page, ACTION, **GOOD) for _ in range(3)))
    assert len({lent.address for lent in pages}) == 1
    assert await loans_of(world, borrower) == 1
    refused = await visitor.submit(page, ACTION, **{**GOOD, "amount": "4000"})
    assert refused.status == 409
    assert "has lent already" in refused.text
    assert await loans_of(world, borrower) == 1
    await visitor.submit(refused, ACTION)
    assert await loans_of(world, borrower) == 2


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("amount", "many"),
        ("amount", "0"),
        ("interest_rate", "101"),
        ("interest_rate", "x"),
        ("tenure", "0"),
        ("tenure", "1.5"),
        ("tenure", "999"),
        ("tenure", "12345"),
        ("repayment_plan", "none"),
    ],
)
async def test_what_is_not_right_is_told_beside_it(world, borrower, field, text):
    visitor, page = await form_of(world, borrower)
    refused = await visitor.submit(page, ACTION, **{**GOOD, field: text})
    assert refused.status == 422
    assert refused.html.select_one("[role=alert]")
    if field != "repayment_plan":
        shown = refused.html.select_one(f"#{field}")
        assert (shown["value"], shown["aria-invalid"]) == (text, "true")
        assert refused.html.select_one(f"#{shown['aria-describedby']}").text
    assert await loans_of(world, borrower) == 0


async def test_every_reason_against_it_is_told_in_words(open_world):
    lending = Lending(min_credit_score=450, min_annual_income="700000.00")
    async with open_world(lending=lending) as world:
        borrower = await world.borrower()
        visitor, page = await form_of(world, borrower)
        refused = await visitor.submit(page, ACTION, **{**GOOD, "amount": "6000"})
        assert refused.status == 422
        assert [reason.get_text(" ", strip=True) for reason in refused.html.select("[role=alert] li")] == [
            "Your credit score is 300; 450 is needed.",
            "Your annual income is 6,00,000.00; 7,00,000.00 is needed.",
            "You ask for 6,000.00; 5,000.00 is the most.",
        ]
        assert await loans_of(world, borrower) == 0
