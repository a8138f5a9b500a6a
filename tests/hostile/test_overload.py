"""Far more than it can take, all at once: what is refused is refused at once and not done, what is accepted
is done once, memory stays bounded, and a moment later all is as before. How much it does of what it could,
and how soon it is itself again, is measured by B6 of the benchmarks.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from tests.crash.load import Api, Payment, api, new_client, new_loans
from tests.hostile.wire import Heard, RawAnswer, answers_of
from tests.process import GUARD_S, Service, ledgerd_here, serving, write_config
from tests.test_server import connection

CONNECTIONS, AHEAD = 120, 20
LOANS = 4
SLOW = 100
LOGINS = 200
MORE_MEMORY_BYTES = 48_000_000

LIMITS = {"mailbox": 12, "in_flight": 40, "batches": 2}


def peak_bytes(pid: int) -> int:
    """The most memory that a process has had."""
    [line] = [
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")
    ]
    return int(line.split()[1]) * 1024


async def pipelined(service: Service, token: str, payments: list[Payment]) -> list[RawAnswer]:
    """Send payments ahead on one connection, and return their answers in order."""
    text = b""
    for payment in payments:
        body = json.dumps(payment.body).encode()
        last = b"Connection: close\r\n" if payment is payments[-1] else b""
        text += (
            b"POST /api/make-payment/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%s"
            b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
            % (last, token.encode(), len(body), body)
        )
    loop = asyncio.get_running_loop()
    transport, heard = await loop.create_connection(Heard, "127.0.0.1", service.port)
    transport.write(text)
    await heard.ended.wait()
    return answers_of(bytes(heard.received))


async def logins(service: Service, count: int) -> Counter[int]:
    """Guess so many passwords of nobody, all at once."""
    body = json.dumps({"email": "nobody@example.in", "password": "wrong horse"}).encode()
    request = (
        b"POST /api/login/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    loop = asyncio.get_running_loop()

    async def guess() -> int:
        transport, heard = await loop.create_connection(Heard, "127.0.0.1", service.port)
        transport.write(request)
        await heard.ended.wait()
        [answer] = answers_of(bytes(heard.received))
        if answer.status in {429, 503}:
            assert int(dict(answer.headers)["retry-after"]) >= 1
        return answer.status

    return Counter(await asyncio.gather(*(guess() for _ in range(count))))


async def all_payments(operator: Api, loan_id: str) -> list[str]:
    """The transaction ids of a loan's payments, page by page."""
    found: list[str] = []
    query = {"loan_id": loan_id, "limit": "500"}
    while True:
        status, page = await operator.get("/api/get-statement/", **query)
        assert status == 200, page
        found += [each["transaction_id"] for each in page["past_transactions"]]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


async def test_a_flood_is_refused_at_once_and_leaves_no_trace(tmp_path: Path):
    config = write_config(tmp_path, limits=LIMITS, auth={"password_workers": 1}, server={"port": 0})
    with serving(config) as service, ExitStack() as slow:
        async with asyncio.timeout(GUARD_S):
            await flood(service, slow)
    verified = ledgerd_here("verify", "--config", config)
    assert verified.code == 0, verified
    assert json.loads(verified.stdout)["differences"] == 0


async def flood(service: Service, slow: ExitStack) -> None:
    token = await new_client(service, "payments:write")
    ops = await new_client(service, "ops")
    loan_ids = await new_loans(service, LOANS)
    payments = [
        [
            Payment(f"f-{place}-{number}", loan_ids[(place + number) % LOANS], "1.00")
            for number in range(AHEAD)
        ]
        for place in range(CONNECTIONS)
    ]
    pids = (service.process.pid, service.store_pid)
    before = [peak_bytes(pid) for pid in pids]
    for place in range(SLOW):  # heads and bodies that never end, meanwhile
        client = slow.enter_context(connection(service, "127.0.0.3"))
        client.sendall(b"POST /api/login/ HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"[: 20 + place])
    guessed = asyncio.create_task(logins(service, LOGINS))
    answers = await asyncio.gather(*(pipelined(service, token, each) for each in payments))
    paid = set()
    statuses: Counter[int] = Counter()
    for sent, received in zip(payments, answers, strict=True):
        for payment, answer in zip(sent, received, strict=True):
            statuses[answer.status] += 1
            if answer.status == 201:
                paid.add(payment.transaction_id)
            else:
                assert (answer.status, answer.slug) == (503, "overloaded"), answer
                assert int(dict(answer.headers)["retry-after"]) >= 1
    assert statuses[201] > LIMITS["in_flight"], statuses
    assert statuses[503], statuses
    guesses = await guessed
    assert set(guesses) <= {401, 429, 503}, guesses
    assert guesses[401] + guesses[429], guesses
    more = [peak_bytes(pid) - earlier for pid, earlier in zip(pids, before, strict=True)]
    assert max(more) < MORE_MEMORY_BYTES, more
    # What was accepted is there once, and nothing that was refused.
    async with api(service, ops) as operator:
        kept = [one for loan_id in loan_ids for one in await all_payments(operator, loan_id)]
    assert Counter(kept) == Counter(paid)
    # And all is as before: each of the refused is taken, one after the other.
    refused = [each for sent in payments for each in sent if each.transaction_id not in paid][:100]
    async with api(service, token, connections=1) as caller:
        for payment in refused:
            status, receipt = await caller.pay(payment)
            assert (status, receipt["replayed"]) == (201, False)
        again, _ = await caller.pay(refused[0])
        assert again == 200
