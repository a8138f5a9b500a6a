"""The steps of the demo, in the order in which they are walked; each relies on what those before it left.

A step's docstring is its heading. Used by the walk in this package's __init__.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

from ledgerd.control import run_command
from ledgerd.demo.stage import PATIENCE_S, PEOPLE, POLL_S, Stage, expect

AADHAAR: Final = "234567890124"
BALANCE_PAISE: Final = 568_450_00
EMAIL: Final = "asha@example.in"
PASSWORD: Final = "a long passphrase"  # noqa: S105 - of a borrower who is made up
CLIENTS: Final = {"bank": "payments:write", "ops": "ops"}
PAY: Final = "/api/make-payment/"
ADVANCE: Final = "/api/sandbox/advance-clock/"


# Coming in ---------------------------------------------------------------------------------------


async def register(stage: Stage) -> None:
    """Asha registers, and logs in"""
    await stage.call(
        201,
        "POST",
        "/api/register-user/",
        {
            "name": "Asha Rao",
            "email": EMAIL,
            "aadhar_id": AADHAAR,
            "annual_income": "300000.00",
            "password": PASSWORD,
        },
        figures={"aadhar_id": "XXXX XXXX 0124", "credit_score": None, "score_status": "pending"},
        why="The number is checked, sealed in the vault, and never shown whole again.",
    )
    login = await stage.call(
        200,
        "POST",
        "/api/login/",
        {"email": EMAIL, "password": PASSWORD},
        figures={"token_type": "Bearer", "expires_in": 86400},
    )
    stage.tokens["asha"] = login["access_token"]


async def score(stage: Stage) -> None:
    """She is scored from the bank history"""
    async with asyncio.timeout(PATIENCE_S):
        scored = False
        while not scored:
            await asyncio.sleep(POLL_S)
            _, _, user = await stage.send("GET", "/api/me/", caller="asha")
            scored = user["score_status"] == "scored"
    await stage.call(
        200,
        "GET",
        "/api/me/",
        caller="asha",
        figures={"credit_score": 670, "score_status": "scored"},
        why=f"bank-history.csv holds {PEOPLE + 1:,} people. Hers comes to 568,450.00: 300, and 10 for each of"
        " the 37 full steps of 15,000.00 above 10,000.00.",
    )


async def make_clients(stage: Stage) -> None:
    """Two machines get a login of their own"""
    for name, scope in CLIENTS.items():
        stage.command(f"ledgerd client create {name} --scope {scope}")
        wanted = {"name": name, "scopes": [scope]}
        made = await run_command(stage.sandbox.config, "create_client", wanted, lambda *_: None)
        stage.credentials[name] = made
        credentials = {key: made[key] for key in ("client_id", "client_secret")}
        grant = await stage.call(
            200,
            "POST",
            "/api/token/",
            {"grant_type": "client_credentials", **credentials},
            figures={"token_type": "Bearer"},
        )
        stage.tokens[name] = grant["access_token"]
    stage.note("The bank posts payments; ops bills, looks at any loan, and moves the sandbox's date.")


async def apply(stage: Stage) -> None:
    """She borrows 5,000.00 at 14 % for twelve cycles of thirty days"""
    loan = await stage.call(
        201,
        "POST",
        "/api/apply-loan/",
        {"amount": "5000.00", "interest_rate": "14.00", "tenure": 12},
        caller="asha",
        headers={"Idempotency-Key": "first-loan"},
        figures={"loan_id": ..., "status": "active", "daily_rate": "0.038", "disbursed_on": "2026-01-01"},
        why="14 / 365 is 0.03835.. percent a day, rounded to 0.038. If each bill is paid on its date:",
    )
    stage.loan_id = loan["loan_id"]
    schedule = loan["emi_schedule"]
    expect("the number of instalments", len(schedule), 12)
    expect("the principal of all instalments", _sum(schedule, "principal"), 500_000)
    expect("the first instalment", schedule[0]["amount_due"], "207.00")
    columns = ("number", "date", "due_date", "interest", "principal", "amount_due")
    stage.table([*schedule[:3], {}, *schedule[-2:]], columns)
    stage.note("Each asks for the interest and 3 % of the balance; the last one for all that is left.")


# Bills and payments ------------------------------------------------------------------------------


async def first_bill(stage: Stage) -> None:
    """Thirty days pass: the first bill"""
    await advance(stage, 30, "2026-01-31")
    await look(
        stage,
        {
            "open_bills.0.interest": "57.00",
            "open_bills.0.principal": "150.00",
            "open_bills.0.amount_due": "207.00",
            "open_bills.0.due_date": "2026-02-15",
        },
        "57.00 is 30 days x 5,000.00 x 0.038 %; 150.00 is 3 % of 5,000.00. Due 15 days later.",
    )


async def pay_exactly(stage: Stage) -> None:
    """The bank posts exactly that"""
    await pay(
        stage,
        201,
        "207.00",
        "feb-1",
        {"interest": "57.00", "principal": "150.00", "outstanding.total": "4850.00", "replayed": False},
        "201 means that it is on disk. The bill's interest was cleared first, then its principal.",
    )


async def pay_late(stage: Stage) -> None:
    """Sixty days pass, nobody pays, then she pays late"""
    await advance(stage, 60, "2026-04-01")
    await look(
        stage,
        {
            "open_bills.0.amount_due": "200.79",
            "open_bills.1.amount_due": "200.79",
            "past_due": "200.79",
            "payoff": "4960.58",
        },
        "Bills 2 and 3 each ask for 55.29 + 145.50. Bill 2 was due on 2026-03-17, so it is past due. Nothing"
        " was charged on unpaid interest.",
    )
    await pay(
        stage,
        409,
        "200.79",
        "apr-1",
        {"unpaid_bills.0.number": 2, "unpaid_bills.0.amount_due": "200.79"},
        "for_bill is a guard: bill 3 can't be meant while bill 2 is unpaid. A refused payment uses no id up.",
        for_bill=3,
    )
    await pay(
        stage,
        201,
        "250.00",
        "apr-1",
        {
            "allocations.0.bill": 2,
            "allocations.0.principal": "145.50",
            "allocations.1.bill": 3,
            "allocations.1.interest": "49.21",
            "next_due.amount_due": "151.58",
        },
        "The oldest bill first: 200.79 clears bill 2, and the other 49.21 goes to the interest of bill 3.",
    )


async def pay_too_much(stage: Stage) -> None:
    """Too much is refused"""
    await pay(
        stage,
        422,
        "9999.00",
        "apr-2",
        {"payoff": "4710.58"},
        "The answer names what would close the loan today. Nothing was done.",
    )


# Duplicates and crashes ----------------------------------------------------------------------------


async def pay_twice(stage: Stage) -> None:
    """The bank sends its first payment again, and then with another amount"""
    await pay(
        stage,
        200,
        "207.00",
        "feb-1",
        {"paid_on": "2026-01-31", "outstanding.total": "4850.00", "replayed": True},
        "The first receipt once more, as it was on that day. The loan did not change.",
    )
    await pay(stage, 409, "207.01", "feb-1", {"type": "/problems/transaction-id-conflict"}, "")
    await look(stage, {"payoff": "4710.58"}, "")


async def pay_from_sixty_callers(stage: Stage) -> None:
    """Sixty callers at once, one transaction_id"""
    body = {"loan_id": stage.loan_id, "amount": "100.00", "transaction_id": "race-1"}
    stage.command(f"60 times at once: POST {PAY} {json.dumps(body)}")
    answers = await asyncio.gather(*(stage.send("POST", PAY, body, "bank") for _ in range(60)))
    statuses = Counter(status for status, _, _ in answers)
    receipts = {answer.get("payment_id") for _, _, answer in answers}
    stage.note(f"answers: {statuses[201]} x 201, {statuses[200]} x 200; payments made: {len(receipts)}")
    expect("the statuses of sixty callers", dict(statuses), {201: 1, 200: 59})
    expect("the number of different receipts", len(receipts), 1)
    await look(stage, {"payoff": "4610.58"}, "It counted once: 4,710.58 - 100.00.")


async def kill_and_restart(stage: Stage) -> None:
    """Service and store are killed, and started again on the same files"""
    path = f"/api/get-statement/?loan_id={stage.loan_id}"
    await stage.call(200, "GET", path, caller="asha", figures={"payoff": "4610.58", "past_due": "0.00"})
    _, _, before = await stage.send("GET", path, caller="asha")
    stage.command("kill -9 <service> <store>; ledgerd serve")
    await stage.restart()
    _, _, after = await stage.send("GET", path, caller="asha")
    expect("the statement after the restart", after, before)
    stage.note("The statement after is equal to the one before, in every figure. Her token works still.")
    await pay(
        stage, 200, "100.00", "race-1", {"replayed": True}, "Ids are remembered over restarts, for ever."
    )


# The end -------------------------------------------------------------------------------------------


async def pay_off(stage: Stage) -> None:
    """She pays off"""
    await advance(stage, 10, "2026-04-11")
    await look(
        stage,
        {"outstanding.principal": "4610.58", "outstanding.interest": "17.52", "payoff": "4628.10"},
        "10 days x 4,610.58 x 0.038 % is 17.520204: whole paise are asked for, the fraction is waived.",
    )
    await pay(
        stage,
        201,
        "4628.10",
        "payoff-1",
        {"loan_status": "closed", "outstanding.total": "0.00", "next_due": None},
        "",
    )
    await pay(stage, 200, "4628.10", "payoff-1", {"replayed": True}, "A retry still gets its receipt ..")
    await pay(stage, 409, "1.00", "more", {"type": "/problems/loan-closed"}, ".. but the loan takes no more.")


async def read_statement(stage: Stage) -> None:
    """Her statement, exact to the paisa"""
    path = f"/api/get-statement/?loan_id={stage.loan_id}"
    statement = await stage.call(
        200, "GET", path, caller="asha", figures={"status": "closed", "payoff": "0.00", "next_cursor": None}
    )
    bills, payments = statement["bills"], statement["past_transactions"]
    stage.table(
        bills, ("number", "billing_date", "due_date", "min_due", "past_due", "total_due", "paid", "status")
    )
    stage.table(payments, ("date", "transaction_id", "amount_paid", "interest", "principal"))
    expect("the bills' states", [bill["status"] for bill in bills], ["paid"] * 3)
    expect("all that was paid in, in paise", _sum(payments, "amount_paid"), 518_510)
    expect("all interest, in paise", _sum(payments, "interest"), 18_510)
    expect("all principal, in paise", _sum(payments, "principal"), 500_000)
    stage.note("Paid in 5,185.10 = 185.10 interest + 5,000.00 principal, all that was lent.")


async def verify(stage: Stage) -> None:
    """Everything is computed again from the journal, and compared"""
    stage.command("ledgerd verify")
    process = await stage.sandbox.run("verify")
    stdout, _ = await process.communicate()
    stage.note(stdout.decode().strip())
    expect("the exit code of verify", process.returncode, 0)


STEPS: Final[tuple[Callable[[Stage], Awaitable[None]], ...]] = (
    register,
    score,
    make_clients,
    apply,
    first_bill,
    pay_exactly,
    pay_late,
    pay_too_much,
    pay_twice,
    pay_from_sixty_callers,
    kill_and_restart,
    pay_off,
    read_statement,
    verify,
)


async def advance(stage: Stage, days: int, to: str) -> None:
    """Let days pass in the sandbox."""
    await stage.call(200, "POST", ADVANCE, {"days": days}, caller="ops", figures={"business_date": to})


async def look(stage: Stage, figures: dict[str, Any], why: str) -> None:
    """Look at the loan as it stands."""
    await stage.call(200, "GET", f"/api/loans/{stage.loan_id}/", caller="asha", figures=figures, why=why)


async def pay(
    stage: Stage,
    status: int,
    amount: str,
    transaction_id: str,
    figures: dict[str, Any],
    why: str,
    for_bill: int | None = None,
) -> None:
    """Have the bank post a payment."""
    body: dict[str, Any] = {"loan_id": stage.loan_id, "amount": amount, "transaction_id": transaction_id}
    if for_bill is not None:
        body["for_bill"] = for_bill
    await stage.call(status, "POST", PAY, body, caller="bank", figures=figures, why=why)


def _sum(rows: list[dict[str, Any]], name: str) -> int:
    """Add up rupee strings, in paise."""
    return sum(int(row[name].replace(".", "")) for row in rows)
