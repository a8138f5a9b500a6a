"""The real service on a disk, or under a system, that fails it: each fault once, without any compiler.

`python -m tests.crash --mode faults` fails every call that writes or syncs in turn.
"""

from __future__ import annotations

import asyncio
import fcntl
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import pytest

from ledgerd.server import FILES_BESIDES
from ledgerd.storage.process import STOPS
from tests.crash.load import Load, Payment, api, check, open_books
from tests.crash.rounds import planted
from tests.crash.test_full_disk import limit_files
from tests.process import GUARD_S, NotReady, Service, complaints, ledgerd, serving, write_config

STOPPED = [
    f"{STOPS}: disk I/O error (SQLITE_IOERR_FSYNC)",
    "ledgerd: the store ended: see the log above; start again, callers retry by transaction_id",
]
KILLED = "the store did not close in time: killed"


def said(service: Service) -> list[str]:
    return complaints(service.log)


# A sync that fails -------------------------------------------------------------------------------


async def test_a_sync_of_the_journal_that_fails_ends_the_service(tmp_path: Path):
    """What SQLite reports as failed may be there all the same: nobody is told that it isn't."""
    config_path, broken = write_config(tmp_path / "db"), tmp_path / "broken"
    with serving(config_path, **planted(CRASH_SYNC=f"journal {broken}")) as service:
        books = await open_books(service, loans=3)

        def on_answer(answers: int) -> None:
            if answers == 100:
                broken.touch()

        await asyncio.wait_for(Load(books, Random(1), on_answer).run(service, clients=16), 60)
        assert await service.until_ended() == 1
    assert said(service) == STOPPED
    with serving(config_path) as service:
        await check(books, service)
    assert books.counts["unknown, was there"] > 0
    assert books.counts["acknowledged"] > 0
    assert books.counts["lost"] == books.counts["doubled"] == 0


async def test_a_sync_of_the_tables_that_fails_ends_the_service(tmp_path: Path):
    """As it starts, and in a direct write."""
    config_path, broken = write_config(tmp_path / "db"), tmp_path / "broken"
    fails = planted(CRASH_SYNC=f"tables {broken}")
    broken.touch()
    with pytest.raises(NotReady) as ended:
        Service(config_path, **fails)
    assert ended.value.code == 1
    stopped, why = complaints(ended.value.log)
    assert stopped == STOPPED[0]
    assert why == "ledgerd: the store has ended: what it had not acknowledged is unknown"
    broken.unlink()
    login = {"aadhar_id": "borrower-1", "password": "correct horse battery"}
    person = {"name": "Asha", "email": "asha@example.org", "annual_income": "200000.00", **login}
    with serving(config_path, **fails) as service:
        broken.touch()
        async with api(service) as caller:
            status, answer = await caller.post("/api/register-user/", person)
        assert (status, answer["type"]) == (500, "/problems/outcome-unknown")
        assert await service.until_ended() == 1
    assert said(service) == STOPPED
    with serving(config_path) as service:
        async with api(service) as caller:
            status, _ = await caller.post("/api/register-user/", person)
    assert status in {201, 409}


# A slow disk -------------------------------------------------------------------------------------


async def test_while_the_disk_takes_its_time_some_wait_and_the_others_hear_so_at_once(tmp_path: Path):
    config_path, slow = write_config(tmp_path / "db", limits={"mailbox": 20}), tmp_path / "slow"
    slow.touch()
    with serving(config_path, **planted(CRASH_SLOW=str(slow))) as service:
        books = await open_books(service, loans=1)
        payments = [Payment(f"t-{number}", books.loan_ids[0], "1.00") for number in range(60)]
        refused = asyncio.Semaphore(0)
        async with api(service, books.token) as caller:

            async def pay(payment: Payment) -> int:
                async with caller._session.post("/api/make-payment/", json=payment.body) as response:
                    payment.note(response.status, await response.json(content_type=None))
                    if response.status == 503:
                        assert response.headers["Retry-After"] == "1"
                        refused.release()
                    return response.status

            with held(slow):
                paying = [asyncio.create_task(pay(payment)) for payment in payments]
                async with asyncio.timeout(GUARD_S):
                    for _ in range(40):
                        await refused.acquire()
                assert sum(task.done() for task in paying) == 40  # nobody hears of what is not on disk
                status, _ = await caller.get("/livez")
                assert status == 200
            statuses = await asyncio.gather(*paying)
        assert sorted(statuses) == [201] * 20 + [503] * 40
        books.open = {payment.transaction_id: payment for payment in payments}
        await check(books, service)


async def test_who_waits_for_the_disk_too_long_is_told_that_nothing_is_known(tmp_path: Path):
    config_path, slow = (
        write_config(tmp_path / "db", server={"port": 0, "request_timeout_s": 1}),
        tmp_path / "slow",
    )
    slow.touch()
    with serving(config_path, **planted(CRASH_SLOW=str(slow))) as service:
        books = await open_books(service, loans=1)
        payment = Payment("late", books.loan_ids[0], "1.00")
        async with api(service, books.token) as caller:
            with held(slow):
                status, answer = await caller.pay(payment)
            assert (status, answer["type"]) == (500, "/problems/outcome-unknown")
            while status == 500:
                status, answer = await caller.pay(payment)
            assert (status, answer["replayed"]) == (200, True)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Have every COMMIT of the journal wait until the block ends."""
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# A full disk -------------------------------------------------------------------------------------


async def test_a_stop_on_a_full_disk_ends_at_once_and_loses_nothing(tmp_path: Path):
    """What could not be projected stays in the journal for the next start."""
    config_path = write_config(tmp_path)
    with serving(config_path) as service:
        books = await open_books(service, loans=3)

        def on_answer(answers: int) -> None:
            if answers == 150:
                limit_files(service.store_pid, 0)
            elif answers == 200:
                service.signal(signal.SIGTERM)

        await asyncio.wait_for(Load(books, Random(1), on_answer).run(service, clients=16), 60)
        assert await service.until_ended() == 0
    assert said(service) == service.events(KILLED) == []
    with serving(config_path) as service:
        await check(books, service)
    assert books.counts["answered 500"] > 0
    assert books.counts["lost"] == books.counts["doubled"] == 0


# No descriptors ------------------------------------------------------------------------------------


async def test_without_descriptors_those_who_are_there_are_served_and_others_later(tmp_path: Path):
    with serving(write_config(tmp_path)) as service:
        books = await open_books(service, loans=1)
        async with api(service, books.token, connections=1) as caller:
            status, _ = await caller.get("/livez")
            pid, limits = service.process.pid, resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (files_open(pid) + 4, limits[1]))
            with ExitStack() as stack:
                clients = [stack.enter_context(connection(service)) for _ in range(40)]
                served = [is_alive(client) for client in clients]
                assert 0 < sum(served) <= 4
                for number in range(20):
                    status, _ = await caller.pay(Payment(f"t-{number}", books.loan_ids[0], "1.00"))
                    assert status == 201
            while True:  # as soon as they are gone
                with connection(service) as client:
                    if is_alive(client):
                        break
    assert said(service) == []


def test_it_takes_as_many_connections_as_there_are_descriptors_for(tmp_path: Path):
    """Which are ten here; one more is told so, and not cut off."""
    few = ("sh", "-c", f'ulimit -n {FILES_BESIDES + 10} && exec "$@"', "sh")
    with serving(write_config(tmp_path), few) as service, ExitStack() as stack:
        for _ in range(10):
            assert is_alive(stack.enter_context(connection(service)))
        for _ in range(10):
            with connection(service) as client:
                assert client.recv(65_536).startswith(b"HTTP/1.1 503 ")
    assert said(service) == []


def test_it_needs_some_descriptors_of_its_own(tmp_path: Path):
    why = ledgerd("serve", "--config", write_config(tmp_path), limits={resource.RLIMIT_NOFILE: 64}).complaint
    assert why == (
        "the system lets this process have 64 files open, of which it needs 100 beside its connections:"
        " raise its limit (ulimit -Hn, or LimitNOFILE of its unit)"
    )


def files_open(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def connection(service: Service) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=GUARD_S)


def is_alive(client: socket.socket) -> bool:
    """Whether a request is answered, and not cut off."""
    try:
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        return client.recv(65_536).startswith(b"HTTP/1.1 200")
    except ConnectionError:
        return False
