"""B10: both processes killed at full load, and started again."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from pathlib import Path
from random import Random

from bench import client, openloop
from bench.openloop import Plan
from bench.results import Check, Findings, Measure
from bench.scenarios.latency import CONNECTIONS, measure_b1
from bench.service import Service, keys_after, last_seq
from bench.stage import Stage
from bench.traffic import Payments
from ledgerd.domain.commands import payment_key

KILL_AFTER_S = 3.0
LOAD_S = 4.0  # goes on for a moment after the kill


def b10_recovery(stage: Stage) -> Findings:
    """kill -9 of both processes under the rate of B1; the time from the new start to the first 201."""
    findings = Findings(scenario="B10", title="recovery: kill -9 at full load, and start again")
    took_s: list[float] = []
    folder = stage.ledger("payments")
    with stage.serve("payments") as service:
        stage.warm(service)
        b1 = measure_b1(stage, service, findings)
    for number in range(stage.sizes.rounds):
        service = Service(folder, stage.sections("payments"))
        service.start()
        try:
            service.wait_ready()
            stage.warm(service)
            service.acknowledged()
            after_seq = last_seq(service.config)
            acknowledged = load_and_kill(stage, service, b1, number)
            service.start()
            took_s.append(first_payment_s(service, number))
            in_ledger = len(acknowledged & keys_after(service.config, after_seq))
            service.stop()
        except BaseException:
            service.kill()
            raise
        check = Check(scenario="B10", acknowledged=len(acknowledged), in_ledger=in_ledger, verify_ok=False)
        stage.check(findings, "payments", check)
        stage.say(f"  round {number + 1}: the first 201 after {took_s[-1]:.2f} s")
    findings.measures.append(
        Measure(
            scenario="B10",
            what="from the new start to the first 201",
            unit="s",
            rounds=took_s,
            must=3.0,
            aim=1.0,
            more_is_better=False,
        )
    )
    findings.notes.append(
        f"{b1:,.0f}/s over {CONNECTIONS} connections, both processes killed after {KILL_AFTER_S:.0f} s;"
        " the time includes the start of both processes"
    )
    return findings


def load_and_kill(stage: Stage, service: Service, b1: float, number: int) -> set[bytes]:
    """Kill the service in the middle of a load; return the keys of what it had acknowledged."""
    ids = stage.folder / "acknowledged"
    plan = Plan(
        url=service.url,
        rate_per_s=b1,
        seconds=LOAD_S,
        connections=CONNECTIONS,
        seed=number,
        requests=Payments(loans=service.loans, tokens=service.tokens()),
        grace_s=1.0,
        acknowledged=str(ids),
    )
    killer = threading.Timer(KILL_AFTER_S, service.kill)
    killer.start()
    openloop.run(plan)
    killer.join()
    return {payment_key(service.book.caller, each) for each in Path(ids).read_text().split()}


def first_payment_s(service: Service, number: int) -> float:
    """Return the seconds from the start of the process to its first 201."""
    token, random = service.tokens(1)[0], Random(number)
    for attempt in itertools.count():
        transaction_id = f"{random.getrandbits(32):08x}-first-{time.time_ns()}-{attempt}"
        body = client.payment(service.loans[0], transaction_id)
        connection = http.client.HTTPConnection(service.host, service.port, timeout=30)
        try:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
            connection.request("POST", "/api/make-payment/", body, headers)
            if connection.getresponse().status == 201:
                break
        except OSError:
            service.fail_if_ended()
        finally:
            connection.close()
        time.sleep(0.005)
    return time.perf_counter() - service.started_s
