"""Arrays of payments: each payment has the result that the single call would have had, in the order sent."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from ledgerd.config import Limits, Server
from ledgerd.http.edge import EXPRESS
from ledgerd.http.in_order import WINDOW
from tests.http.outside import Answer, World, on_disk
from tests.http.streams import PATH
from tests.http.test_express import payment
from tests.http.test_overdue import stalled

NDJSON = {"Content-Type": "application/x-ndjson"}


def statuses(answer: Answer) -> list[int]:
    assert answer.status == 200, answer
    return [result["status"] for result in answer.json]


async def test_each_payment_has_its_result_in_the_order_sent(world, borrower, loan):
    other = (await world.lend(borrower))["loan_id"]
    closed = (await world.lend(borrower, amount="10.00"))["loan_id"]
    sent = [
        payment(loan, "a", "2.00"),
        payment(other, "b", "3.00"),
        payment(loan, "a", "2.00"),
        payment(loan, "a", "2.01"),
        payment(other, "a", "2.00"),
        payment("0" * 16, "c"),
        payment("nonsense", "d"),
        payment(loan, "e", "9999.00"),
        payment(loan, "f", for_bill=1),
        payment(closed, "g", "10.00"),
        payment(closed, "h", "10.00"),
        payment(closed, "g", "10.00"),
        payment(loan, "i", "0.00"),
        payment(loan, "j k"),
        {"transaction_id": "k"},
        {"loan_id": loan},
        None,
        "text",
        [],
        payment(loan, "l", "1.00", note="x"),
        payment(loan, "b", "3.00"),
    ]
    answer = await world.post(PATH, sent, world.payer)
    assert statuses(answer) == [
        *(201, 201, 200, 409, 409, 404, 404, 422, 422, 201, 409, 200),
        *(422, 422, 422, 422, 422, 422, 422, 422, 409),
    ]
    results = answer.json
    names = [each["transaction_id"] for each in results]
    assert names == [*"abaaacdefghgi", None, "k", None, None, None, None, "l", "b"]
    assert results[0]["receipt"]["amount"] == "2.00"
    assert results[0]["receipt"]["outstanding"]["total"] == "4998.00"
    assert results[2]["receipt"] == results[0]["receipt"] | {"replayed": True}
    assert results[7]["problem"]["payoff"] == "4998.00"
    assert (await world.loan(borrower, loan))["principal_received"] == "2.00"
    for outcome, count in (("applied", 3), ("replayed", 2), ("transaction-id-conflict", 3)):
        assert await world.metric(f'ledgerd_payments_total{{outcome="{outcome}"}}') == count
    again = await world.post(PATH, sent, world.payer)
    assert statuses(again)[:2] == [200, 200]
    assert (await world.loan(borrower, loan))["principal_received"] == "2.00"


# The same as one by one -------------------------------------------------------------------------------


ITEM = st.tuples(
    st.integers(0, 3),  # which loan: two that are open, one that is nearly paid, one that is none
    st.sampled_from(["1.00", "1.00", "2.5", "40.00", "6000.00", "0", "1e2", None]),
    st.sampled_from(["a", "b", "c", "d e", 7]),
    st.sampled_from([None, None, None, 1, 2, 99, 0]),
    st.sampled_from([{}, {}, {}, {}, {"note": 1}]),
)


def batches_of(count: int) -> list[list[Any]]:
    """So many lists of recipes."""
    found: list[list[Any]] = []

    @seed(1)
    @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(ITEM, min_size=1, max_size=12))
    def find(recipes):
        found.append(recipes)

    find()
    return found


async def test_a_batch_gives_item_by_item_what_the_single_calls_give(world):
    """Two clients do the same with two borrowers' loans: one in arrays and streams, one by one."""
    other = await world.new_client("payments:write")
    books = []
    for _ in range(2):
        borrower = await world.borrower()
        loans = [(await world.lend(borrower))["loan_id"] for _ in range(2)]
        nearly = (await world.lend(borrower, amount="45.00", interest_rate="0"))["loan_id"]
        books.append([*loans, nearly, "0" * 16])
    await world.advance(65)
    for number, recipes in enumerate(batches_of(60)):
        ours, theirs = ([made(recipe, book, number) for recipe in recipes] for book in books)
        if number % 2:
            body, headers = b"\n".join(json.dumps(each).encode() for each in ours), NDJSON
        else:
            body, headers = ours, {}
        answer = await world.post(PATH, body, world.payer, **headers)
        assert answer.status == 200
        results = [json.loads(line) for line in answer.body.splitlines()] if number % 2 else answer.json
        assert len(results) == len(theirs)
        for result, single in zip(results, theirs, strict=True):
            alone = await world.post("/api/make-payment/", single, other)
            assert result["status"] == alone.status
            shown = result["problem"] if alone.is_problem else result["receipt"]
            assert bare(shown, books[0]) == bare(alone.json, books[1])
            name = single["transaction_id"]
            assert result["transaction_id"] == (None if name == 7 or " " in name else name)


def made(recipe, book, number):
    """A payment by its recipe. Four batches share their names, so that some repeat."""
    loan, amount, name, for_bill, more = recipe
    named = f"{name}{number // 4}" if isinstance(name, str) else name
    body = {"loan_id": book[loan], "amount": amount, "transaction_id": named, **more}
    return body if for_bill is None else {**body, "for_bill": for_bill}


def bare(shown, book):
    """A receipt or a problem without what differs between any two payments."""
    text = json.dumps(shown | {"payment_id": None})
    for number, loan_id in enumerate(book):
        text = text.replace(loan_id, f"loan {number}")
    return text


# Refused whole ----------------------------------------------------------------------------------------


async def refused_whole(world: World, body: Any, status: int, slug: str, **headers: str | None) -> Answer:
    """The answer to an array that is refused, and that did nothing."""
    before = await world.head()
    answer = await world.post(PATH, body, world.payer, **headers)
    assert (answer.status, answer.slug) == (status, slug)
    assert await world.head() == before
    return answer


async def test_what_is_no_array_is_refused_whole(world, loan):
    good = json.dumps(payment(loan)).encode()
    for body in (b"", b" ", b"[", b"]", b"[" + good, b"[" + good + b",]", b"[" + good + b"]x", b"[nul]"):
        await refused_whole(world, body, 400, "malformed")
    for body in (b"[" + good + b', "\xff"]', b"\xef\xbb\xbf[" + good + b"]", b"[" * 100_000):
        await refused_whole(world, body, 400, "malformed")
    await refused_whole(world, b"[" + good + b', "\\ud800"]', 400, "malformed")
    for body in (good, b"1", b"null", b'"text"', b"{}"):
        await refused_whole(world, body, 422, "invalid-fields")
    for kind in (None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"):
        await refused_whole(
            world, b"[" + good + b"]", 415, "unsupported-media-type", **{"Content-Type": kind}
        )
    await refused_whole(
        world, gzip.compress(b"[]"), 415, "unsupported-media-type", **{"Content-Encoding": "gzip"}
    )
    answer = await world.post(f"{PATH}?a=1&a=2", [payment(loan)], world.payer)
    assert (answer.status, answer.slug) == (422, "invalid-fields")


async def test_an_array_of_nothing(world):
    assert (await world.post(PATH, [], world.payer)).body == b"[]"


async def test_what_is_bad_in_one_item_is_its_own(world, loan):
    good = json.dumps(payment(loan, "t")).encode()
    items = [
        *(good[:-1] + b', "amount": 2}', good[:-1] + b', "\\u0061mount": 2}'),
        *(b"[[[[[[]]]]]]", good[:-1].ljust(16_383) + b"}", good[:-1].ljust(16_384) + b"}", b"1e400"),
    ]
    answer = await world.post(PATH, b"[" + b" ,\n".join(items) + b"]", world.payer)
    assert statuses(answer) == [422, 422, 422, 201, 413, 422]
    assert answer.json[0]["problem"]["errors"] == [{"path": "amount", "message": "is repeated"}]


async def test_an_array_that_is_too_long_is_refused_whole(open_world):
    async with open_world(limits=Limits(batch_items=3, batch_bytes=1_000)) as world:
        loan = (await world.lend(await world.borrower()))["loan_id"]
        four = [payment(loan, f"t{number}") for number in range(4)]
        answer = await refused_whole(world, four, 413, "body-too-large")
        assert "3 payments" in answer.json["detail"]
        await refused_whole(world, b"[" + b"1," * 400 + b"1]", 413, "body-too-large")
        await refused_whole(world, json.dumps(four[:3]).encode().ljust(1_001), 413, "body-too-large")
        answer = await world.post(PATH, json.dumps(four[:3]).encode().ljust(1_000), world.payer)
        assert statuses(answer) == [201] * 3


@pytest.mark.parametrize("limits", [Limits(mailbox=4), Limits(in_flight=4)], ids=["mailbox", "in_flight"])
async def test_an_array_that_finds_no_room_is_refused_whole(open_world, limits):
    async with open_world(limits=limits) as world:
        loan = (await world.lend(await world.borrower()))["loan_id"]
        five = [payment(loan, f"t{number}") for number in range(5)]
        answer = await refused_whole(world, five, 503, "overloaded")
        assert answer.headers["Retry-After"] == "1"
        assert await world.metric('ledgerd_payments_total{outcome="overloaded"}') == 5
        assert statuses(await world.post(PATH, five[:4], world.payer)) == [201] * 4
        assert statuses(await world.post(PATH, [*five[4:], None, None], world.payer)) == [201, 422, 422]


async def test_a_long_array_on_one_loan_goes_through_a_smaller_mailbox(world, borrower, loan):
    """As many as a call has under way at once must find room; the rest follows them."""
    limits = world.service.config.limits
    assert limits.batch_items > limits.in_flight > limits.mailbox > WINDOW
    sent = [payment(loan, f"t{number}", "0.01") for number in range(limits.batch_items)]
    answer = await world.post(PATH, sent, world.payer)
    assert statuses(answer) == [201] * limits.batch_items
    assert [each["transaction_id"] for each in answer.json] == [each["transaction_id"] for each in sent]
    assert (await world.loan(borrower, loan))["principal_received"] == "100.00"
    await refused_whole(world, [*sent, payment(loan, "one-more")], 413, "body-too-large")


# With others ------------------------------------------------------------------------------------------


async def test_each_counts_once_whoever_sends_it_and_how(world, borrower, loan):
    sent = [payment(loan, f"t{number}", "1.00") for number in range(200)]
    lines = b"\n".join(json.dumps(each).encode() for each in sent)
    answers = await asyncio.gather(
        world.post(PATH, sent, world.payer),
        world.post(PATH, lines, world.payer, **NDJSON),
        world.post(PATH, sent[::-1], world.payer),
        *(world.post("/api/make-payment/", each, world.payer) for each in sent),
    )
    array, stream, backwards, *singles = answers
    for number in range(200):
        seen = [
            *(array.json[number]["status"], json.loads(stream.body.splitlines()[number])["status"]),
            *(backwards.json[199 - number]["status"], singles[number].status),
        ]
        assert sorted(seen) == [200, 200, 200, 201]
    assert (await world.loan(borrower, loan))["principal_received"] == "200.00"


async def test_others_are_served_while_an_array_is(world, borrower, loan):
    other = (await world.lend(borrower))["loan_id"]
    sent = [payment(loan, f"t{number}", "0.01") for number in range(5_000)]
    array = asyncio.ensure_future(world.post(PATH, sent, world.payer))
    alone = 0
    while not array.done():
        assert (await world.pay(world.payer, other, "0.01")).status == 201
        alone += 1
    assert alone > 5
    assert statuses(await array) == [201] * 5_000


async def test_who_may(world, borrower, loan):
    body = [payment(loan, "t")]
    for who, status in (
        (None, 401),
        ("nonsense", 401),
        (borrower, 403),
        (world.ops, 403),
        (world.payer, 200),
    ):
        answer = await world.post(PATH, body, who)
        assert answer.status == status
        if status == 403:
            assert 'scope="payments:write"' in answer.headers["WWW-Authenticate"]
    both = await world.new_client("payments:write", "ops")
    assert statuses(await world.post(PATH.rstrip("/"), body, both)) == [201]  # its ids are its own


async def test_a_batch_ends_with_its_store_and_what_was_acknowledged_is_there(open_world, tmp_path):
    disk = on_disk(tmp_path)
    async with open_world(storage=disk) as world:
        loan = (await world.lend(await world.borrower()))["loan_id"]
        world.errors_allowed = True
        sent = [payment(loan, f"t{number}", "0.01") for number in range(4_000)]
        array = asyncio.ensure_future(world.post(PATH, sent, world.payer))
        while await world.head() < 500:
            pass
        world.service.store._process.kill()
        results = (await array).json
        payer, time = world.payer, world.time
    counted = sum(result["status"] == 201 for result in results)
    assert [each["status"] for each in results] == [201] * counted + [500] * (4_000 - counted)
    async with open_world(storage=disk, time=time) as world:
        answer = await world.post(PATH, sent, payer)
        assert statuses(answer)[:counted] == [200] * counted
        assert set(statuses(answer)) <= {200, 201}


async def test_an_array_that_takes_too_long_goes_on(open_world, tmp_path):
    async with open_world(storage=on_disk(tmp_path), server=Server(request_timeout_s=1)) as world:
        loan = (await world.lend(await world.borrower()))["loan_id"]
        await world.pay(world.payer, loan, "1.00", "before")
        world.errors_allowed = True
        sent = [payment(loan, f"t{number}", "0.01") for number in range(3_000)]
        with stalled(world):
            answer = await world.post(PATH, sent, world.payer)
            assert (answer.status, answer.slug) == (500, "outcome-unknown")
        await asyncio.gather(*world.client.server.app[EXPRESS]._desk.under_way._work)
        assert set(statuses(await world.post(PATH, sent, world.payer))) == {200}
