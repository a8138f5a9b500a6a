"""Payments over HTTP: receipts, refusals in their order, and ids that count once, however many send them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from datetime import timedelta
from urllib.parse import quote

import pytest

from ledgerd.config import Limits
from ledgerd.storage.room import Room
from tests.http.edge import next_turns
from tests.http.outside import Answer, on_disk
from tests.http.test_express import ORDINARY, payment

RECEIPT = {
    "payment_id", "transaction_id", "loan_id", "status", "paid_on", "recorded_at", "amount", "interest",
    "principal", "allocations", "outstanding", "loan_status", "next_due", "replayed",
}  # fmt: skip


def refused(answer: Answer, status: int, slug: str) -> bool:
    return (answer.status, answer.slug) == (status, slug)


# Receipts -----------------------------------------------------------------------------------------


async def test_the_contract_s_own_example(world, borrower, loan):
    await world.advance(29)
    answer = await world.pay(borrower, loan, "207.00", "rent:1._-Z")
    assert answer.status == 201
    receipt = answer.json
    assert set(receipt) == RECEIPT
    day = world.today.isoformat()
    assert receipt | {"payment_id": ""} == {
        "payment_id": "",
        "transaction_id": "rent:1._-Z",
        "loan_id": loan,
        "status": "applied",
        "paid_on": day,
        "recorded_at": "2027-01-15T08:00:00.000Z",
        "amount": "207.00",
        "interest": "55.10",
        "principal": "151.90",
        "allocations": [{"bill": None, "due_date": None, "interest": "55.10", "principal": "151.90"}],
        "outstanding": {"principal": "4848.10", "interest": "0.00", "total": "4848.10"},
        "loan_status": "active",
        "next_due": {
            "date": (world.today + timedelta(1)).isoformat(),
            "due_date": (world.today + timedelta(16)).isoformat(),
            "amount_due": "147.28",
        },
        "replayed": False,
    }
    await world.advance(1)
    [bill] = (await world.statement(borrower, loan))["bills"]
    assert (bill["interest"], bill["principal_due"], bill["min_due"]) == ("1.84", "145.44", "147.28")


async def test_a_payment_clears_bills_oldest_first(world, borrower, loan):
    await world.advance(65)
    bills = (await world.statement(borrower, loan))["bills"]
    assert [bill["min_due"] for bill in bills] == ["207.00", "207.00"]
    receipt = (await world.pay(world.payer, loan, "220.00", for_bill=1)).json
    assert receipt["allocations"] == [
        {"bill": 1, "due_date": bills[0]["due_date"], "interest": "57.00", "principal": "150.00"},
        {"bill": 2, "due_date": bills[1]["due_date"], "interest": "13.00", "principal": "0.00"},
    ]
    assert (receipt["interest"], receipt["principal"]) == ("70.00", "150.00")
    assert receipt["next_due"] == {
        "date": bills[1]["billing_date"],
        "due_date": bills[1]["due_date"],
        "amount_due": "194.00",
    }
    after = (await world.statement(borrower, loan))["bills"]
    assert [(bill["paid"], bill["status"]) for bill in after] == [("207.00", "paid"), ("13.00", "part_paid")]


async def test_the_same_amount_however_it_is_written(world, borrower, loan):
    first = await world.pay(borrower, loan, "207.00", "same")
    assert first.status == 201
    for amount in (207, 207.0, "207", "207.0", "207.00", "0207.00"):
        again = await world.pay(borrower, loan, amount, "same")
        assert (again.status, again.json["amount"]) == (200, "207.00"), amount


async def test_paying_off_closes_and_its_retry_gets_the_receipt(world, borrower, loan):
    await world.advance(47)
    payoff = (await world.loan(borrower, loan))["payoff"]
    closing = await world.pay(borrower, loan, payoff, "the last")
    assert closing.slug == "invalid-fields"  # a space is no letter of an id
    closing = await world.pay(borrower, loan, payoff, "the-last")
    assert closing.status == 201
    receipt = closing.json
    assert (receipt["loan_status"], receipt["next_due"]) == ("closed", None)
    assert receipt["outstanding"] == {"principal": "0.00", "interest": "0.00", "total": "0.00"}
    assert refused(await world.pay(borrower, loan, "0.01"), 409, "loan-closed")
    await world.advance(100)
    again = await world.pay(borrower, loan, payoff, "the-last")
    assert (again.status, again.headers["Idempotent-Replayed"]) == (200, "true")
    assert again.json == receipt | {"replayed": True}
    # The duplicate comes before the closed loan, also when it conflicts.
    assert refused(await world.pay(borrower, loan, "1.00", "the-last"), 409, "transaction-id-conflict")
    assert (await world.loan(borrower, loan))["payoff"] == "0.00"


async def test_paying_every_bill_closes_too(world, borrower):
    loan = (await world.lend(borrower, "100.00", "0", 2, repayment_plan="equal_emi"))["loan_id"]
    await world.advance(60)
    assert (await world.pay(borrower, loan, "50.00")).json["loan_status"] == "active"
    receipt = (await world.pay(borrower, loan, "50.00")).json
    assert (receipt["loan_status"], receipt["next_due"]) == ("closed", None)


# Refusals -----------------------------------------------------------------------------------------


async def test_refusals_come_in_their_order(world, borrower, loan):
    """One payment with everything wrong; each thing mended in turn shows the next refusal."""
    other = await world.borrower()
    body = {"loan_id": loan, "amount": "0", "transaction_id": "order", "for_bill": 9}

    async def send(who=other, **mended):
        body.update(mended)
        return await world.post("/api/make-payment/", body, who)

    await world.advance(90)
    before = await world.head()
    assert refused(await send("not a token"), 401, "unauthorized")
    assert refused(await send(world.ops), 403, "insufficient-scope")
    assert refused(await send(), 422, "invalid-fields")
    assert refused(await send(amount="999999.00"), 404, "loan-not-found")
    assert refused(await send(borrower), 422, "no-such-bill")
    past_due = await send(borrower, for_bill=3)
    assert refused(past_due, 409, "past-due-unpaid")
    bills = (await world.statement(borrower, loan))["bills"]
    assert past_due.json["unpaid_bills"] == [
        {"number": bill["number"], "due_date": bill["due_date"], "amount_due": bill["min_due"]}
        for bill in bills[:2]
    ]
    too_much = await send(borrower, for_bill=1)
    assert refused(too_much, 422, "amount-exceeds-payoff")
    payoff = (await world.loan(borrower, loan))["payoff"]
    assert too_much.json["payoff"] == payoff
    assert await world.head() == before, "a refusal writes nothing"
    # No refusal has used the id up, and for_bill does not change how money is split.
    paid = await send(borrower, amount=payoff)
    assert (paid.status, paid.json["loan_status"]) == (201, "closed")
    # Once closed: a new id is told so before its bill and amount are looked at, the old one is a duplicate.
    assert refused(await send(borrower, transaction_id="new", for_bill=77), 409, "loan-closed")
    assert refused(
        await send(borrower, amount="1.00", transaction_id="order"), 409, "transaction-id-conflict"
    )
    replay = await send(borrower, amount=payoff, for_bill=77)
    assert (replay.status, replay.json["replayed"]) == (200, True)
    # Somebody else's loan is not there, whatever id is sent.
    assert refused(await send(), 404, "loan-not-found")


async def test_an_amount_is_compared_with_today_s_payoff_to_the_paisa(world, borrower, loan):
    await world.advance(7)  # 5,000 x 0.038 % x 7 = 13.30
    over = await world.pay(borrower, loan, "5013.31")
    assert refused(over, 422, "amount-exceeds-payoff")
    assert over.json["payoff"] == "5013.30"
    assert "5013.30" in over.json["detail"]
    assert (await world.pay(borrower, loan, "5013.30")).json["loan_status"] == "closed"


async def test_for_bill_guards_and_nothing_else(world, borrower, loan):
    await world.advance(60)
    for bad in (0, -1, 10**30):
        assert (await world.pay(borrower, loan, "1.00", for_bill=bad)).paths == ["for_bill"]
    assert refused(await world.pay(borrower, loan, "1.00", for_bill=3), 422, "no-such-bill")
    assert refused(await world.pay(borrower, loan, "1.00", for_bill=2), 409, "past-due-unpaid")
    first = await world.pay(borrower, loan, "250.00", "guarded", for_bill=1)
    assert [part["bill"] for part in first.json["allocations"]] == [1, 2]
    assert (await world.pay(borrower, loan, "1.00", for_bill=2)).status == 201
    assert (
        await world.pay(borrower, loan, "1.00", for_bill=1)
    ).status == 201  # a paid one has none before it
    replay = await world.pay(borrower, loan, "250.00", "guarded", for_bill=2)
    assert (replay.status, replay.json["allocations"]) == (200, first.json["allocations"])


async def test_an_unknown_loan_looks_like_another_borrower_s(world, borrower, loan):
    other = await world.borrower()
    answers = [
        await world.pay(other, loan_id, "1.00", "mine")
        for loan_id in (loan, "0" * 16, "7" * 16, loan.upper() + "0", "' OR 1=1 --", "", loan[:-1], "é")
    ]
    assert {answer.status for answer in answers} == {404}
    assert len({str(answer.bare) for answer in answers}) == 1
    assert (await world.pay(other, "9" * 257, "1.00")).paths == ["loan_id"]
    assert (await world.pay(world.payer, "0" * 16, "1.00")).slug == "loan-not-found"


NO_IDS = (
    "x", "0", "' OR 1=1 --", "0000000000000001' --", "%", "1;DROP TABLE loans", "../../etc/passwd", "-1",
    "0x0000000000001", "F" * 16, "8" + "0" * 15, "0" * 15, "0" * 17, "０" * 16, "a" * 256, "9" * 6_000,
)  # fmt: skip


async def test_a_text_that_is_no_id_is_asked_of_nobody(world, loan, asked):
    """And one that is, whatever it says, is asked for as its number, in the same call."""
    await world.get("/api/loans/", world.ops)  # whatever was under way has ended
    asked.clear()
    for text in NO_IDS:
        paid = await world.pay(world.payer, text, "1.00")
        if len(text) > 256:
            assert (paid.status, paid.paths) == (422, ["loan_id"])
        else:
            assert refused(paid, 404, "loan-not-found")
        for path in (f"/api/loans/{quote(text, '')}/", f"/api/get-statement/?loan_id={quote(text, '')}"):
            assert refused(await world.get(path, world.ops), 404, "loan-not-found"), text
        assert refused(await world.get(f"/api/billing-runs/{quote(text, '')}/", world.ops), 404, "not-found")
        assert asked == [], text
    for number in (1, 0xABC, 2**63 - 1):
        asked.clear()
        assert refused(await world.pay(world.payer, f"{number:016x}", "1.00"), 404, "loan-not-found")
        assert asked == [("load", [number])]


# Once ---------------------------------------------------------------------------------------------


async def test_sixty_identical_payments_at_once_count_once(world, borrower, loan):
    answers = await asyncio.gather(*(world.pay(borrower, loan, "207.00", "sixty") for _ in range(60)))
    assert Counter(answer.status for answer in answers) == {201: 1, 200: 59}
    [first] = [answer for answer in answers if answer.status == 201]
    assert first.json["replayed"] is False
    assert "Idempotent-Replayed" not in first.headers
    replays = [answer for answer in answers if answer.status == 200]
    assert {answer.headers["Idempotent-Replayed"] for answer in replays} == {"true"}
    assert {answer.body for answer in replays} == {replays[0].body}
    assert replays[0].json == first.json | {"replayed": True}
    [payment] = (await world.statement(borrower, loan))["past_transactions"]
    assert payment["payment_id"] == first.json["payment_id"]


@pytest.mark.parametrize("way", ["/api/make-payment/", ORDINARY])
async def test_who_hangs_up_before_the_answer_has_paid_once(world, borrower, loan, monkeypatch, way):
    store, edge = world.service.store, world.client.server.listener._edge
    reached, go_on, append = asyncio.Event(), asyncio.Event(), store.append

    async def held(*batch):
        reached.set()
        await go_on.wait()
        return await append(*batch)

    body = json.dumps(payment(loan, "hung-up", "12.34")).encode()
    head = [
        f"POST {way} HTTP/1.1", "Host: x", f"Authorization: Bearer {world.payer.token}",
        "Content-Type: application/json", f"Content-Length: {len(body)}", "", "",
    ]  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr(store, "append", held)
        reader, writer = await asyncio.open_connection("127.0.0.1", world.client.port)
        open_with_this_one = edge.open
        writer.write("\r\n".join(head).encode() + body)
        await reached.wait()
        await next_turns()
        assert not reader._buffer  # nothing is answered before it is on disk
        writer.transport.abort()
        while edge.open == open_with_this_one:  # noqa: ASYNC110 - until the service has noticed
            await asyncio.sleep(0)
        go_on.set()
    replay = await world.pay(world.payer, loan, "12.34", "hung-up")
    assert (replay.status, replay.headers["Idempotent-Replayed"]) == (200, "true")
    assert replay.json["replayed"] is True
    receipt = (await world.get("/api/payments/hung-up/", world.payer)).json
    assert replay.json == receipt | {"replayed": True}
    [counted] = (await world.statement(borrower, loan))["past_transactions"]
    assert (counted["payment_id"], counted["amount_paid"]) == (receipt["payment_id"], "12.34")
    assert (await world.loan(borrower, loan))["principal_received"] == "12.34"


async def test_a_thousand_different_payments_at_once_all_count(world, borrower, loan):
    amounts = [f"{1 + number % 4}.{number % 100:02}" for number in range(1_000)]
    total_paise = sum(int(amount.replace(".", "")) for amount in amounts)
    answers = await asyncio.gather(
        *(world.pay(world.payer, loan, amount, f"one-of-{n}") for n, amount in enumerate(amounts))
    )
    assert Counter(answer.status for answer in answers) == {201: 1_000}
    assert len({answer.json["payment_id"] for answer in answers}) == 1_000
    shown = await world.loan(borrower, loan)
    assert shown["principal_received"] == f"{total_paise // 100}.{total_paise % 100:02}"
    left_paise = 5_000_00 - total_paise
    assert shown["payoff"] == f"{left_paise // 100}.{left_paise % 100:02}"
    assert shown["version"] == 1_001
    # Each was decided on the one before it: every balance between was shown once.
    seen = sorted(int(answer.json["outstanding"]["total"].replace(".", "")) for answer in answers)
    steps = sorted(b - a for a, b in zip(seen, [*seen[1:], 5_000_00], strict=True))
    assert steps == sorted(int(amount.replace(".", "")) for amount in amounts)


async def test_an_id_raced_on_two_loans_counts_on_one(world, borrower, loan):
    second = (await world.lend(borrower))["loan_id"]
    for number in range(20):
        answers = await asyncio.gather(
            *(world.pay(borrower, where, "10.00", f"race-{number}") for where in (loan, second))
        )
        assert sorted(answer.status for answer in answers) == [201, 409]
        assert {answer.slug for answer in answers} == {"", "transaction-id-conflict"}
    received = [float((await world.loan(borrower, where))["principal_received"]) for where in (loan, second)]
    assert sum(received) == 200.0


async def test_an_id_raced_with_two_amounts_counts_with_one(world, borrower, loan):
    amounts = ["1.00", "2.00"] * 15
    answers = await asyncio.gather(*(world.pay(borrower, loan, amount, "torn") for amount in amounts))
    [first] = [answer for answer in answers if answer.status == 201]
    counted = Counter((answer.status, answer.slug) for answer in answers)
    assert counted == {(201, ""): 1, (200, ""): 14, (409, "transaction-id-conflict"): 15}
    assert (await world.loan(borrower, loan))["principal_received"] == first.json["amount"]


async def test_ids_belong_to_their_caller(world, borrower, loan):
    other_client = await world.new_client("payments:write", "ops")
    answers = [
        await world.pay(who, loan, amount, "invoice-1")
        for who, amount in ((borrower, "1.00"), (world.payer, "2.00"), (other_client, "3.00"))
    ]
    assert [answer.status for answer in answers] == [201, 201, 201]
    for who, amount in ((borrower, "1.00"), (world.payer, "2.00"), (other_client, "3.00")):
        answer = await world.get("/api/payments/invoice-1/", who)
        assert (answer.status, answer.json["amount"]) == (200, amount)
    # The same client with another token is the same caller; so is a borrower after another login.
    again = await world.pay(await world.log_client_in(world.payer), loan, "2.00", "invoice-1")
    assert (again.status, again.json["replayed"]) == (200, True)
    login = await world.log_in(borrower.identity)
    assert (await world.pay(login, loan, "1.00", "invoice-1")).status == 200
    assert refused(await world.pay(login, loan, "2.00", "invoice-1"), 409, "transaction-id-conflict")
    ours = (await world.statement(borrower, loan))["past_transactions"]
    assert sorted(each["amount_paid"] for each in ours) == ["1.00", "2.00", "3.00"]


async def test_a_refused_id_can_be_used(world, borrower, loan):
    for amount, slug in (("6000.00", "amount-exceeds-payoff"), ("-1", "invalid-fields")):
        assert (await world.pay(borrower, loan, amount, "later")).slug == slug
    assert (await world.pay(borrower, "0" * 16, "1.00", "later")).slug == "loan-not-found"
    assert (await world.get("/api/payments/later/", borrower)).slug == "payment-not-found"
    assert (await world.pay(borrower, loan, "1.00", "later")).status == 201


async def test_ids_are_what_the_contract_says(world, borrower, loan):
    for good in ("x", "0", "A.b_c:d-e", "z" * 64, "..."):
        assert (await world.pay(borrower, loan, "1.00", good)).status == 201
    for bad in ("z" * 65, "a b", "a/b", "é", "１", "a\n", "a\x00", "a+b", "'"):
        answer = await world.pay(borrower, loan, "1.00", bad)
        assert (answer.status, answer.paths) == (422, ["transaction_id"]), bad
    body = {"loan_id": loan, "amount": "1.00", "transaction_id": ""}
    assert (await world.post("/api/make-payment/", body, borrower)).paths == ["transaction_id"]


# Looking one up -----------------------------------------------------------------------------------


async def test_a_receipt_can_be_had_again_by_its_caller(world, borrower, loan):
    paid = await world.pay(borrower, loan, "12.34", "mine")
    await world.pay(borrower, loan, "5.00", "after")
    for path in ("/api/payments/mine/", "/api/payments/mine"):
        found = await world.get(path, borrower)
        assert (found.status, found.json) == (200, paid.json)
    other = await world.borrower()
    answers = [
        await world.get("/api/payments/mine/", other),
        await world.get("/api/payments/mine/", world.payer),
        await world.get("/api/payments/nobody-s/", borrower),
        await world.get("/api/payments/" + "x" * 65 + "/", borrower),
        await world.get("/api/payments/a%20b/", borrower),
        await world.get("/api/payments/%00/", borrower),
        await world.get("/api/payments/%FF/", borrower),
    ]
    assert {answer.slug for answer in answers} == {"payment-not-found"}
    assert len({str(answer.bare) for answer in answers}) == 1
    assert refused(await world.get("/api/payments/mine/", world.ops), 403, "insufficient-scope")


# Limits and restarts ------------------------------------------------------------------------------


async def test_past_a_limit_nothing_is_done(open_world):
    async with open_world(limits=Limits(mailbox=4, in_flight=16)) as world:
        borrower = await world.borrower()
        loan = (await world.lend(borrower))["loan_id"]
        answers = await asyncio.gather(
            *(world.pay(borrower, loan, "1.00", f"burst-{number}") for number in range(80))
        )
        done = sum(answer.status == 201 for answer in answers)
        turned_away = [answer for answer in answers if answer.status != 201]
        assert done
        assert {(answer.status, answer.slug) for answer in turned_away} == {(503, "overloaded")}
        assert (await world.loan(borrower, loan))["principal_received"] == f"{done}.00"
        for number, answer in enumerate(answers):  # what was turned away can be sent again, one by one
            again = await world.pay(borrower, loan, "1.00", f"burst-{number}")
            assert again.status == (200 if answer.status == 201 else 201)
        assert (await world.loan(borrower, loan))["principal_received"] == "80.00"


async def test_with_too_much_in_flight_a_payment_is_refused_before_it_is_read(world, monkeypatch):
    registry = world.service.registry
    monkeypatch.setattr(registry, "in_flight", registry.limits.in_flight)
    for token in (await world.borrower(), "nobody's"):
        answer = await world.pay(token, "no loan", "1.00", "no id")
        assert refused(answer, 503, "overloaded")
        assert answer.headers["Retry-After"] == "1"
    counted = await world.metric('ledgerd_overloaded_total{limit="in_flight"}')
    assert counted == await world.metric('ledgerd_payments_total{outcome="overloaded"}') == 2
    monkeypatch.undo()
    assert refused(await world.pay("nobody's", "no loan", "1.00", "no id"), 401, "unauthorized")


async def test_a_restart_forgets_nothing(open_world, tmp_path):
    async with open_world(storage=on_disk(tmp_path)) as world:
        borrower = await world.borrower()
        loan = (await world.lend(borrower))["loan_id"]
        await world.advance(31)
        first = await world.pay(borrower, loan, "207.00", "kept")
        burst = await asyncio.gather(
            *(world.pay(world.payer, loan, "1.00", f"burst-{number % 20}") for number in range(100))
        )
        assert Counter(answer.status for answer in burst) == {201: 20, 200: 80}
        assert refused(await world.pay(borrower, loan, "9999.00", "refused"), 422, "amount-exceeds-payoff")
        statement, shown = await world.statement(borrower, loan), await world.loan(borrower, loan)
        payer, time = world.payer, world.time
    async with open_world(storage=on_disk(tmp_path), time=time) as world:
        assert await world.statement(borrower, loan) == statement
        assert await world.loan(borrower, loan) == shown
        replays = await asyncio.gather(*(world.pay(borrower, loan, "207.00", "kept") for _ in range(10)))
        assert {answer.status for answer in replays} == {200}
        assert {str(answer.json) for answer in replays} == {str(first.json | {"replayed": True})}
        for number in (0, 19):
            assert (await world.pay(payer, loan, "1.00", f"burst-{number}")).status == 200
        assert refused(await world.pay(borrower, loan, "1.00", "kept"), 409, "transaction-id-conflict")
        assert (await world.get("/api/payments/kept/", borrower)).json == first.json
        assert (await world.pay(borrower, loan, "1.00", "refused")).status == 201
        payoff = (await world.loan(borrower, loan))["payoff"]
        assert (await world.pay(borrower, loan, payoff, "closing")).json["loan_status"] == "closed"
        time = world.time
    async with open_world(storage=on_disk(tmp_path), time=time) as world:
        assert (await world.pay(borrower, loan, payoff, "closing")).json["replayed"] is True
        assert refused(await world.pay(borrower, loan, "1.00"), 409, "loan-closed")


async def test_a_nearly_full_disk_takes_nothing_new_and_goes_on_reading(world, borrower, loan):
    before = {"loan_id": loan, "amount": "10.00", "transaction_id": "before"}
    new = {**before, "transaction_id": "new"}
    assert (await world.post("/api/make-payment/", before, borrower)).status == 201
    free = [0]
    room = world.service.registry.room = Room(1, lambda: free[0])
    assert room.look()
    answer = await world.post("/api/make-payment/", new, borrower)
    assert refused(answer, 503, "storage-full")
    assert answer.headers["Retry-After"] == "10"
    assert (await world.post("/api/make-payment/", before, borrower)).status == 200
    results = (await world.post("/api/make-payments/", [before, new], world.payer)).json
    assert [result["status"] for result in results] == [503, 503]  # the client's ids are its own
    for path, body, who in (
        ("/api/apply-loan/", {"amount": "1.00", "interest_rate": "1", "tenure": 1}, borrower),
        ("/api/billing-runs/", {}, world.ops),
        ("/api/sandbox/advance-clock/", {"days": 1}, world.ops),
    ):
        assert refused(await world.post(path, body, who), 503, "storage-full"), path
    assert refused(await world.register(), 503, "storage-full")
    seen = await world.get(f"/api/loans/{loan}/", await world.log_in(borrower.identity))
    assert seen.json["principal_received"] == "10.00"
    free[0] = 1
    assert room.look()
    assert (await world.post("/api/make-payment/", new, borrower)).status == 201
