"""B3: payments in JSON arrays of 1,000, and in one NDJSON stream."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import aiohttp
import msgspec
import uvloop

from bench import client
from bench.results import Findings, Load
from bench.scenarios.sides import Side, add_peer, ledgerd_side, notes_of_refusals, sqlite_raw_side
from bench.service import Audit
from bench.stage import Stage, Subject, plain_load, rate, ratio

PATH = "/api/make-payments/"
ARRAY_ITEMS = 1_000
ARRAY_CONNECTIONS = 4
CHUNK_LINES = 200
PREPARED = 100_000  # payments made before the measure, for each second of it


class Item(msgspec.Struct):
    """The answer to one payment of a batch."""

    status: int


_items = msgspec.json.Decoder(list[Item])
_item = msgspec.json.Decoder(Item)


def b3_batch(stage: Stage) -> Findings:
    """Arrays over a few connections, and one stream, over sqlite-raw and over single payments."""
    findings = Findings(scenario="B3", title="batch: arrays of 1,000, and one stream")
    numbers = itertools.count()
    with stage.payments_service() as service:
        with service.audit("B3") as audit:
            sides: dict[str, Side] = {"wide": ledgerd_side(stage, service, "B3", "wide")}
            sides["arrays"] = batch_side(stage, service, "arrays", arrays, audit, numbers)
            sides["stream"] = batch_side(stage, service, "stream", stream, audit, numbers)
            add_peer(stage, findings, sides, "sqlite-raw", lambda: sqlite_raw_side(stage, "B3"))
            loads = stage.in_turn(sides)
        stage.check(findings, "payments", audit.check())
    for side, what in (("arrays", f"arrays of {ARRAY_ITEMS:,}"), ("stream", "one NDJSON stream")):
        if "sqlite-raw" in loads:
            findings.measures.append(
                ratio(
                    "B3", f"{what}, payments/s over sqlite-raw", loads[side], loads["sqlite-raw"], 0.35, 0.75
                )
            )
        findings.measures.append(
            ratio("B3", f"{what}, payments/s over single payments", loads[side], loads["wide"], 2.0, 4.0)
        )
        findings.measures.append(rate("B3", f"{what}, payments/s", loads[side]))
    findings.loads += [load for side in loads.values() for load in side]
    findings.notes.append(
        f"arrays over {ARRAY_CONNECTIONS} connections, the stream over one; latencies are of whole arrays"
    )
    notes_of_refusals(findings, findings.loads)
    return findings


class Sent(msgspec.Struct):
    """What one batch load did, in payments."""

    sent: int
    applied: int
    seconds: float
    took_s: list[float]


Send = Callable[[Subject, list[bytes], float], Coroutine[Any, Any, Sent]]


def batch_side(
    stage: Stage,
    service: Subject,
    side: str,
    send: Send,
    audit: Audit,
    numbers: itertools.count[int],
) -> Side:
    """A load of batches. Payments are made outside the measure, with ids that are new."""

    def run() -> Load:
        seconds = float(stage.sizes.short_s)
        made = client.batch(service.loans, f"b3-{stage.run_name}-{next(numbers)}", int(PREPARED * seconds))
        cpu_s = time.process_time()
        sent = uvloop.run(send(service, made, seconds))
        share = (time.process_time() - cpu_s) / sent.seconds / (os.cpu_count() or 1)
        audit.acknowledged += sent.applied
        if sent.applied != sent.sent:
            stage.say(f"  {sent.sent - sent.applied} of {sent.sent} were not applied")
        took_ms = sorted(each * 1000 for each in sent.took_s)
        load = plain_load("B3", side, sent.seconds, sent.applied, share=share)
        if took_ms:
            load = msgspec.structs.replace(
                load, p50_ms=took_ms[len(took_ms) // 2], p99_ms=took_ms[int(len(took_ms) * 0.99)]
            )
        return msgspec.structs.replace(
            load, offered=sent.sent, sent=sent.sent, refused=sent.sent - sent.applied
        )

    return run


async def arrays(service: Subject, made: list[bytes], seconds: float) -> Sent:
    """Send arrays over a few connections, each as soon as the last is answered, for so many seconds."""
    token = service.tokens(1)[0]
    bodies = [
        b"[" + b",".join(made[start : start + ARRAY_ITEMS]) + b"]"
        for start in range(0, len(made), ARRAY_ITEMS)
    ]
    requests = [client.post(PATH, token, body) for body in bodies]
    applied = 0

    def count(_request: bytes, status: int, body: bytes) -> None:
        nonlocal applied
        if status == 200:
            applied += sum(item.status == 201 for item in _items.decode(body))

    load = client.Load(requests, count)
    asyncio.get_running_loop().call_later(seconds, load.stop)
    answers = await load.run(service.port, ARRAY_CONNECTIONS, service.host)
    return Sent(answers.sent * ARRAY_ITEMS, applied, answers.seconds, answers.took_s)


async def stream(service: Subject, made: list[bytes], seconds: float) -> Sent:
    """Send lines over one connection while their answers come back, for so many seconds."""
    headers = {
        "Authorization": f"Bearer {service.tokens(1)[0]}",
        "Content-Type": "application/x-ndjson",
    }
    chunks = [
        b"\n".join(made[start : start + CHUNK_LINES]) + b"\n" for start in range(0, len(made), CHUNK_LINES)
    ]
    sent = applied = 0
    started_s = time.perf_counter()

    async def lines() -> AsyncIterator[bytes]:
        nonlocal sent
        for chunk in chunks:
            if time.perf_counter() - started_s >= seconds:
                return
            sent += CHUNK_LINES
            yield chunk

    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(service.url, headers=headers, timeout=timeout) as session,
        session.post(PATH, data=lines()) as response,
    ):
        rest = b""
        async for data in response.content.iter_any():
            *whole, rest = (rest + data).split(b"\n")
            applied += sum(_item.decode(line).status == 201 for line in whole if line)
    return Sent(sent, applied, time.perf_counter() - started_s, [])
