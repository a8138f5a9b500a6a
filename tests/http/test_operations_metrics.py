"""What /metrics says of a service at work: each figure moves when it should, and a payment's time adds up."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ledgerd.config import Limits
from ledgerd.http.operations import HEAR_S
from ledgerd.metrics import PAYMENT_ROUTE, PHASES
from tests.http.outside import World, on_disk
from tests.http.test_express import ORDINARY, payment
from tests.http.test_overdue import stalled

WAYS = pytest.mark.parametrize("way", [PAYMENT_ROUTE, ORDINARY])


async def scrape(world: World) -> dict[str, float]:
    """All samples, by name and labels as they stand in the text."""
    answer = await world.get("/metrics")
    assert answer.status == 200
    return {
        sample.name
        + "".join(f" {name}={value}" for name, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def moved(before: dict[str, float], after: dict[str, float], prefix: str) -> dict[str, float]:
    """By how much the samples whose names begin so have moved, those that did not left out."""
    changes = {name: after[name] - before.get(name, 0.0) for name in after if name.startswith(prefix)}
    return {name.removeprefix(prefix).strip(): change for name, change in changes.items() if change}


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until it is so."""
    async with asyncio.timeout(30):
        for _ in itertools.count():
            if condition():
                return
            await asyncio.sleep(0)


# Payments ----------------------------------------------------------------------------------------


@WAYS
async def test_payments_by_outcome(world, borrower, loan, way):
    small = (await world.lend(borrower, amount="10.00"))["loan_id"]
    before = await scrape(world)
    for body in (
        payment(loan, "a"),
        payment(loan, "a"),
        payment(loan, "a", "2.00"),
        payment(loan, "b", "9999.00"),
        payment(small, "c", "10.00"),
        payment(small, "d"),
        payment("0" * 16, "e"),
        payment(loan, "f", "-1"),  # never reaches a loan
    ):
        await world.post(way, body, world.payer)
    after = await scrape(world)
    assert moved(before, after, "ledgerd_payments_total") == {
        "outcome=applied": 2,
        "outcome=replayed": 1,
        "outcome=transaction-id-conflict": 1,
        "outcome=amount-exceeds-payoff": 1,
        "outcome=loan-closed": 1,
        "outcome=loan-not-found": 1,
    }


@WAYS
async def test_a_payment_s_phases_add_up_to_its_time(world, borrower, loan, way):
    before = await scrape(world)
    await asyncio.gather(*(world.post(way, payment(loan, f"t{n}"), world.payer) for n in range(40)))
    for body, who in (
        (payment(loan, "t1"), world.payer),  # replayed
        (payment(loan, "u", "9999.00"), world.payer),  # refused by the rules
        (payment("0" * 16, "v"), world.payer),  # no such loan
        ({"loan_id": loan}, world.payer),  # refused in parse
        (payment(loan, "w"), "no token"),  # refused in auth
        (payment(loan, "w"), None),
    ):
        await world.post(way, body, who)
    after = await scrape(world)
    [(_, whole_s)] = moved(before, after, f"ledgerd_request_seconds_sum route={PAYMENT_ROUTE}").items()
    sums = moved(before, after, "ledgerd_payment_phase_seconds_sum")
    assert sum(sums.values()) == pytest.approx(whole_s, rel=1e-9)
    assert all(seconds >= 0 for seconds in sums.values())
    assert moved(before, after, "ledgerd_payment_phase_seconds_count") == {
        "phase=auth": 46,
        "phase=parse": 44,
        **{f"phase={phase}": 43 for phase in PHASES[2:]},
    }


@WAYS
async def test_a_payment_that_waits_for_its_loan_to_be_read_is_in_the_mailbox(open_world, tmp_path, way):
    async with open_world(storage=on_disk(tmp_path), limits=Limits(resident_loans=1)) as world:
        borrower = await world.borrower()
        cold, other = [(await world.lend(borrower))["loan_id"] for _ in range(2)]
        assert (await world.post(way, payment(other, "first"), world.payer)).status == 201
        before = await scrape(world)
        registry = world.service.registry
        with stalled(world):
            paying = asyncio.ensure_future(world.post(way, payment(cold, "second"), world.payer))
            await until(lambda: registry.in_flight == 1)
            waiting = await scrape(world)
            assert waiting["ledgerd_in_flight"] == waiting["ledgerd_mailbox_deepest"] == 1
            refused = await world.post(way, payment(other, "third"), world.payer)
            assert (refused.status, refused.slug) == (503, "overloaded")
        assert (await paying).status == 201
        after = await scrape(world)
        sums = moved(before, after, "ledgerd_payment_phase_seconds_sum")
        [(_, whole_s)] = moved(before, after, f"ledgerd_request_seconds_sum route={PAYMENT_ROUTE}").items()
        assert sum(sums.values()) == pytest.approx(whole_s, rel=1e-9)
        assert sums["phase=mailbox"] > 0.8 * HEAR_S  # so long the scrape meanwhile waited for the store
        assert moved(before, after, "ledgerd_overloaded_total") == {"limit=resident_loans": 1}
        assert moved(before, after, "ledgerd_payments_total") == {
            "outcome=applied": 1,
            "outcome=overloaded": 1,
        }
        assert moved(before, after, "ledgerd_activations_total") == {"": 1}
        assert moved(before, after, "ledgerd_passivations_total") == {"reason=room": 1}
        assert after["ledgerd_resident_loans"] == 1


async def test_what_waits_for_the_disk_is_shown_while_the_store_stalls(open_world, tmp_path):
    async with open_world(storage=on_disk(tmp_path)) as world:
        borrower = await world.borrower()
        loan = (await world.lend(borrower))["loan_id"]
        committer = world.service.registry.committer
        with stalled(world):
            paying = []
            for count in (1, 2, 3, 4):
                call = world.post(PAYMENT_ROUTE, payment(loan, f"t{count}"), world.payer)
                paying.append(asyncio.ensure_future(call))
                await until(lambda count=count: world.service.registry.in_flight == count)
            # Two batches are on their way at most: the last payments wait in the queue.
            await until(lambda: committer.queued and committer.on_their_way >= 2)
            waiting = await scrape(world)
            entries = ("ledgerd_writer_in_flight_entries", "ledgerd_writer_queue_entries")
            assert sum(waiting[name] for name in entries) == 4
            assert waiting["ledgerd_in_flight"] == waiting["ledgerd_mailbox_deepest"] == 4
        assert {answer.status for answer in await asyncio.gather(*paying)} == {201}
        after = await scrape(world)
        assert [after[name] for name in (*entries, "ledgerd_in_flight", "ledgerd_mailbox_deepest")] == [0] * 4
        assert moved(waiting, after, "ledgerd_batch_entries_sum") == {"": 4}


# Journal, billing, processes -----------------------------------------------------------------------


async def test_batches_and_the_lag_of_the_tables(world, borrower, loan):
    before = await scrape(world)
    await asyncio.gather(*(world.pay(world.payer, loan, "1.00") for _ in range(30)))
    after = await scrape(world)
    assert moved(before, after, "ledgerd_batch_entries_sum") == {"": 30}
    [(_, commits)] = moved(before, after, "ledgerd_commits_total").items()
    assert moved(before, after, "ledgerd_batch_entries_count") == {"": commits}
    assert moved(before, after, "ledgerd_commit_seconds_count") == {"": commits}
    assert moved(before, after, "ledgerd_committed_events_total") == {"": 30}
    head_seq = after["ledgerd_journal_head_seq"]
    assert after["ledgerd_projection_lag_events"] == head_seq - after["ledgerd_projected_seq"]
    await world.service.store.project_through(int(head_seq))
    idle = await scrape(world)  # no append has said so since
    assert (idle["ledgerd_projected_seq"], idle["ledgerd_projection_lag_events"]) == (head_seq, 0)


async def test_a_billing_run_shows_how_far_it_came(world, borrower, loan):
    await world.lend(borrower)
    before = await scrape(world)
    assert before["ledgerd_billing_running"] == before["ledgerd_billing_run_loans state=due"] == 0
    await world.advance(30)
    after = await scrape(world)
    states = {
        state: after[f"ledgerd_billing_run_loans state={state}"] for state in ("due", "billed", "failed")
    }
    assert states == {"due": 2, "billed": 2, "failed": 0}
    assert after["ledgerd_billing_running"] == 0
    assert moved(before, after, "ledgerd_billing_bills_total") == {"": 2}


async def test_files_and_the_store_s_process(open_world, tmp_path):
    async with open_world(storage=on_disk(tmp_path)) as world:
        files = {
            "ledgerd_database_bytes file=journal": tmp_path / "ledger.journal.db",
            "ledgerd_database_bytes file=tables": tmp_path / "ledger.db",
            "ledgerd_wal_bytes file=journal": tmp_path / "ledger.journal.db-wal",
            "ledgerd_wal_bytes file=tables": tmp_path / "ledger.db-wal",
        }
        before = {name: path.stat().st_size for name, path in files.items()}
        found = await scrape(world)
        for name, path in files.items():  # the store may be writing meanwhile
            assert 0 < before[name] <= found[name] <= path.stat().st_size
        if sys.platform == "linux":
            assert found["ledgerd_store_process_resident_memory_bytes"] > 1_000_000
            assert found["ledgerd_store_process_cpu_seconds_total"] > 0


async def test_in_memory_there_are_no_files_and_no_store_process(world):
    found = await scrape(world)
    assert {value for name, value in found.items() if "_bytes file=" in name} == {0}
    assert not [name for name in found if name.startswith("ledgerd_store_")]
