"""Paying a loan as its borrower, and the receipt.

The form bears a transaction_id of its own from the moment it is shown: sent twice, by a double click or a
reload, it counts once.
"""

from __future__ import annotations

from ledgerd.domain.money import rupees
from ledgerd.http import loans, payloads, payments, present
from ledgerd.http.console.forms import NOT_REFUSED, Refused, body_of, refused
from ledgerd.http.console.visit import Answer, Form, Inner, Page, Redirect, Visit
from ledgerd.http.problems import Problem
from ledgerd.ids import format_id


class PayForm(Form):
    """A payment. `choice` is an amount that was offered, or "other" for the one in `amount`."""

    transaction_id: str
    choice: str = "other"
    amount: str = ""


async def show_pay(visit: Visit) -> Answer:
    """GET /console/loans/{loan_id}/pay/"""
    return await _form(visit, _new_id(visit))


async def pay(visit: Visit) -> Answer:
    """POST /console/loans/{loan_id}/pay/"""
    form: PayForm = visit.form
    amount = (form.amount if form.choice == "other" else form.choice).strip()
    loan_id = visit.path["loan_id"]
    try:
        body = body_of(
            payloads.MakePayment, loan_id=loan_id, amount=amount, transaction_id=form.transaction_id
        )
        await payments.make_payment(visit.services, Inner(visit.caller, body))
    except Problem as problem:
        if problem.slug == "loan-not-found":
            raise
        if problem.slug == "transaction-id-conflict":
            used = Refused("This form has paid already. Sent once more, it pays once more.", {}, 409)
            return await _form(visit, _new_id(visit), form.amount, used)
        return await _form(visit, form.transaction_id, form.amount, refused(problem))
    return Redirect(f"/console/payments/{form.transaction_id}/")


async def show_receipt(visit: Visit) -> Answer:
    """GET /console/payments/{transaction_id}/"""
    receipt = (await payments.get_payment(visit.services, Inner(visit.caller, path=visit.path))).body
    assert isinstance(receipt, payloads.Receipt)
    return Page("receipt.html", {"receipt": receipt})


def _new_id(visit: Visit) -> str:
    return f"console-{format_id(visit.services.ids.new())}"


async def _form(visit: Visit, transaction_id: str, amount: str = "", refusal: Refused = NOT_REFUSED) -> Page:
    view = await loans.view(visit.services, Inner(visit.caller), visit.path["loan_id"])
    loan = present.loan_shown(view)
    unpaid_paise = sum(due.amount_paise for due in view.loan.unpaid_dues())
    values = {
        "loan": loan,
        "due": rupees(unpaid_paise) if unpaid_paise else None,
        "transaction_id": transaction_id,
        "amount": amount,
        "refusal": refusal,
    }
    return Page("pay.html", values, refusal.status if refusal.text else 200)
