"""Loans over HTTP: applying once, who is eligible, and looking at them."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from ledgerd.actors.messages import Accepted
from ledgerd.config import Lending, Scoring
from ledgerd.domain.commands import Disburse
from ledgerd.domain.events import Terms
from ledgerd.domain.money import daily_rate
from ledgerd.ids import format_id, parse_id
from ledgerd.storage import engine as engine_module
from tests.http.outside import START, Answer, day, on_disk
from tests.reference import ReferenceLoan

NEW_LOAN = [
    "loan_id", "status", "amount", "interest_rate", "daily_rate", "tenure", "repayment_plan", "disbursed_on",
    "emi_schedule",
]  # fmt: skip
INSTALMENT = ["number", "date", "due_date", "principal", "interest", "amount_due"]
LOAN = [
    "loan_id", "status", "amount", "interest_rate", "daily_rate", "tenure", "repayment_plan", "disbursed_on",
    "closed_on", "as_of", "outstanding", "payoff", "past_due", "interest_received", "principal_received",
    "next_due", "open_bills", "version", "emi_schedule",
]  # fmt: skip


async def apply(world, who, key=None, **fields) -> Answer:
    body = {"amount": "1000.00", "interest_rate": "12.00", "tenure": 3, **fields}
    headers = {} if key is None else {"Idempotency-Key": key}
    return await world.post("/api/apply-loan/", body, who, **headers)


# Applying -----------------------------------------------------------------------------------------


async def test_a_loan_is_lent_at_once(world, borrower):
    answer = await apply(world, borrower, amount="5000.00", interest_rate=14, tenure=2)
    assert answer.status == 201
    loan = answer.json
    assert list(loan) == NEW_LOAN
    assert answer.headers["Location"] == f"/api/loans/{loan['loan_id']}/"
    # 5,000 x 0.038 % x 30 days = 57.00, and 3 % is 150.00; the last cycle asks for the rest.
    assert loan == {
        "loan_id": loan["loan_id"],
        "status": "active",
        "amount": "5000.00",
        "interest_rate": "14.00",
        "daily_rate": "0.038",
        "tenure": 2,
        "repayment_plan": "min_due",
        "disbursed_on": day(0),
        "emi_schedule": [
            {
                "number": 1,
                "date": day(30),
                "due_date": day(45),
                "principal": "150.00",
                "interest": "57.00",
                "amount_due": "207.00",
            },
            {
                "number": 2,
                "date": day(60),
                "due_date": day(75),
                "principal": "4850.00",
                "interest": "55.29",
                "amount_due": "4905.29",
            },
        ],
    }
    seen = await world.get(answer.headers["Location"], borrower)
    assert list(seen.json) == LOAN
    assert {name: value for name, value in seen.json.items() if name in NEW_LOAN} == loan


async def test_daily_rates_are_rounded_half_even_from_the_exact_rate(world, borrower):
    for apr, shown, daily in (
        ("0.00", "0.00", "0.000"),
        ("0", "0.00", "0.000"),
        ("12", "12.00", "0.033"),
        (14, "14.00", "0.038"),
        (24.0, "24.00", "0.066"),
        ("36.5", "36.50", "0.100"),
        ("100.00", "100.00", "0.274"),
    ):
        lent = await world.lend(borrower, "100.00", apr, 1)
        assert (lent["interest_rate"], lent["daily_rate"]) == (shown, daily)
    free = await world.lend(borrower, "0.01", "0", 3, repayment_plan="equal_emi")
    assert [each["amount_due"] for each in free["emi_schedule"]] == ["0.01"]


async def test_the_second_plan_has_level_instalments(world, borrower):
    lent = await world.lend(borrower, "5000.00", "14", 12, repayment_plan="equal_emi")
    assert lent["repayment_plan"] == "equal_emi"
    # r = 0.0114: 5000 r / (1 - (1 + r)^-12) = 448.1831.., rounded up; then anew from what is left, each time.
    assert lent["emi_schedule"][0]["amount_due"] == "448.19"
    assert {each["amount_due"] for each in lent["emi_schedule"][1:11]} <= {"448.18", "448.19"}
    assert lent["emi_schedule"] == ReferenceLoan("5000.00", "14", 12, "equal_emi", START).schedule()


async def test_a_bad_field_is_named(world, borrower):
    bad = {
        "amount": (
            *("NaN", "sNaN", "Infinity", "-Infinity", "1e999999", "1e2", "-5", "+5", "0", "0.00", "10.001"),
            *("１０", "٣", "1_000", " 10", "10 ", "", ".5", "5.", "1,000", "0x10", "99999999999999"),
            *(0, -5, 1e2 + 0.001, 1e300, True, None, [], ["10"], {}, {"amount": 1}),
        ),
        "interest_rate": ("100.01", 100.01, -1, "-0.01", "14.001", "1e1", "NaN", True, None, [], ""),
        "tenure": (0, -1, 121, 10**30, 1.0, 1.5, "3", "", True, None, [1], {}),
        "repayment_plan": ("", "MIN_DUE", "bullet", None, 1, True, []),
    }
    for field, value in ((field, value) for field, values in bad.items() for value in values):
        answer = await apply(world, borrower, **{field: value})
        assert (answer.status, answer.slug, answer.paths) == (422, "invalid-fields", [field]), value
    assert (await world.get("/api/loans/", borrower)).json["loans"] == []


async def test_several_bad_fields_are_named_at_once(world, borrower):
    answer = await apply(world, borrower, amount="0", interest_rate="101", tenure=121)
    assert answer.paths == ["amount", "interest_rate", "tenure"]
    for tenure in (1, 120):
        assert (await apply(world, borrower, tenure=tenure)).status == 201


async def test_who_is_eligible(open_world, tmp_path):
    """At 450 points, 150,000.00 a year and 5,000.00 each rule is met, and a step below it is not."""
    history = tmp_path / "history.csv"
    # One point for each 15,000.00 above 10,000.00, from 300 on.
    balances = {"just": 10_000 + 150 * 15_000, "below": 10_000 + 150 * 15_000 - 1}
    rows = [f"{who},2024-01-01,CREDIT,{balance}.00" for who, balance in balances.items()]
    history.write_text("\n".join(["user,date,transaction_type,amount", *rows, ""]))
    scoring = Scoring(transactions_csv=str(history), step_points=1)
    async with open_world(scoring=scoring, lending=Lending()) as world:
        just = await world.borrower(aadhar_id="just", annual_income="150000.00")
        below = await world.borrower(aadhar_id="below", annual_income="149999.99")
        assert (await world.scored(just))["credit_score"] == 450
        assert (await world.scored(below))["credit_score"] == 449
        assert (await apply(world, just, amount="5000.00")).status == 201
        answer = await apply(world, just, amount="5000.01")
        assert (answer.status, answer.slug) == (422, "not-eligible")
        assert answer.json["reasons"] == [
            {"code": "amount-too-high", "required": "5000.00", "actual": "5000.01"}
        ]
        every = await apply(world, below, amount="9999999999999.99")
        assert every.json["reasons"] == [
            {"code": "credit-score-too-low", "required": 450, "actual": 449},
            {"code": "income-too-low", "required": "150000.00", "actual": "149999.99"},
            {"code": "amount-too-high", "required": "5000.00", "actual": "9999999999999.99"},
        ]
        two = await apply(world, below, amount="5000.00")
        assert [reason["code"] for reason in two.json["reasons"]] == [
            "credit-score-too-low",
            "income-too-low",
        ]
        assert (await world.get("/api/loans/", below)).json == {"loans": [], "next_cursor": None}


async def test_without_a_score_an_application_has_to_wait(world):
    await world.service.scoring.close()  # nobody scores any more
    await world.register(aadhar_id="early")
    early = await world.log_in("early")
    answer = await apply(world, early, key="k")
    assert (answer.status, answer.slug) == (409, "score-pending")
    assert answer.headers["Retry-After"] == "1"
    me = (await world.get("/api/me/", early)).json
    assert (me["credit_score"], me["score_status"]) == (None, "pending")
    assert (await apply(world, early, tenure=0)).slug == "invalid-fields"  # the shape comes first


# Applying once ------------------------------------------------------------------------------------


async def test_an_idempotency_key_lends_once(world, borrower):
    first = await apply(world, borrower, "loan:1")
    assert first.status == 201
    assert "Idempotent-Replayed" not in first.headers
    await world.advance(40)
    await world.pay(borrower, first.json["loan_id"], "100.00")
    for key, body in (
        ("loan:1", {}),
        ('"loan:1"', {}),
        ("loan:1", {"amount": 1000, "interest_rate": 12.0, "repayment_plan": "min_due"}),
    ):
        again = await apply(world, borrower, key, **body)
        assert (again.status, again.headers["Idempotent-Replayed"]) == (200, "true")
        assert "Location" not in again.headers
        assert again.body == first.body, "the first answer, whatever has happened to the loan since"
    for other in (
        {"amount": "1000.01"},
        {"interest_rate": "12.01"},
        {"tenure": 4},
        {"repayment_plan": "equal_emi"},
        {"amount": "5000.01"},  # the key is looked at before the rules
    ):
        conflict = await apply(world, borrower, "loan:1", **other)
        assert (conflict.status, conflict.slug) == (409, "idempotency-key-conflict"), other
    assert (await apply(world, borrower, "loan:1", tenure=0)).slug == "invalid-fields"
    somebody = await world.borrower()
    assert (await apply(world, somebody, "loan:1", tenure=4)).status == 201  # keys are each borrower's own
    assert (await apply(world, borrower)).status == (await apply(world, borrower)).status == 201
    assert len((await world.get("/api/loans/", borrower)).json["loans"]) == 3
    # A key and a transaction_id are different things.
    assert (await world.pay(borrower, first.json["loan_id"], "1.00", "loan:1")).status == 201


async def test_a_replay_does_not_depend_on_limits_that_were_lowered(open_world, tmp_path):
    async with open_world(storage=on_disk(tmp_path)) as world:
        borrower = await world.borrower()
        first = await apply(world, borrower, "early", tenure=12, interest_rate="30.00")
        assert first.status == 201
        time = world.time
    lowered = Lending(min_credit_score=300, max_tenure=6, max_apr="20.00")
    async with open_world(storage=on_disk(tmp_path), lending=lowered, time=time) as world:
        again = await apply(world, borrower, "early", tenure=12, interest_rate="30.00")
        assert (again.status, again.body) == (200, first.body)
        other = await apply(world, borrower, "early", tenure=11, interest_rate="30.00")
        assert (other.status, other.slug) == (409, "idempotency-key-conflict")
        new = await apply(world, borrower, "late", tenure=12, interest_rate="30.00", amount="0")
        assert {error["path"] for error in new.json["errors"]} == {"amount", "tenure", "interest_rate"}
        new = await apply(world, borrower, "late", tenure=12, interest_rate="30.00")
        assert {error["path"] for error in new.json["errors"]} == {"tenure", "interest_rate"}
        assert len((await world.get("/api/loans/", borrower)).json["loans"]) == 1


async def test_sixty_applications_at_once_with_one_key_lend_once(world, borrower):
    answers = await asyncio.gather(*(apply(world, borrower, "burst") for _ in range(60)))
    assert Counter(answer.status for answer in answers) == {201: 1, 200: 59}
    assert len({answer.body for answer in answers}) == 1
    torn = await asyncio.gather(*(apply(world, borrower, "torn", tenure=n % 2 + 1) for n in range(40)))
    counted = Counter((answer.status, answer.slug) for answer in torn)
    assert counted == {(201, ""): 1, (200, ""): 19, (409, "idempotency-key-conflict"): 20}
    assert len((await world.get("/api/loans/", borrower)).json["loans"]) == 2


async def test_a_replay_waits_until_the_loan_can_be_listed(world, borrower, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_module, "GATHER_S", 3_600)  # nothing is projected unasked
    services = world.service.services
    borrower_id = parse_id(borrower.id)
    assert borrower_id is not None
    terms = Terms(1_000_00, 12_00, daily_rate(12_00), 3, "min_due", services.clock.today(), 30, 15, 3_00)
    # The first answer never came: the loan is in the journal, and not yet in the tables.
    first = Disburse(borrower_id, terms, services.clock.now_ms(), "lost")
    lent = await services.registry.ask(services.ids.new(), first, new=True)
    assert isinstance(lent, Accepted)
    assert (await world.get("/api/loans/", borrower)).json["loans"] == []
    again = await apply(world, borrower, "lost")
    assert (again.status, again.json["loan_id"]) == (200, format_id(lent.loan_id))
    [listed] = (await world.get("/api/loans/", borrower)).json["loans"]
    assert listed["loan_id"] == again.json["loan_id"]


async def test_replays_leave_nothing_behind(world, borrower):
    first = await apply(world, borrower, "again")
    head = await world.head()
    for _ in range(20):
        replays = await asyncio.gather(*(apply(world, borrower, "again") for _ in range(100)))
        assert {(answer.status, answer.body) for answer in replays} == {(200, first.body)}
    assert await world.head() == head
    assert world.service.store._journal._resume_at == {}


async def test_a_refused_application_does_not_use_its_key_up(world, borrower):
    assert (await apply(world, borrower, "later", amount="5000.01")).slug == "not-eligible"
    assert (await apply(world, borrower, "later")).status == 201


async def test_keys_are_what_the_contract_says(world, borrower):
    for good in ("x", "A.b_c:d-e", "z" * 64, '"' + "y" * 64 + '"', "..."):
        assert (await apply(world, borrower, good)).status == 201
    for bad in ("", '""', "z" * 65, "a b", "a,b", '"a', 'a"', "a/b", "é"):
        answer = await apply(world, borrower, bad)
        assert (answer.slug, answer.paths) == ("invalid-fields", ["Idempotency-Key"]), bad


# Looking ------------------------------------------------------------------------------------------


async def test_a_loan_as_it_stands(world, borrower, loan):
    await world.advance(46)
    await world.pay(borrower, loan, "100.00")
    shown = await world.loan(borrower, loan)
    # Bill 1 asked 57.00 + 150.00 and got 57.00 + 43.00; then 4,957 accrues since: 16 days at 5,000 first.
    assert shown | {"emi_schedule": []} == {
        "loan_id": loan,
        "status": "active",
        "amount": "5000.00",
        "interest_rate": "14.00",
        "daily_rate": "0.038",
        "tenure": 12,
        "repayment_plan": "min_due",
        "disbursed_on": day(0),
        "closed_on": None,
        "as_of": day(46),
        "outstanding": {"principal": "4957.00", "interest": "30.40", "total": "4987.40"},
        "payoff": "4987.40",
        "past_due": "107.00",
        "interest_received": "57.00",
        "principal_received": "43.00",
        "next_due": {"date": day(30), "due_date": day(45), "amount_due": "107.00"},
        "open_bills": [
            {
                "number": 1,
                "billing_date": day(30),
                "due_date": day(45),
                "interest": "0.00",
                "principal": "107.00",
                "amount_due": "107.00",
            }
        ],
        "version": 3,
        "emi_schedule": [],
    }
    assert list(shown["emi_schedule"][0]) == INSTALMENT
    assert [each["number"] for each in shown["emi_schedule"]] == list(range(2, 13))
    assert (await world.loan(world.ops, loan)) == shown
    await world.pay(borrower, loan, shown["payoff"])
    closed = await world.loan(borrower, loan)
    assert (closed["status"], closed["closed_on"], closed["payoff"]) == ("closed", day(46), "0.00")
    assert (closed["next_due"], closed["open_bills"], closed["emi_schedule"]) == (None, [], [])
    assert (closed["interest_received"], closed["principal_received"]) == ("87.40", "5000.00")


async def test_loans_are_listed_in_pages_each_to_its_owner(world, borrower):
    other = await world.borrower()
    mine = [(await world.lend(borrower, "10.00", "0", 1))["loan_id"] for _ in range(5)]
    theirs = [(await world.lend(other, "10.00", "0", 1))["loan_id"] for _ in range(2)]

    async def pages(who, limit) -> list[list[str]]:
        found, cursor = [], ""
        while True:
            answer = await world.get(f"/api/loans/?limit={limit}{cursor}", who)
            assert answer.status == 200
            page = answer.json
            assert list(page) == ["loans", "next_cursor"]
            assert [list(each) for each in page["loans"]] == [LOAN[:-1]] * len(page["loans"])
            found.append([each["loan_id"] for each in page["loans"]])
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    assert await pages(borrower, 2) == [mine[:2], mine[2:4], mine[4:]]
    assert await pages(borrower, 5) == [mine]
    assert await pages(other, 1) == [[theirs[0]], [theirs[1]]]
    assert await pages(world.ops, 500) == [mine + theirs]
    assert [each["loan_id"] for each in (await world.get("/api/loans", other)).json["loans"]] == theirs
    for query, path in (
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=x", "limit"),
        ("cursor=x", "cursor"),
    ):
        answer = await world.get(f"/api/loans/?{query}", borrower)
        assert (answer.status, answer.slug, answer.paths) == (422, "invalid-fields", [path])
