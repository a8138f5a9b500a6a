"""Billing runs, the sandbox's clock, health, metrics, keys: what operators call."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from ledgerd.config import Clock, Scheduler
from ledgerd.scheduler import billing
from tests.http.outside import START, Answer

RUN = [
    *("run_id", "business_date", "due", "billed", "failed", "failed_loans"),
    *("status", "started_at", "seconds"),
]


async def run_billing(world, body=None) -> Answer:
    return await world.post("/api/billing-runs/", body, world.ops)


# Billing runs -------------------------------------------------------------------------------------


async def test_a_run_bills_what_is_due_and_is_kept(world, borrower, loan):
    world.jump(31)
    answer = await run_billing(world)
    assert answer.status == 200
    run = answer.json
    assert list(run) == RUN
    assert run == {
        "run_id": run["run_id"],
        "business_date": world.today.isoformat(),
        "due": 1,
        "billed": 1,
        "failed": 0,
        "failed_loans": [],
        "status": "completed",
        "started_at": "2027-01-15T08:00:00.000Z",
        "seconds": 0.0,
    }
    for path in (f"/api/billing-runs/{run['run_id']}/", f"/api/billing-runs/{run['run_id']}"):
        assert (await world.get(path, world.ops)).json == run
    [bill] = (await world.statement(borrower, loan))["bills"]
    assert bill["billing_date"] == (START + timedelta(30)).isoformat()


async def test_a_second_run_of_a_day_bills_nothing_twice(world, borrower, loan):
    world.jump(30)
    runs = [
        (await run_billing(world, body)).json for body in (None, {}, {"date": None}, {"date": "2026-01-31"})
    ]
    assert [(run["due"], run["billed"]) for run in runs] == [(1, 1), (0, 0), (0, 0), (0, 0)]
    assert len({run["run_id"] for run in runs}) == 4
    at_once = await asyncio.gather(*(run_billing(world) for _ in range(10)))
    assert {(answer.status, answer.json["billed"]) for answer in at_once} == {(200, 0)}
    assert len((await world.statement(borrower, loan))["bills"]) == 1


async def test_an_earlier_date_bills_what_had_fallen_due_by_then(world, borrower, loan):
    world.jump(95)
    before = await world.head()
    run = (await run_billing(world, {"date": (START + timedelta(59)).isoformat()})).json
    assert (run["business_date"], run["billed"]) == ("2026-03-01", 1)
    assert await world.head() == before + 1  # bill 1; bill 2 falls due on day 60
    assert (await run_billing(world, {"date": "2025-01-01"})).json["billed"] == 0
    assert (await run_billing(world)).json["billed"] == 1
    assert await world.head() == before + 3  # bills 2 and 3, in order
    assert [bill["number"] for bill in (await world.statement(borrower, loan))["bills"]] == [1, 2, 3]


async def test_a_run_of_a_day_to_come_is_refused(world, loan):
    tomorrow = (world.today + timedelta(1)).isoformat()
    answer = await run_billing(world, {"date": tomorrow})
    assert (answer.status, answer.slug) == (422, "date-in-future")
    assert world.today.isoformat() in answer.json["detail"]
    for bad in (
        "",
        "2026-13-01",
        "2026-02-30",
        "01-01-2026",
        "2026-1-1",
        "20260101",
        "２０２６-01-01",
        20260101,
        True,
    ):
        refused = await run_billing(world, {"date": bad})
        assert (refused.status, refused.slug, refused.paths) == (422, "invalid-fields", ["date"]), bad
    assert (await run_billing(world, {"day": "2026-01-01"})).paths == ["day"]
    assert (await world.get("/api/billing-runs/", world.ops)).json["billing_runs"] == []


async def test_runs_are_listed_newest_first_in_pages(world):
    made = [(await run_billing(world)).json for _ in range(5)][::-1]
    whole = (await world.get("/api/billing-runs/", world.ops)).json
    assert list(whole) == ["billing_runs", "next_cursor"]
    assert whole == {"billing_runs": made, "next_cursor": None}
    found, cursor = [], ""
    for size in (2, 2, 1):
        page = (await world.get(f"/api/billing-runs/?limit=2{cursor}", world.ops)).json
        assert len(page["billing_runs"]) == size
        found += page["billing_runs"]
        cursor = f"&cursor={page['next_cursor']}"
    assert (found, cursor) == (made, "&cursor=None")
    for query, path in (("limit=0", "limit"), ("limit=501", "limit"), ("cursor=x", "cursor")):
        assert (await world.get(f"/api/billing-runs/?{query}", world.ops)).paths == [path]
    for unknown in ("0" * 16, "x", "%00"):
        assert (await world.get(f"/api/billing-runs/{unknown}/", world.ops)).slug == "not-found"


async def test_a_long_run_is_there_to_be_followed(open_world, monkeypatch):
    """It goes on page by page, as it is let."""
    monkeypatch.setattr(billing, "ANSWER_WITHIN_S", 0)
    monkeypatch.setattr(billing, "PAGE_LOANS", 4)
    monkeypatch.setattr(billing, "WIDER", 1)
    async with open_world(scheduler=Scheduler(billing_window=4)) as world:
        borrower = await world.borrower()
        for _ in range(20):
            await world.lend(borrower)
        world.jump(30)
        store = world.service.store
        read, write = store.read, store.write
        reached, recorded, next_page = asyncio.Event(), asyncio.Event(), asyncio.Semaphore(0)

        async def held_read(name, *params):
            if name == "loans_due":
                await next_page.acquire()
            return await read(name, *params)

        async def held_write(name, *params):
            if name == "begin_run":
                reached.set()
                await recorded.wait()
            return await write(name, *params)

        monkeypatch.setattr(store, "read", held_read)
        monkeypatch.setattr(store, "write", held_write)
        asked = asyncio.ensure_future(run_billing(world))
        await reached.wait()
        for _ in range(5):
            assert (await world.get("/api/billing-runs/", world.ops)).json["billing_runs"] == []
        assert not asked.done()  # as long as it is not on disk
        recorded.set()
        answer = await asked
        assert (answer.status, answer.json["status"], answer.json["seconds"]) == (202, "running", None)
        location = answer.headers["Location"]
        assert location == f"/api/billing-runs/{answer.json['run_id']}/"

        async def look():
            return (await world.get(location, world.ops)).json

        seen = [await look()]
        for _ in range(6):  # five pages, and an empty one
            next_page.release()
            while (run := await look()) == seen[-1] and run["status"] == "running":
                pass
            seen.append(run)
        assert {run["run_id"] for run in seen} == {answer.json["run_id"]}
        assert [run["due"] for run in seen] == [0] + [20] * 6
        billed = [run["billed"] for run in seen]
        assert billed == sorted(billed)
        assert len(set(billed)) > 3
        assert (seen[-1]["status"], billed[-1], seen[-2]["status"]) == ("completed", 20, "running")
        assert (await world.get("/api/billing-runs/", world.ops)).json["billing_runs"] == [seen[-1]]


# The sandbox's clock ------------------------------------------------------------------------------


async def advance(world, body) -> Answer:
    return await world.post("/api/sandbox/advance-clock/", body, world.ops)


async def test_the_date_moves_day_by_day(world, borrower, loan):
    answer = await advance(world, {"days": 31})
    assert answer.status == 200
    assert list(answer.json) == ["business_date", "billing_runs"]
    assert answer.json["business_date"] == "2026-02-01"
    runs = answer.json["billing_runs"]
    assert [list(run) for run in runs] == [RUN] * 31
    assert [run["business_date"] for run in runs] == [
        (START + timedelta(number)).isoformat() for number in range(1, 32)
    ]
    assert [run["business_date"] for run in runs if run["billed"]] == ["2026-01-31"]
    answer = await advance(world, {"to": "2026-02-03"})
    assert [run["business_date"] for run in answer.json["billing_runs"]] == ["2026-02-02", "2026-02-03"]
    assert (await world.loan(borrower, loan))["as_of"] == "2026-02-03"


async def test_days_asked_for_at_once_all_pass(world):
    answers = await asyncio.gather(*(advance(world, {"days": 2}) for _ in range(5)))
    assert {answer.status for answer in answers} == {200}
    assert world.today == START + timedelta(10)
    dates = [run["business_date"] for answer in answers for run in answer.json["billing_runs"]]
    assert sorted(dates) == [(START + timedelta(number)).isoformat() for number in range(1, 11)]


async def test_where_the_date_may_not_go(world):
    await advance(world, {"days": 10})
    for body, paths in (
        ({}, ["days"]),
        ({"days": 1, "to": "2026-01-12"}, ["days"]),
        *(({"days": days}, ["days"]) for days in (0, -1, 3661, 10**30, 1.0, "1", True, None, [1])),
        *(
            ({"to": to}, ["to"])
            for to in ("2026-01-11", "2026-01-10", "2025-12-31", "2036-01-29", "9999-12-31")
        ),
        *(({"to": to}, ["to"]) for to in ("", "tomorrow", "2026-02-30", 1, None)),
        ({"weeks": 1}, ["weeks"]),
    ):
        answer = await advance(world, body)
        assert (answer.status, answer.slug, answer.paths) == (422, "invalid-fields", paths), body
    assert (await advance(world, None)).status == 415
    assert world.today == START + timedelta(10)


async def test_the_calendar_ends(open_world):
    async with open_world(clock=Clock(sandbox_start="9857-01-01")) as world:
        for body, path in (({"days": 3660}, "days"), ({"to": "9862-01-01"}, "to")):
            answer = await advance(world, body)
            assert (answer.slug, answer.paths) == ("invalid-fields", [path])
        assert (await advance(world, {"days": 30})).status == 200


async def test_the_real_date_moves_for_nobody(open_world):
    async with open_world(clock=Clock()) as world:
        answers = [await advance(world, body) for body in ({"days": 1}, {}, None)]
        answers.append(await world.post("/api/sandbox/advance-clock/", {"days": 1}))
        answers.append(await world.get("/api/sandbox/advance-clock/"))
        assert {(answer.status, answer.slug) for answer in answers} == {(404, "not-found")}
        assert world.today.isoformat() == "2027-01-15"  # as world.time has it
        world.time.now_s += 86_400
        world.ops = await world.log_client_in(world.ops)
        assert (await run_billing(world)).json["business_date"] == "2027-01-16"


# Health and documents -----------------------------------------------------------------------------


async def test_health_also_while_draining(world):
    for path, status in (("/livez", "alive"), ("/readyz", "ready")):
        answer = await world.get(path)
        assert (answer.status, answer.json) == (200, {"status": status})
    await world.service.drain()
    assert (await world.get("/livez")).status == 200
    answer = await world.get("/readyz")
    assert (answer.status, answer.slug, answer.headers["Retry-After"]) == (503, "draining", "1")
    for path in ("/metrics", "/.well-known/jwks.json", "/openapi.json", "/docs", "/problems/draining"):
        assert (await world.get(path)).status == 200, path


async def test_before_it_is_ready_it_says_so(world):
    world.service.services.ready = False
    assert (await world.get("/readyz")).status == 503
    assert (await world.get("/livez")).status == 200


async def test_metrics_count_what_was_done(world, borrower, loan):
    await world.pay(borrower, loan, "1.00")
    await world.pay(borrower, loan, "9999.00")
    answer = await world.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    text = answer.body.decode()
    paid = 'ledgerd_requests_total{route="/api/make-payment/",status="%d"}'
    assert await world.metric(paid % 201) == 1
    assert await world.metric(paid % 422) == 1
    assert await world.metric('ledgerd_request_seconds_count{route="/api/make-payment/"}') == 2
    assert await world.metric("ledgerd_journal_head_seq") == 2
    assert await world.metric("ledgerd_resident_loans") == 1
    for secret in world.secrets | {loan, borrower.id, borrower.identity}:
        assert secret not in text


async def test_the_keys_that_verify_tokens_are_public(world):
    answer = await world.get("/.well-known/jwks.json")
    [key] = answer.json["keys"]
    assert set(key) == {"kty", "crv", "x", "kid", "use", "alg"}
    assert (key["kty"], key["crv"], key["alg"]) == ("OKP", "Ed25519", "EdDSA")
