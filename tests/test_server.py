"""The service as a process: how it starts, what it refuses to start on, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random

from ledgerd.sample import write_sample
from ledgerd.server import FILES_BESIDES, raise_file_limit
from tests.crash.load import Load, Payment, api, check, client_token, new_client, new_loans, open_books
from tests.http.streams import streaming
from tests.process import GUARD_S, Service, ledgerd, ledgerd_here, serving, write_config

AT_REST = {"config.toml", "keys", "ledgerd.db", "ledgerd.db.lock", "ledgerd.journal.db"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# Connections -------------------------------------------------------------------------------------

IDLE, ADDRESSES = 2_400, 6


async def test_thousands_of_idle_connections_are_in_nobody_s_way(tmp_path: Path):
    raise_file_limit()
    limits = {"connections": IDLE + 8, "connections_per_address": IDLE // ADDRESSES, "header_timeout_s": 600}
    with serving(write_config(tmp_path, server={"port": 0, **limits})) as service:
        token = await new_client(service, "payments:write")
        [loan_id] = await new_loans(service, 1)
        with ExitStack() as stack:
            for number in range(IDLE):
                stack.enter_context(connection(service, f"127.0.0.{10 + number % ADDRESSES}"))
            assert "503 Overloaded" in refusal(service, "127.0.0.10")  # which has as many as it may
            async with api(service, token, connections=4) as caller:
                paid = await asyncio.gather(
                    *(caller.pay(Payment(f"t-{number}", loan_id, "1.00")) for number in range(100))
                )
                assert [status for status, _ in paid] == 100 * [201]
                others = [stack.enter_context(connection(service, "127.0.0.2")) for _ in range(4)]
                assert "and 2408 in all" in refusal(service, "127.0.0.2")
                others[0].close()
            # As they end, others find room; a 503 is no more than a moment's.
            while not is_served(service, "127.0.0.2"):
                pass


def connection(service: Service, address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), source_address=(address, 0))


def refusal(service: Service, address: str) -> str:
    """What a new connection gets that is refused before it has sent anything."""
    with connection(service, address) as client:
        return b"".join(iter(lambda: client.recv(65_536), b"")).decode()


def is_served(service: Service, address: str) -> bool:
    """Whether a request on a new connection is answered with 200."""
    with connection(service, address) as client, suppress(ConnectionError):  # cut off: it was not read
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return b"".join(iter(lambda: client.recv(65_536), b"")).startswith(b"HTTP/1.1 200")
    return False


def test_as_many_files_as_the_system_allows_and_a_warning_where_they_are_too_few(tmp_path: Path):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, hard))  # which the service begins with
    with serving(write_config(tmp_path, server={"port": 0, "connections": 1_000_000_000})) as service:
        [warning] = [line for line in service.log if "[server] connections" in line]
        assert json.loads(warning)["level"] == "warning"
        assert (json.loads(warning)["files"], json.loads(warning)["connections"]) == (
            hard,
            hard - FILES_BESIDES,
        )
        files = Path(f"/proc/{service.process.pid}/limits").read_text()
        assert re.search(rf"^Max open files +{hard} +{hard} ", files, re.MULTILINE)
    assert raise_file_limit() == hard
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)


# Secrets -----------------------------------------------------------------------------------------


async def test_no_secret_is_in_an_argument_or_a_variable_of_any_process(tmp_path: Path):
    """Any user of the machine can read the arguments, and a crash report the environment."""
    config_path, csv = write_config(tmp_path), tmp_path / "history.csv"
    write_sample(csv, people=2000, seed=1)
    with serving(config_path) as service:
        made = await asyncio.to_thread(
            ledgerd_here, "client", "create", "till", "--scope", "ops", "--config", config_path
        )
        client = json.loads(made.stdout)
        secrets = [client["client_secret"], await client_token(service, client)]
        for path in (tmp_path / "keys").iterdir():
            secrets += [word for word in path.read_text().split() if len(word) >= 32]
        assert len(secrets) == 2 + 2 + 1  # the index key, one that seals, one that signs
        importing = asyncio.create_task(
            asyncio.to_thread(ledgerd_here, "import-transactions", csv, "--config", config_path)
        )
        seen = b""
        while b"import_process" not in seen:  # as long as it lives
            assert not importing.done()
            seen = told_to_processes(service.process.pid)
            await asyncio.sleep(0)
        assert b"ledgerd.storage.process" in seen
        assert [secret for secret in secrets if secret.encode() in seen] == []
        assert (await importing).code == 0


def told_to_processes(pid: int) -> bytes:
    """The arguments and the environment of a process and of those that it started."""
    told = b""
    for process in [pid, *children(pid)]:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            told += b"".join(Path(f"/proc/{process}/{name}").read_bytes() for name in ("cmdline", "environ"))
    return told


def children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text().split()]


# Stopping ----------------------------------------------------------------------------------------


async def test_sigterm_under_load_answers_everybody_and_leaves_nothing_behind(tmp_path: Path):
    config_path = write_config(tmp_path)
    with serving(config_path) as service:
        books = await open_books(service, loans=3)

        def on_answer(answers: int) -> None:
            if answers == 150:
                service.signal(signal.SIGTERM)

        await Load(books, Random(5), on_answer).run(service, clients=32)
        assert await service.until_ended() == 0
    assert names(tmp_path) == AT_REST
    assert books.counts["answered 500"] == 0
    with serving(config_path) as service:
        await check(books, service)
    # A payment whose connection was ended without an answer was never begun.
    assert books.counts["unknown, was there"] == 0
    assert books.counts["lost"] == books.counts["doubled"] == 0


async def test_one_service_owns_a_database_and_a_stop_answers_what_has_arrived(tmp_path: Path):
    """Forty connections, a payment on each, and the signal as the first answer is read."""
    config_path = write_config(tmp_path)
    with serving(config_path) as service:
        second = await asyncio.to_thread(ledgerd, "serve", "--config", config_path)
        assert f"ledgerd.db is in use by another ledgerd (process {service.process.pid})" in second.complaint
        token = await new_client(service, "payments:write")  # the first one is none the worse for it
        [loan_id] = await new_loans(service, 1)
        async with api(service, token, connections=40) as caller:
            await asyncio.gather(*(caller.get("/livez") for _ in range(40)))
            signalled = asyncio.Event()

            async def pay(number: int) -> int:
                status, _ = await caller.pay(Payment(f"t-{number}", loan_id, "1.00"))
                if not signalled.is_set():
                    signalled.set()
                    service.signal(signal.SIGTERM)
                return status

            statuses = await asyncio.gather(*map(pay, range(40)))
        assert set(statuses) <= {201, 503}
        assert await service.until_ended() == 0


async def test_a_stop_answers_who_waits_for_the_disk_and_turns_away_who_comes_late(tmp_path: Path):
    """The store stands still meanwhile, so that a payment is on its way to the disk when the signal comes."""
    config_path = write_config(tmp_path, server={"port": 0, "shutdown_timeout_s": 3600})
    with serving(config_path) as service:
        token = await new_client(service, "payments:write", "ops")
        [loan_id] = await new_loans(service, 1)
        early, late = Payment("early", loan_id, "1.00"), Payment("late", loan_id, "1.00")
        async with api(service, token, connections=2) as caller:
            await asyncio.gather(*(caller.get("/livez") for _ in range(2)))  # both connections are open
            store_pid = service.store_pid
            os.kill(store_pid, signal.SIGSTOP)
            try:
                waiting = asyncio.create_task(caller.pay(early))
                while "\nledgerd_in_flight 1.0\n" not in await caller.text("/metrics"):
                    pass
                service.signal(signal.SIGTERM)
                async with asyncio.timeout(GUARD_S):
                    while not service.events("stopping"):
                        await caller.get("/livez")
                    status, refusal = await caller.pay(late)
                    assert (status, refusal["type"]) == (503, "/problems/draining")
                    while not await is_refused(service):
                        pass
                assert not waiting.done()
            finally:
                os.kill(store_pid, signal.SIGCONT)
            early.note(*await waiting)
            assert early.receipt is not None
        assert await service.until_ended() == 0
    assert names(tmp_path) == AT_REST  # a checkpoint has emptied both logs
    with serving(config_path) as service:
        async with api(service, token) as caller:
            for payment, expected in ((early, 200), (late, 201)):
                status, answer = await caller.pay(payment)
                assert status == expected
                payment.note(status, answer)
            assert (await caller.get(f"/api/loans/{loan_id}/"))[1]["principal_received"] == "2.00"


async def is_refused(service: Service) -> bool:
    """Whether nobody listens any more."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_a_stop_waits_no_longer_than_it_may(tmp_path: Path):
    """Not for a body that never comes, which could take as long as `body_timeout_s` says."""
    timeouts = {"shutdown_timeout_s": 1, "body_timeout_s": 3600, "request_timeout_s": 3600}
    with serving(write_config(tmp_path, server={"port": 0, **timeouts})) as service:
        token = await new_client(service, "payments:write")
        with connection(service, "127.0.0.1") as client:
            client.sendall(
                b"POST /api/make-payment/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\nExpect: 100-continue\r\nAuthorization: Bearer %s\r\n\r\n"
                % token.encode()
            )
            assert client.recv(65_536).startswith(b"HTTP/1.1 100 ")  # it is waited for
            client.sendall(b"{")
            service.signal(signal.SIGTERM)
            assert await service.until_ended() == 0
            assert client.recv(65_536) == b""
    assert names(tmp_path) == AT_REST


async def test_a_stop_ends_a_stream_that_would_never_end(tmp_path: Path):
    with serving(write_config(tmp_path, server={"port": 0, "shutdown_timeout_s": 3600})) as service:
        token = await new_client(service, "payments:write")
        [loan_id] = await new_loans(service, 1)
        async with streaming(service.port, token) as caller:
            for number in range(100):
                caller.send({"loan_id": loan_id, "amount": "0.01", "transaction_id": f"t-{number}"})
            results = await caller.results(1)
            service.signal(signal.SIGTERM)
            results += await caller.rest()
            last = results.pop()
            assert {result["status"] for result in results} == {201}
            assert (last["status"], last["transaction_id"]) == (503, None)
            assert caller.ended
            assert await service.until_ended() == 0


async def test_a_stop_cuts_a_long_advance_off_and_the_date_goes_on_after_it(tmp_path: Path):
    """Ten years would take minutes; whoever asked for them hears that the outcome is unknown."""
    config_path = write_config(tmp_path, server={"shutdown_timeout_s": 3600})
    with serving(config_path) as service:
        token = await new_client(service, "ops")
        async with api(service, token) as caller:
            asked = asyncio.create_task(caller.post("/api/sandbox/advance-clock/", {"days": 3660}))
            while not (runs := (await caller.get("/api/billing-runs/"))[1]["billing_runs"]):
                pass
            service.signal(signal.SIGTERM)
            status, answer = await asked
        assert (status, answer["type"]) == (500, "/problems/outcome-unknown")
        assert await service.until_ended() == 0
    with serving(config_path) as service:
        async with api(service, token) as caller:
            status, answer = await caller.post("/api/sandbox/advance-clock/", {"days": 1})
        assert status == 200
        assert runs[0]["business_date"] < answer["business_date"] < "2036-01-01"
        service.signal(signal.SIGINT)  # Ctrl-C is for the service, which ends its store
        assert await service.until_ended() == 0
    assert names(tmp_path) == AT_REST
