"""Applying for a loan as a borrower. The form bears an Idempotency-Key: sent twice, it lends once."""

from __future__ import annotations

from ledgerd.domain.money import rupees
from ledgerd.http import loans, payloads, people, people_payloads
from ledgerd.http.console.forms import NOT_REFUSED, Refused, body_of, refused
from ledgerd.http.console.visit import Answer, Form, Inner, Page, Redirect, Visit
from ledgerd.http.problems import Problem
from ledgerd.ids import format_id


class ApplyForm(Form):
    """An application, as text."""

    key: str
    amount: str
    interest_rate: str
    tenure: str
    repayment_plan: str = "min_due"


async def show_apply(visit: Visit) -> Answer:
    """GET /console/apply/"""
    return await _page(visit, ApplyForm(key=_new_key(visit), amount="", interest_rate="", tenure=""))


async def apply(visit: Visit) -> Answer:
    """POST /console/apply/"""
    form: ApplyForm = visit.form
    tenure = form.tenure.strip()
    if not (tenure.isascii() and tenure.isdigit() and len(tenure) <= 4):
        refusal = Refused("Some fields are not valid.", {"tenure": "must be a whole number"})
        return await _page(visit, form, refusal)
    try:
        body = body_of(
            payloads.ApplyLoan,
            amount=form.amount.strip(),
            interest_rate=form.interest_rate.strip(),
            tenure=int(tenure),
            repayment_plan=form.repayment_plan,
        )
        call = Inner(visit.caller, body, headers={"Idempotency-Key": form.key})
        lent = (await loans.apply_loan(visit.services, call)).body
    except Problem as problem:
        if problem.slug == "idempotency-key-conflict":
            form.key = _new_key(visit)
            used = Refused("This form has lent already. Sent once more, it asks for another loan.", {}, 409)
            return await _page(visit, form, used)
        return await _page(visit, form, refused(problem), problem.extras.get("reasons", ()))
    assert isinstance(lent, payloads.NewLoan)
    return Redirect(f"/console/loans/{lent.loan_id}/")


def _new_key(visit: Visit) -> str:
    return f"console-{format_id(visit.services.ids.new())}"


async def _page(visit: Visit, form: ApplyForm, refusal: Refused = NOT_REFUSED, reasons: object = ()) -> Page:
    user = (await people.me(visit.services, Inner(visit.caller))).body
    assert isinstance(user, people_payloads.UserShown)
    lending = visit.services.config.lending
    values = {
        "user": user,
        "form": form,
        "refusal": refusal,
        "reasons": reasons,
        "lending": lending,
        "max_amount": rupees(lending.max_amount_paise),
        "min_annual_income": rupees(lending.min_annual_income_paise),
    }
    return Page("apply.html", values, refusal.status if refusal.text else 200)
