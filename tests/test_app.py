"""The composition root: what opens and what does not, restarts, scoring from the configured CSV, draining,
and the end of the store.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ledgerd import app
from ledgerd.actors.messages import Accepted
from ledgerd.app import build, open_service, score_rules
from ledgerd.clock import SandboxClock
from ledgerd.config import Auth, Clock, Lending, Scoring
from ledgerd.domain.commands import Disburse
from ledgerd.domain.events import Terms
from ledgerd.domain.money import daily_rate
from ledgerd.http.clients import Refusal
from ledgerd.sample import write_sample
from ledgerd.storage.files import open_memory
from ledgerd.storage.ports import StoreError
from ledgerd.storage.verify import verify_files
from tests.http.outside import START, Time, World, config_in, on_disk, opened

KOLKATA = ZoneInfo("Asia/Kolkata")

OpenWorld = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture
def open_world(aiohttp_client, tmp_path) -> OpenWorld:
    def open_one(time=None, **sections: Any) -> AbstractAsyncContextManager[World]:
        return opened(aiohttp_client, config_in(tmp_path, **sections), time)

    return open_one


async def refused(folder: Path, **sections: Any) -> str:
    """Why a service does not open; one line."""
    with pytest.raises(StoreError) as caught:
        await open_service(config_in(folder, **sections))
    message = str(caught.value)
    assert "\n" not in message
    return message


# Opening ------------------------------------------------------------------------------------------


async def test_a_database_stays_with_its_clock_its_keys_and_one_owner(open_world, tmp_path):
    disk = on_disk(tmp_path)
    async with open_world(storage=disk) as world:
        await world.advance(3)
        time = world.time
    assert "sandbox_start" in await refused(tmp_path, storage=disk, clock=Clock())
    other_keys = Auth(keys_dir=str(tmp_path / "other"))
    assert "keys" in await refused(tmp_path, storage=disk, auth=other_keys)
    # A later start does not move the date, and an earlier one is not gone back to.
    for start in ("2026-06-01", "2020-01-01"):
        async with open_world(storage=disk, clock=Clock(sandbox_start=start), time=time) as world:
            assert world.today.toordinal() == START.toordinal() + 3


async def test_the_real_clock_s_database_is_no_sandbox(open_world, tmp_path):
    disk = on_disk(tmp_path)
    time = Time()
    async with open_world(storage=disk, clock=Clock(), time=time) as world:
        assert world.today.isoformat() == "2027-01-15"
    assert "sandbox_start" in await refused(tmp_path, storage=disk)
    time.now_s -= 40 * 86_400  # the system's clock is set back: the date is not
    async with open_world(storage=disk, clock=Clock(), time=time) as world:
        assert world.today.isoformat() == "2027-01-15"


async def test_tokens_and_what_was_revoked_outlive_a_restart(open_world, tmp_path):
    disk = on_disk(tmp_path)
    async with open_world(storage=disk) as world:
        stays, leaves = await world.borrower(), await world.borrower()
        await world.post("/api/logout/", None, leaves)
        ops, time = world.ops, world.time
    async with open_world(storage=disk, time=time) as world:
        assert (await world.get("/api/me/", stays)).status == 200
        assert (await world.get("/api/me/", leaves)).status == 401
        assert (await world.get("/api/billing-runs/", ops)).status == 200
        body = {"grant_type": "refresh_token", "refresh_token": stays.refresh_token}
        assert (await world.post("/api/token/", body)).status == 200


async def test_a_token_of_another_service_is_none(open_world, tmp_path):
    """Whoever has other keys, another issuer or another audience speaks for nobody here."""
    async with open_world() as world:
        borrower = await world.borrower()
        time = world.time
    for auth in (
        Auth(keys_dir=str(tmp_path / "other")),
        Auth(keys_dir=str(tmp_path / "keys"), issuer="another"),
        Auth(keys_dir=str(tmp_path / "keys"), audience="another"),
        Auth(keys_dir=str(tmp_path / "keys")),  # the same keys, and nobody of this id in the vault
    ):
        async with open_world(auth=auth, time=time) as world:
            assert (await world.get("/api/me/", borrower)).status == 401


# Scoring ------------------------------------------------------------------------------------------


async def test_borrowers_are_scored_from_the_configured_csv(open_world, tmp_path):
    history = tmp_path / "history.csv"
    balances = {"568450": 670, "24999.99": 300, "25000": 310, "234999": 440, "235000": 450, "910000": 900}
    forced = {f"holder of {rupees}": round(float(rupees) * 100) for rupees in balances}
    write_sample(history, 50, 1, balances_paise=forced)
    async with open_world(scoring=Scoring(transactions_csv=str(history)), lending=Lending()) as world:
        for rupees, score in balances.items():
            borrower = await world.borrower(aadhar_id=f"holder of {rupees}")
            assert (await world.scored(borrower))["credit_score"] == score, rupees
        nobody = await world.borrower(aadhar_id="without a history")
        assert (await world.scored(nobody))["credit_score"] == 300
        # The file grows: whom its new rows touch is scored again.
        with history.open("a") as file:
            file.write("without a history,2025-01-01,CREDIT,40000.00\n")
        await world.service.scoring.refresh()
        assert (await world.scored(nobody))["credit_score"] == 320


async def test_registration_wakes_the_scorer(open_world, tmp_path):
    """Nothing else is left that could score: no CSV, no alarm, and the refresh of the start is over."""
    disk = on_disk(tmp_path)
    history = tmp_path / "history.csv"
    history.write_text("user,date,transaction_type,amount\nrich,2024-01-01,CREDIT,40000.00\n")
    async with open_world(storage=disk) as world:
        await world.service.import_transactions(history, lambda *_: None)
        time = world.time
    async with open_world(storage=disk, time=time) as world:
        await world.service.scoring.refresh()
        for identity, score in (("rich", 320), ("poor", 300)):
            borrower = await world.borrower(aadhar_id=identity)
            assert (await world.scored(borrower))["credit_score"] == score


def test_the_scale_is_the_configuration_s(tmp_path):
    config = config_in(tmp_path, scoring=Scoring(base_balance="0.00", step_balance="1.00", step_points=3))
    rules = score_rules(config)
    assert (rules.base_paise, rules.step_paise, rules.step_points) == (0, 100, 3)


async def test_another_scale_scores_everybody_anew(open_world, tmp_path):
    history = tmp_path / "history.csv"
    history.write_text("user,date,transaction_type,amount\nrich,2024-01-01,CREDIT,40000.00\n")
    disk, time = on_disk(tmp_path), None
    people = {}
    for points, expected in ((10, 320), (25, 350), (25, 350), (10, 320)):
        scoring = Scoring(transactions_csv=str(history), step_points=points)
        async with open_world(storage=disk, scoring=scoring, time=time) as world:
            time = time or world.time
            for identity in {"rich", "poor"} - people.keys():
                people[identity] = await world.borrower(aadhar_id=identity)
            scores = [(await world.scored(people[each]))["credit_score"] for each in ("rich", "poor")]
            assert scores == [expected, 300]
        config = config_in(tmp_path, storage=disk, scoring=scoring)
        report = verify_files(
            disk.tables_path, disk.journal_path, score_rules(config), lambda _done, _total: None
        )
        assert (report.scores, report.differences) == (2, [])


# The jobs -----------------------------------------------------------------------------------------


async def runs_of(world: World) -> list[tuple[str, int, int, str]]:
    """Of each run, newest first: date, due, billed, status."""
    runs = (await world.get("/api/billing-runs/", world.ops)).json["billing_runs"]
    return [(run["business_date"], run["due"], run["billed"], run["status"]) for run in runs]


async def start_jobs(world: World) -> None:
    """Start them as the server does, and wait until what was missed is done."""
    world.service.start_jobs()
    await world.service.end_jobs()


async def ring(world: World, name: str) -> None:
    """Have an alarm look at the clock, and wait for what it begins."""
    alarm = world.service.alarms[name]
    alarm.look()
    assert alarm._task is not None, f"{name} does not ring"
    await alarm._task


def at(moment: str) -> float:
    """That moment in the service's timezone, in Unix seconds."""
    return datetime.fromisoformat(moment).replace(tzinfo=KOLKATA).timestamp()


async def test_what_fell_due_while_nobody_ran_is_billed_at_the_start(open_world, tmp_path):
    disk, time = on_disk(tmp_path), Time()
    time.now_s = at("2026-01-01T12:00")
    async with open_world(storage=disk, clock=Clock(), time=time) as world:
        borrower = await world.borrower()
        loan = (await world.lend(borrower))["loan_id"]
        await start_jobs(world)
        assert await runs_of(world) == [("2026-01-01", 0, 0, "completed")]
    time.now_s = at("2026-01-29T12:00")
    async with open_world(storage=disk, clock=Clock(), time=time) as world:
        await start_jobs(world)
    time.now_s += 3 * 86_400
    for expected in (3, 3):  # a second start of the day finds that it is done
        async with open_world(storage=disk, clock=Clock(), time=time) as world:
            await start_jobs(world)
            runs = await runs_of(world)
            assert (len(runs), runs[0]) == (expected, ("2026-02-01", 1, 1, "completed"))
            [bill] = await world.service.store.read("issued_bills", int(loan, 16), 9)
            assert bill.billing_date == date(2026, 1, 31).toordinal()


async def test_both_alarms_ring(open_world, tmp_path):
    history = tmp_path / "history.csv"
    history.write_text("user,date,transaction_type,amount\nidentity-0001,2024-01-01,CREDIT,25000.00\n")
    time = Time()
    time.now_s = at("2026-01-01T12:00")
    scoring = Scoring(transactions_csv=str(history))
    async with open_world(clock=Clock(), scoring=scoring, time=time) as world:
        borrower = await world.borrower()
        assert (await world.scored(borrower))["credit_score"] == 310
        await world.lend(borrower)
        await start_jobs(world)
        time.now_s = at("2026-01-31T00:05:00")
        await ring(world, "billing")
        world.ops = await world.log_client_in(world.ops)
        assert (await runs_of(world))[0] == ("2026-01-31", 1, 1, "completed")
        with history.open("a") as file:
            file.write("identity-0001,2024-01-02,CREDIT,15000.00\n")
        await ring(world, "scoring")
        borrower = await world.log_in(borrower.identity)
        assert (await world.scored(borrower))["credit_score"] == 320


async def test_a_new_date_begins_when_it_is_on_disk(open_world, tmp_path):
    """A crash just after midnight, and a clock that is set back meanwhile, do not bring the day before."""
    disk, time = on_disk(tmp_path), Time()
    time.now_s = at("2026-03-10T23:59:59")
    async with open_world(storage=disk, clock=Clock(), time=time) as world:
        assert world.today.isoformat() == "2026-03-10"
        time.now_s += 2
        assert world.today.isoformat() == "2026-03-10"  # it turns
        clock = world.service.services.clock
        assert await clock.turn() == clock.today() == date(2026, 3, 11).toordinal()
        saved = await world.service.store.read("read_clock")
        assert saved == ["system", date(2026, 3, 11).toordinal()]
    time.now_s = at("2026-03-10T20:00")
    async with open_world(storage=disk, clock=Clock(), time=time) as world:
        assert world.today.isoformat() == "2026-03-11"


@pytest.mark.parametrize("days_before", [0, 29])
async def test_a_sandbox_s_day_that_was_cut_off_is_run_at_the_start(open_world, tmp_path, days_before):
    """The date was moved, and then came the kill: the day's run is not lost."""
    disk, clock = on_disk(tmp_path), Clock(sandbox_start="2026-01-01")
    async with open_world(storage=disk, clock=clock) as world:
        await start_jobs(world)
        assert await runs_of(world) == []  # the first day of a sandbox has nothing behind it
        await world.lend(await world.borrower())
        if days_before:
            await world.advance(days_before)
        await world.service.store.write("save_clock", "sandbox", world.today.toordinal() + 1)
        time = world.time
    due = int(days_before == 29)
    cut_off = (START + timedelta(days_before + 1)).isoformat()
    for _ in range(2):
        async with open_world(storage=disk, clock=clock, time=time) as world:
            await start_jobs(world)
            runs = await runs_of(world)
            assert (len(runs), runs[0]) == (days_before + 1, (cut_off, due, due, "completed"))


async def test_the_sandbox_s_days_score_too(open_world, tmp_path):
    history = tmp_path / "history.csv"
    history.write_text("user,date,transaction_type,amount\nidentity-0001,2024-01-01,CREDIT,25000.00\n")
    async with open_world(scoring=Scoring(transactions_csv=str(history))) as world:
        borrower = await world.borrower()
        with history.open("a") as file:
            file.write("identity-0001,2024-01-02,CREDIT,15000.00\n")
        assert (await world.scored(borrower))["credit_score"] == 310
        await world.advance(2)
        assert (await world.scored(borrower))["credit_score"] == 320


@pytest.mark.parametrize("began_it", ["the start", "the alarm"])
async def test_a_stop_while_billing_goes_on_is_no_error(open_world, tmp_path, monkeypatch, began_it):
    """The World looks at the log at its end."""
    disk, time = on_disk(tmp_path), Time()
    time.now_s = at("2026-01-01T12:00")
    async with open_world(storage=disk, clock=Clock(), time=time) as world:
        await world.lend(await world.borrower())
        if began_it == "the alarm":
            await start_jobs(world)
        time.now_s = at("2026-01-31T12:00")
        read, reached = world.service.store.read, asyncio.Event()

        async def held(name, *params):
            if name == "loans_due":
                reached.set()
                await asyncio.Event().wait()
            return await read(name, *params)

        monkeypatch.setattr(world.service.store, "read", held)
        if began_it == "the alarm":
            world.service.alarms["billing"].look()
        else:
            world.service.start_jobs()
        await reached.wait()
        await world.service.drain()
    async with open_world(storage=disk, clock=Clock(), time=time) as world:
        assert (await runs_of(world))[0] == ("2026-01-31", 1, 0, "interrupted")
        await start_jobs(world)
        assert (await runs_of(world))[0] == ("2026-01-31", 1, 1, "completed")


# Ending -------------------------------------------------------------------------------------------


async def test_draining_answers_everything_that_was_taken(open_world):
    async with open_world() as world:
        borrower = await world.borrower()
        loan = (await world.lend(borrower))["loan_id"]
        sent = [asyncio.ensure_future(world.pay(borrower, loan, "1.00", f"t{n}")) for n in range(100)]
        await sent[0]
        await world.service.drain()
        answers = await asyncio.gather(*sent)
        done = [answer for answer in answers if answer.status == 201]
        assert {(answer.status, answer.slug) for answer in answers} <= {(201, ""), (503, "draining")}
        world.service.services.draining = False
        assert (await world.loan(borrower, loan))["principal_received"] == f"{len(done)}.00"


async def test_without_its_store_the_service_says_unknown_and_wants_to_end(open_world, tmp_path):
    """The store is killed under it: nothing that follows is acknowledged, and what was, is there later."""
    disk = on_disk(tmp_path)
    async with open_world(storage=disk) as world:
        borrower = await world.borrower()
        loan = (await world.lend(borrower))["loan_id"]
        await world.pay(borrower, loan, "1.00", "before")
        world.errors_allowed = True
        sent = [asyncio.ensure_future(world.pay(borrower, loan, "1.00", f"t{n}")) for n in range(40)]
        await sent[0]
        world.service.store._process.kill()
        await world.service.broken.wait()
        answers = await asyncio.gather(*sent)
        assert {(answer.status, answer.slug) for answer in answers} <= {(201, ""), (500, "outcome-unknown")}
        after = await world.pay(borrower, loan, "1.00", "after")
        assert (after.status, after.slug) == (500, "outcome-unknown")
        assert "the store has ended" in world.log.getvalue()
        time = world.time
    async with open_world(storage=disk, time=time) as world:
        for number, answer in enumerate(answers):
            again = await world.pay(borrower, loan, "1.00", f"t{number}")
            assert again.status == 200 if answer.status == 201 else again.status in {200, 201}
        assert (await world.pay(borrower, loan, "1.00", "before")).status == 200
        assert (await world.loan(borrower, loan))["principal_received"] == "41.00"


# Room on the disk -----------------------------------------------------------------------------------


async def test_a_disk_that_fills_is_noticed_and_what_is_due_is_billed_when_there_is_room(
    open_world, tmp_path, monkeypatch
):
    monkeypatch.setattr(app, "LOOK_S", 0)
    async with open_world(storage=on_disk(tmp_path)) as world:
        borrower = await world.borrower()
        loan_id = (await world.lend(borrower))["loan_id"]
        free = [0]
        world.service.chance.free_bytes = lambda _folder: free[0]
        world.service.start_jobs()
        room = world.service.registry.room
        await until(lambda: room.is_short)
        pay = {"loan_id": loan_id, "amount": "1.00", "transaction_id": "t"}
        assert (await world.post("/api/make-payment/", pay, borrower)).slug == "storage-full"
        gauges = (await world.get("/metrics", world.ops)).body.decode()
        assert "\nledgerd_storage_full 1.0\n" in gauges
        assert "\nledgerd_disk_free_bytes 0.0\n" in gauges
        world.service.services.clock.set(world.today.toordinal() + 30)  # without its run
        free[0] = 2**40
        await until(lambda: not room.is_short)
        await world.service.end_jobs()
        assert world.service.billing.latest()[2:5] == ["completed", 1, 1]
        assert (await world.post("/api/make-payment/", pay, borrower)).status == 201
        world.errors_allowed = True  # the log says that the disk is full


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0)


# Embedding ----------------------------------------------------------------------------------------


IMPORTED = """
import asyncio, logging, sys, threading, warnings
before = (asyncio.get_event_loop_policy(), list(logging.getLogger().handlers), threading.active_count())
import ledgerd.app, ledgerd.testing, ledgerd.server
after = (asyncio.get_event_loop_policy(), list(logging.getLogger().handlers), threading.active_count())
assert before == after, (before, after)
"""


def test_importing_only_defines_things(tmp_path):
    command = [sys.executable, "-W", "error", "-c", IMPORTED]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [*tmp_path.iterdir()] == []


async def test_another_program_gives_the_clock_and_the_storage(tmp_path):
    clock = SandboxClock(START.toordinal())
    config = config_in(tmp_path, clock=Clock(), storage=on_disk(tmp_path / "not used"))
    async with build(config, clock=clock, storage=await open_memory(), chance=Time().chance()) as service:
        assert service.services.clock is clock
        terms = Terms(100_00, 14_00, daily_rate(14_00), 3, "min_due", clock.today(), 30, 15, 3_00)
        borrower = await service.services.accounts.register(
            "Asha", "a@example.in", "asha", 1, "correct horse"
        )
        assert not isinstance(borrower, Refusal)
        command = Disburse(borrower.user_id, terms, clock.now_ms())
        lent = await service.registry.ask(service.services.ids.new(), command, new=True)
        assert isinstance(lent, Accepted)
        clock.set(clock.today() + 31)
        run = await service.billing.run(clock.today(), lambda _done, _total: None)
        assert run[3:6] == [1, 1, 0]
        store = service.store
    assert not (tmp_path / "not used").exists()
    with pytest.raises(Exception, match="closed"):
        await store.read("read_clock")


async def test_a_program_s_own_clock_may_be_any(tmp_path):
    class Frozen:
        def today(self) -> int:
            return START.toordinal()

        async def turn(self) -> int:
            return self.today()

        def now_ms(self) -> int:
            return 1_767_250_000_000

    async with build(config_in(tmp_path, clock=Clock()), clock=Frozen()) as service:
        assert service.services.clock.today() == START.toordinal()
