"""What every store behind the seam does: the engine in memory, the engine on files, the store process."""

from __future__ import annotations

import stat
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ledgerd.domain.events import BillIssued, decode_event
from ledgerd.storage.chain import GENESIS
from ledgerd.storage.journal import VersionGap
from ledgerd.storage.ports import Entry, Loaded, Opened, StoredEvent, StoreError, Verdict
from ledgerd.storage.verify import verify_files
from tests.storage.books import BORROWER, RULES, START, Place, Writer, add_borrower, key_of, live, stored
from tests.storage.conftest import AnyStore, opened

NEXT = START + 30  # when a loan's first bill is issued
on_disk = pytest.mark.parametrize("kind", ["files", "process"])


async def append(store: AnyStore, *entries: Entry) -> tuple[Verdict, ...]:
    return (await store.append(store.opened.epoch, entries)).exceptions


async def lent(store: AnyStore, *loan_ids: int) -> list[Writer]:
    writers = [Writer(loan_id) for loan_id in loan_ids]
    assert await append(store, *(writer.lend() for writer in writers)) == ()
    return writers


async def head(store: AnyStore) -> int:
    return (await store.append(store.opened.epoch, [])).head_seq


async def page(store: AnyStore, writer: Writer, before: int | None = None, limit: int = 500) -> list[Any]:
    rows = await store.read("payments_page", writer.loan_id, writer.version, before, limit)
    assert isinstance(rows, list)
    return rows


async def seen(store: AnyStore, writer: Writer) -> list[Any]:
    """Everything that the store says of a loan; a payment's pointer is the store's own affair."""
    rows = await page(store, writer)
    bills = await store.read("issued_bills", writer.loan_id, writer.version)
    return [await store.load([writer.loan_id]), [row[:3] + row[4:] for row in rows], bills]


async def project(store: AnyStore) -> None:
    through = await head(store)
    assert await store.project_through(through) == through


async def owner_of(store: AnyStore, transaction_id: str) -> StoredEvent | None:
    owner = await store.read("owner_of", key_of(transaction_id))
    assert owner is None or isinstance(owner, StoredEvent)
    return owner


# Appending and what comes back ---------------------------------------------------------------------


async def test_a_new_store_is_empty(store: AnyStore) -> None:
    assert (store.opened.epoch, store.opened.head_seq, store.opened.projected_seq) == (1, 0, 0)
    assert await store.load([5, 6]) == [Loaded(5, 0, GENESIS, None), Loaded(6, 0, GENESIS, None)]
    assert await store.read("payments_page", 5, 0, None, 10) == []
    assert await store.read("issued_bills", 5, 0) == []
    assert await owner_of(store, "t") is None
    assert await store.project_through(99) == 0


async def test_what_is_appended_comes_back_the_same_before_and_after_projection(store: AnyStore) -> None:
    chance = Random(1)
    writers = [Writer(loan_id) for loan_id in (30, 10, 20)]
    entries = [entry for writer in writers for entry in live(writer, chance, 25)]
    assert await append(store, *entries) == ()
    events = stored(entries)
    expected = []
    for writer in writers:
        of_loan = [event for event in events if event.loan_id == writer.loan_id]
        bills = [event for event in map(decode, of_loan) if isinstance(event, BillIssued)]
        paid = [event.seq for event in reversed(of_loan) if event.kind == "paid"]
        assert len(bills) > 2 < len(paid)
        before = await seen(store, writer)
        assert before[0] == [writer.loaded]
        assert [row[0] for row in before[1]] == paid
        assert before[2] == bills
        expected.append(before)
    await project(store)
    assert [await seen(store, writer) for writer in writers] == expected


def decode(event: StoredEvent) -> Any:
    return decode_event(event.body)


async def test_loans_are_loaded_in_the_order_asked(store: AnyStore) -> None:
    first, second = await lent(store, 10, 20)
    nobody = Loaded(15, 0, GENESIS, None)
    assert await store.load([20, 15, 10, 20]) == [second.loaded, nobody, first.loaded, second.loaded]
    await project(store)
    assert await store.load([20, 15, 10, 20]) == [second.loaded, nobody, first.loaded, second.loaded]
    assert await store.load([]) == []


async def test_one_batch_holds_entries_of_many_loans_many_times(store: AnyStore) -> None:
    writers = [Writer(loan_id) for loan_id in range(1, 41)]
    entries = [writer.lend() for writer in writers]
    entries += [writer.pay(f"{n}-{writer.loan_id}") for n in range(3) for writer in writers]
    reply = await store.append(store.opened.epoch, entries)
    assert (reply.head_seq, reply.exceptions) == (160, ())
    assert await store.load(range_of(writers)) == [writer.loaded for writer in writers]


def range_of(writers: list[Writer]) -> list[int]:
    return [writer.loan_id for writer in writers]


async def test_the_last_event_of_an_entry_bears_its_key(store: AnyStore) -> None:
    [writer] = await lent(store, 1)
    entry = writer.pay("late", today=NEXT + 31)
    assert [event.kind for event in entry.events] == ["billed", "billed", "paid"]
    assert await append(store, entry) == ()
    for _ in range(2):
        owner = await owner_of(store, "late")
        assert owner == stored([entry], first_seq=2)[2]
        await project(store)
    assert await store.read("owner_of", b"") is None


async def test_an_empty_batch_asks_how_far_things_are(store: AnyStore) -> None:
    await lent(store, 1, 2)
    assert (await store.append(store.opened.epoch, [])).head_seq == 2
    await project(store)
    reply = await store.append(store.opened.epoch, [])
    assert (reply.head_seq, reply.projected_seq, reply.exceptions) == (2, 2, ())


async def test_the_projection_goes_as_far_as_asked_and_never_back(store: AnyStore) -> None:
    writers = await lent(store, *range(1, 12))
    assert await store.project_through(4) >= 4
    through = await store.project_through(len(writers) + 1_000)
    assert through == len(writers)
    assert await store.project_through(0) == through


async def test_pages_follow_one_another_while_the_projection_passes_them(store: AnyStore) -> None:
    [writer] = await lent(store, 1)
    assert await append(store, *(writer.pay(f"t{n}") for n in range(10))) == ()
    rows = await page(store, writer, limit=4)
    assert [row[5] for row in rows] == ["t9", "t8", "t7", "t6"]
    through = writer.version
    await project(store)
    assert await append(store, *(writer.pay(f"t{n}") for n in range(10, 13))) == ()
    rows = await store.read("payments_page", 1, through, rows[-1][0], 4)
    assert [row[5] for row in rows] == ["t5", "t4", "t3", "t2"]
    rows = await store.read("payments_page", 1, through, rows[-1][0], 4)
    assert [row[5] for row in rows] == ["t1", "t0"]
    assert await store.read("payments_page", 1, through, rows[-1][0], 4) == []


# Keys that are taken -------------------------------------------------------------------------------


async def test_a_key_is_taken_within_its_own_batch(store: AnyStore) -> None:
    one, two = await lent(store, 1, 2)
    first, again, asked = one.pay("t"), two.pay("t"), one.ask("t")
    owner = stored([first], first_seq=3)[0]
    assert await append(store, first, again, asked) == (
        Verdict(1, "taken", owner),
        Verdict(2, "taken", owner),
    )
    assert await store.load([1, 2]) == [one.loaded, Writer(2, (await store.load([2]))[0]).loaded]
    assert (await store.load([2]))[0].version == 1
    assert await head(store) == 3


async def test_a_key_is_taken_by_what_is_in_memory_and_by_what_is_in_the_index(store: AnyStore) -> None:
    one, two = await lent(store, 1, 2)
    entry = one.pay("t")
    assert await append(store, entry) == ()
    owner = stored([entry], first_seq=3)[0]
    for _ in range(2):  # unprojected, then projected
        state = two.state
        assert await append(store, two.pay("t")) == (Verdict(0, "taken", owner),)
        two.state = state
        assert await append(store, two.ask("t")) == (Verdict(0, "taken", owner),)
        assert await owner_of(store, "t") == owner
        await project(store)
    assert await head(store) == 3


async def test_many_keys_are_looked_up_for_one_batch(store: AnyStore) -> None:
    [writer] = await lent(store, 1)
    assert await append(store, *(writer.pay(f"t{n}", 1) for n in range(0, 1_200, 2))) == ()
    await project(store)
    verdicts = await append(store, *(writer.ask(f"t{n}") for n in range(1_200)))
    assert [verdict.index for verdict in verdicts] == list(range(0, 1_200, 2))
    owners = [verdict.owner for verdict in verdicts if verdict.owner is not None]
    assert [owner.once_key for owner in owners] == [key_of(f"t{n}") for n in range(0, 1_200, 2)]


async def test_asking_after_a_free_key_writes_nothing_and_uses_nothing_up(store: AnyStore) -> None:
    [writer] = await lent(store, 1)
    assert await append(store, writer.ask("t"), writer.ask("t")) == ()
    assert await head(store) == 1
    assert await owner_of(store, "t") is None
    assert await append(store, writer.ask("t"), writer.pay("t")) == ()


async def test_a_disbursal_has_a_key_of_its_own(store: AnyStore) -> None:
    first, second = Writer(1), Writer(2)
    entry = first.lend(idempotency_key="apply-1")
    assert await append(store, entry, second.lend(idempotency_key="apply-1")) == (
        Verdict(1, "taken", stored([entry])[0]),
    )
    assert (await store.load([2]))[0].version == 0
    # The loan that never was may come again, under another key.
    second = Writer(2)
    assert await append(store, second.lend(idempotency_key="apply-2")) == ()
    assert await store.load([2]) == [second.loaded]


async def test_a_loans_later_entries_are_stale_until_the_version_comes_again(store: AnyStore) -> None:
    one, two = await lent(store, 1, 2)
    assert await append(store, two.pay("t")) == ()
    [owner] = [await owner_of(store, "t")]
    before = one.state
    batch = [one.pay("t"), one.pay("u"), two.pay("v"), one.ask("w")]
    assert await append(store, *batch) == (
        Verdict(0, "taken", owner),
        Verdict(1, "stale"),
        Verdict(3, "stale"),
    )
    # Also in the batches that were on their way, and also when only a question.
    assert await append(store, one.ask("x"), one.pay("y")) == (Verdict(0, "stale"), Verdict(1, "stale"))
    await project(store)
    assert await append(store, one.pay("z")) == (Verdict(0, "stale"),)
    one.state = before
    assert await append(store, one.pay("u"), one.pay("y")) == ()
    assert await store.load([1, 2]) == [one.loaded, two.loaded]
    assert await owner_of(store, "z") is None


async def test_a_stale_entry_hears_whose_its_key_is(store: AnyStore) -> None:
    """So that a storm of retries is decided again once, and not once for each."""
    [one] = await lent(store, 1)
    assert await append(store, one.pay("t"), one.pay("u"), one.pay("v")) == ()
    owners = {key_of(name): await owner_of(store, name) for name in "tuv"}
    batch = [one.pay("t"), one.pay("u"), one.pay("new"), one.pay("v")]
    verdicts = await append(store, *batch)
    assert [verdict.outcome for verdict in verdicts] == ["taken", "stale", "stale", "stale"]
    assert [verdict.owner for verdict in verdicts] == [owners.get(entry.once_key or b"") for entry in batch]


async def test_a_question_with_the_right_version_ends_a_stale_run(store: AnyStore) -> None:
    [one] = await lent(store, 1)
    assert await append(store, one.pay("t")) == ()
    before = one.state
    assert [verdict.outcome for verdict in await append(store, one.pay("t"), one.pay("u"))] == [
        "taken",
        "stale",
    ]
    one.state = before
    assert await append(store, one.ask("u"), one.pay("u")) == ()


async def test_a_taken_question_makes_nothing_stale(store: AnyStore) -> None:
    [one] = await lent(store, 1)
    assert await append(store, one.pay("t")) == ()
    verdicts = await append(store, one.ask("t"), one.pay("u"))
    assert [(verdict.index, verdict.outcome) for verdict in verdicts] == [(0, "taken")]
    assert await store.load([1]) == [one.loaded]


# Refusals ------------------------------------------------------------------------------------------


async def test_an_owner_of_another_epoch_is_fenced(store: AnyStore) -> None:
    [writer] = await lent(store, 1)
    for epoch in (store.opened.epoch - 1, store.opened.epoch + 1):
        with pytest.raises(StoreError, match="fenced"):
            await store.append(epoch, [Writer(2).lend()])
    assert await head(store) == 1
    assert await append(store, writer.pay("t")) == ()


@pytest.mark.parametrize("where", ["in memory", "in the batch"])
async def test_a_gap_in_a_loans_versions_stops_the_batch_whole(
    store: AnyStore, place: Place, where: str
) -> None:
    """Such an owner is broken: the store process ends rather than write it."""
    [one] = await lent(store, 1)
    batch = [Writer(2).lend()]
    if where == "in the batch":
        batch.append(one.pay("counts"))
    lost = one.pay("lost")
    assert lost.events
    batch.append(one.pay("after what was lost"))
    with pytest.raises((VersionGap, StoreError)):
        await append(store, *batch)
    if not place.tables.exists():
        assert await head(store) == 1
        assert (await store.load([2]))[0].version == 0
        return
    await store.close()
    async with opened("files", place) as again:
        assert again.opened.head_seq == 1
        assert (await again.load([2]))[0].version == 0


async def test_reads_and_writes_go_by_name_and_a_failed_write_leaves_nothing(store: AnyStore) -> None:
    assert await store.read("is_registered", BORROWER) is True
    await store.write("begin_run", 5, START, 1_000)
    with pytest.raises(Exception, match="UNIQUE"):
        await store.write("begin_run", 5, START + 1, 2_000)
    assert (await store.read("run_by_id", 5))[2] == "running"  # the failed write would have interrupted it
    for call in (store.read, store.write):
        with pytest.raises((KeyError, RuntimeError), match="no_such_name"):
            await call("no_such_name")


async def test_a_result_comes_back_as_plain_data(store: AnyStore) -> None:
    await store.write("save_clock", "sandbox", START)
    assert await store.read("read_clock") == ["sandbox", START]
    assert await store.write("bind_vault", b"\x00\xff" * 16) == {}
    assert await store.write("bind_vault", b"other") == {"refused": "other-vault"}


# Backup and coming back ----------------------------------------------------------------------------


async def test_a_backup_opens_as_a_database_of_its_own(store: AnyStore, tmp_path: Path) -> None:
    chance = Random(3)
    writers = [Writer(loan_id) for loan_id in (1, 2)]
    for writer in writers:
        assert await append(store, *live(writer, chance, 10)) == ()
    await project(store)
    third = Writer(3)
    assert await append(store, *live(third, chance, 10)) == ()
    expected = [await seen(store, writer) for writer in (*writers, third)]
    copy = Place(tmp_path / "deep" / "copy")
    await store.backup(str(copy.folder))
    assert sorted(path.name for path in copy.folder.iterdir()) == ["ledgerd.db", "ledgerd.journal.db"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in copy.folder.iterdir()} == {0o600}
    assert await append(store, Writer(4).lend()) == ()
    async with opened("files", copy) as restored:
        assert [await seen(restored, writer) for writer in (*writers, third)] == expected
        assert (await restored.load([4]))[0].version == 0
    with pytest.raises((OSError, StoreError), match="File exists"):
        await store.backup(str(copy.folder))


@on_disk
async def test_it_goes_on_after_a_clean_stop(kind: str, place: Place) -> None:
    writers = [Writer(loan_id) for loan_id in (1, 2)]
    written: list[Entry] = []
    for epoch in (1, 2, 3):
        async with opened(kind, place) as store:
            count = len(stored(written))
            assert store.opened == Opened(epoch, head_seq=count, projected_seq=count)
            if epoch == 1:
                await add_borrower(store)
                written += [writer.lend() for writer in writers]
            written += [
                writer.pay(f"{epoch}-{writer.loan_id}", today=START + 31 * epoch) for writer in writers
            ]
            assert await append(store, *written[-4 if epoch == 1 else -2 :]) == ()
            assert await store.load([1, 2]) == [writer.loaded for writer in writers]
    assert verify_files(place.tables, place.journal, RULES, lambda done, total: None).found == 0
    events = place.query(
        "SELECT seq, loan_id, version, kind, once_key, hash, body FROM events", file="journal"
    )
    assert [StoredEvent(*row) for row in events] == stored(written)
    assert place.query("SELECT count(*) FROM batches", file="journal") == [(3,)]


@on_disk
async def test_a_key_stays_taken_over_a_restart(kind: str, place: Place) -> None:
    async with opened(kind, place) as store:
        await add_borrower(store)
        one, _ = await lent(store, 1, 2)
        entry = one.pay("t")
        assert await append(store, entry) == ()
    async with opened(kind, place) as store:
        again = Writer(2, (await store.load([2]))[0])
        verdicts = await append(store, again.pay("t"), again.ask("u"))
        assert verdicts == (Verdict(0, "taken", stored([entry], first_seq=3)[0]), Verdict(1, "stale"))


async def test_what_was_durable_and_not_projected_is_recovered(place: Place) -> None:
    async with opened("files", place) as store:
        await add_borrower(store)
    writers = [Writer(loan_id) for loan_id in (1, 2)]
    async with opened("process", place) as killed:
        with place.projection_held():
            entries = [entry for writer in writers for entry in live(writer, Random(6), 12)]
            assert await append(killed, *entries) == ()
            killed._process.kill()  # type: ignore[union-attr]
            killed._process.wait()  # type: ignore[union-attr]
    assert place.query("SELECT value FROM meta WHERE key = 'projected_seq'") == [(0,)]
    async with opened("process", place) as store:
        assert (store.opened.projected_seq, store.opened.head_seq) == (0, len(stored(entries)))
        assert await store.load([1, 2]) == [writer.loaded for writer in writers]
        keyed = [event for event in stored(entries) if event.once_key is not None]
        assert [await store.read("owner_of", event.once_key) for event in keyed] == keyed
        before = [await seen(store, writer) for writer in writers]
        await project(store)
        assert [await seen(store, writer) for writer in writers] == before
