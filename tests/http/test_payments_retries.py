"""Payments that are spelled otherwise, cut off, cancelled or met by a bug, and sent again: each counts once,
whichever way it takes through the service.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp.web_protocol import RequestHandler

from ledgerd.config import Limits
from ledgerd.http.overdue import UnderWay
from ledgerd.ids import parse_id
from tests.http.outside import Answer, Caller, World, on_disk
from tests.http.streams import PATH as BATCHES
from tests.http.test_express import ORDINARY, payment

WAYS = ("/api/make-payment/", ORDINARY)
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, with a RST
PRICE = "12.50"
MANY = 300


@pytest.fixture(params=WAYS, ids=["express", "ordinary"])
def way(request: pytest.FixtureRequest) -> str:
    """Where payments are sent: taken by the express lane, or not."""
    return str(request.param)


async def paid(world: World, borrower: Caller, loan: str) -> list[tuple[str, str]]:
    """What has counted, oldest first; with it, what the loan says that it has received."""
    statement = await world.statement(borrower, loan, "&limit=500")
    rows = statement["past_transactions"][::-1]
    paise = sum(int(row["amount_paid"].replace(".", "")) for row in rows)
    shown = await world.loan(borrower, loan)
    assert shown["principal_received"] == f"{paise // 100}.{paise % 100:02}"  # on the first day: no interest
    assert shown["version"] == 1 + len(rows)
    return [(row["transaction_id"], row["amount_paid"]) for row in rows]


# Spelled otherwise --------------------------------------------------------------------------------


async def test_the_same_payment_in_another_order_and_spelling_is_a_replay(world, borrower, loan, way):
    first = await world.post(way, payment(loan, "same", PRICE), world.payer)
    assert first.status == 201
    spelt = [
        f'{{"transaction_id": "same", "amount": "{PRICE}", "loan_id": "{loan}"}}',
        f'{{"amount":12.5,"loan_id":"{loan}","transaction_id":"same"}}',
        f' \r\n\t{{ "loan_id" : "{loan}" ,\n"transaction_id":\t"same","amount" : "012.5" }} \n',
        f'{{"\\u006coan_id": "{loan}", "amount": "12.\\u0035", "transaction_id": "\\u0073ame"}}',
        f'{{"loan_id": "{loan}", "amount": "{PRICE}", "transaction_id": "same", "for_bill": null}}',
    ]
    for body in spelt:
        again = await world.post(way, body.encode(), world.payer)
        assert (again.status, again.headers.get("Idempotent-Replayed")) == (200, "true"), body
        assert again.json == first.json | {"replayed": True}
    assert await paid(world, borrower, loan) == [("same", PRICE)]


async def test_the_same_application_in_another_order_and_spelling_is_a_replay(world, borrower):
    terms = {"amount": "1000.00", "interest_rate": "12", "tenure": 3}
    first = await world.post("/api/apply-loan/", terms, borrower, **{"Idempotency-Key": "k"})
    assert first.status == 201
    for body in (
        '{"tenure": 3, "interest_rate": "12", "amount": "1000.00"}',
        ' {"interest_rate":12.00,"repayment_plan":"min_due","amount":1000,"\\u0074enure":3}\n',
    ):
        again = await world.post("/api/apply-loan/", body.encode(), borrower, **{"Idempotency-Key": "k"})
        assert (again.status, again.body) == (200, first.body), body
    assert len((await world.get("/api/loans/", borrower)).json["loans"]) == 1


async def test_a_conflict_leaves_what_counted_as_it_was(world, borrower, loan, way):
    """Another amount, or another loan of the same borrower, under an id that was used."""
    other = (await world.lend(borrower))["loan_id"]
    first = await world.post(way, payment(loan, "used", PRICE), world.payer)
    for body in (payment(loan, "used", "12.51"), payment(other, "used", PRICE), payment(other, "used", "1")):
        answer = await world.post(way, body, world.payer)
        assert (answer.status, answer.slug) == (409, "transaction-id-conflict"), body
    assert await paid(world, borrower, loan) == [("used", PRICE)]
    assert await paid(world, borrower, other) == []
    again = await world.post(way, payment(loan, "used", PRICE), world.payer)
    assert again.json == first.json | {"replayed": True}


# Cut off ------------------------------------------------------------------------------------------


async def test_a_payment_whose_answer_was_cut_off_after_any_byte_is_replayed(world, borrower, loan, way):
    """The caller reads so many bytes of the answer and resets the connection."""
    whole = await answer_to(world, way, payment(loan, "c----", PRICE))
    head = whole.index(b"\r\n\r\n")
    cuts = [0, 1, len(b"HTTP/1.1 2"), head - 1, head + 2, head + 4, head + 5, len(whole) - 1, len(whole)]
    for read_bytes in cuts:
        body = payment(loan, f"c{read_bytes:04}", PRICE)
        heard = await answer_to(world, way, body, read_bytes)
        assert len(heard) == read_bytes
        again = await world.post(way, body, world.payer)
        # With nothing read the reset may come before the payment: that it is sent again settles it.
        assert again.status in ({200, 201} if read_bytes == 0 else {200}), read_bytes
        receipt = (await world.get(f"/api/payments/{body['transaction_id']}/", world.payer)).json
        assert again.json == receipt | {"replayed": again.status == 200}
        shown = json.dumps(receipt, separators=(",", ":")).encode()
        assert shown.startswith(heard[head + 4 :] if read_bytes > head + 4 else b"")
    assert await paid(world, borrower, loan) == [("c----", PRICE), *((f"c{n:04}", PRICE) for n in cuts)]


async def answer_to(world: World, way: str, body: dict[str, Any], read_bytes: int | None = None) -> bytes:
    """Pay on a connection of its own and return the answer, or so many bytes of it and a reset."""
    content = json.dumps(body).encode()
    head = (
        f"POST {way} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {world.payer.token}\r\n"
        f"Content-Type: application/json\r\nX-Request-ID: mine\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", world.client.port))
        await loop.sock_sendall(client, head.encode() + content)
        heard = b""
        while read_bytes is None or len(heard) < read_bytes:
            heard += await loop.sock_recv(client, 65_536 if read_bytes is None else read_bytes - len(heard))
            if read_bytes is None and heard.endswith(b"}"):
                break
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    return heard


# Cancelled ----------------------------------------------------------------------------------------


class CancelledAt:
    """Work whose task is cancelled where it waits for the `last`-th time, as if by whoever owns the task."""

    def __init__(self, last: int, work: Coroutine[Any, Any, Any]) -> None:
        self.left = last
        self._work = work

    def __await__(self) -> Generator[Any, Any, Any]:
        go_on: Callable[[], Any] = partial(self._work.send, None)
        while True:
            try:
                waits_for = go_on()
            except StopIteration as ended:
                return ended.value
            self.left -= 1
            if self.left == 0:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
            try:
                yield waits_for
                go_on = partial(self._work.send, None)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the work's to hear of
                go_on = partial(self._work.throw, error)


class Canceller:
    """Cancels the next request, or the work that it waits for, at its `at`-th wait."""

    def __init__(self, patch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        self.at = 0
        self.hit = False
        original = getattr(owner, name)

        async def cancelled(it: Any, *args: Any) -> Any:
            at, self.at = self.at, 0
            if at == 0:
                return await original(it, *args)
            if owner is UnderWay:
                [work] = args
                return await original(it, self._awaited(at, work))
            return await self._awaited(at, original(it, *args))

        patch.setattr(owner, name, cancelled)

    async def _awaited(self, at: int, work: Coroutine[Any, Any, Any]) -> Any:
        cancelled = CancelledAt(at, work)
        try:
            return await cancelled
        finally:
            self.hit = cancelled.left <= 0


@pytest.fixture(
    params=[(RequestHandler, "_handle_request"), (UnderWay, "outcome_of")], ids=["request", "work"]
)
def canceller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Canceller]:
    """What cancels: the task of a request, or that of the work that it waits for."""
    owner, name = request.param
    return Canceller(monkeypatch, owner, name)


async def each_wait(canceller: Canceller, send: Callable[[int], Coroutine[Any, Any, Answer]]) -> int:
    """Send request 1, cancelled at its first wait, request 2 at its second, and so on, each then again, until
    one has waited less often; return its number.
    """
    for number in count(1):
        canceller.at, canceller.hit = number, False
        with suppress(aiohttp.ServerDisconnectedError):
            await send(number)
        assert canceller.at == 0
        again = await send(number)
        assert again.status in {200, 201} or again.slug == "already-registered", again
        if isinstance(again.json, list):
            assert {result["status"] for result in again.json} <= {200, 201}
        if not canceller.hit:
            return number
    raise AssertionError


async def test_what_is_cancelled_wherever_it_waits_and_sent_again_is_done_once(
    open_world, tmp_path, canceller
):
    """People, payments, alone and many at once, and applications; on a store in a process of its own, so that
    each question to it is a wait.
    """
    async with open_world(storage=on_disk(tmp_path), limits=Limits(batches=1)) as world:
        borrower = await world.borrower()
        loan, of_batches = [(await world.lend(borrower))["loan_id"] for _ in range(2)]

        async def pay(number: int) -> Answer:
            world.time.now_s += 60  # the vault is asked again who this is
            return await world.post(ORDINARY, payment(loan, f"t{number}", PRICE), borrower)

        async def apply(number: int) -> Answer:
            terms = {"amount": f"{number}.00", "interest_rate": "12", "tenure": 3}
            return await world.post("/api/apply-loan/", terms, borrower, **{"Idempotency-Key": f"k{number}"})

        async def pay_many(number: int) -> Answer:
            many = [payment(of_batches, f"m{number}-{each}", "0.01") for each in range(MANY)]
            return await world.post(BATCHES, many, world.payer)

        async def register(number: int) -> Answer:
            return await world.register(aadhar_id=f"person-{number}", email=f"person-{number}@example.com")

        people = await each_wait(canceller, register)
        for number in range(1, people + 1):
            await world.log_in(f"person-{number}")
        payments = await each_wait(canceller, pay)
        assert await paid(world, borrower, loan) == [(f"t{n}", PRICE) for n in range(1, payments + 1)]
        applications = await each_wait(canceller, apply)
        loans = (await world.get("/api/loans/", borrower)).json["loans"]
        lent = sorted(float(each["amount"]) for each in loans)
        assert lent == sorted([*range(1, applications + 1), 5000, 5000])
        batches = await each_wait(canceller, pay_many)
        shown = await world.loan(borrower, of_batches)
        assert shown["version"] == 1 + MANY * batches
        assert shown["principal_received"] == f"{MANY * batches / 100:.2f}"
        assert world.service.registry.in_flight == 0
        assert min(people, payments, applications, batches) > 1  # each was cancelled somewhere


# Met by a bug -------------------------------------------------------------------------------------


async def test_a_bug_of_one_loan_is_unknown_to_one_caller_and_the_next_payment_is_right(
    world, borrower, loan, way, asked
):
    other = (await world.lend(borrower))["loan_id"]
    assert (await world.post(way, payment(loan, "before", PRICE), world.payer)).status == 201
    actor = world.service.registry._actors[parse_id(loan)]
    actor.loan = msgspec.structs.replace(actor.loan, unpaid_bills=None)  # how it came to be, nobody knows
    world.errors_allowed = True
    asked.clear()
    bodies = [payment(loan, "one", PRICE), payment(loan, "two", PRICE), payment(other, "else", "3.00")]
    *both, elsewhere = await asyncio.gather(*(world.post(way, body, world.payer) for body in bodies))
    hit, behind = sorted(both, key=lambda answer: -answer.status)  # whichever came first
    assert (hit.status, hit.slug) == (500, "outcome-unknown")
    assert b"unpaid_bills" not in hit.body
    assert (behind.status, elsewhere.status) == (201, 201)
    assert behind.json["outstanding"]["principal"] == "4975.00"
    assert [call for call in asked if call[0] == "load"] == [("load", [parse_id(loan)])]
    again = await world.post(way, bodies[both.index(hit)], world.payer)
    assert (again.status, again.json["replayed"]) == (201, False)
    assert again.json["outstanding"]["principal"] == "4962.50"
    counted = ["before", behind.json["transaction_id"], again.json["transaction_id"]]
    assert await paid(world, borrower, loan) == [(each, PRICE) for each in counted]
    assert await paid(world, borrower, other) == [("else", "3.00")]
    assert "outcome unknown" in world.log.getvalue()
