"""What a load asks for and when: requests as bytes, and a Poisson schedule, both from a seed."""

from __future__ import annotations

import random
from array import array
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, count

import msgspec

REQUESTS_MAX = 20_000_000  # of one schedule, eight bytes each
ANSWER_BYTES_MAX = 64 << 20


class Payments(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="payment"):
    """Single payments, each with a transaction id of its own, over loans and tokens.

    `skew` is "uniform", "one" (the first loan alone), or "zipf:S": the loan of rank r gets 1/r^S.
    """

    loans: list[str]
    tokens: list[str]
    skew: str = "uniform"
    amount: str = "1.00"
    path: str = "/api/make-payment/"


class Gets(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="get"):
    """GETs of paths by chance, each with a token by chance when there are any."""

    paths: list[str]
    tokens: list[str] = []


class Phase(msgspec.Struct, frozen=True):
    """A part of a load: so many requests a second, for so long."""

    rate_per_s: float
    seconds: float


def schedule(phases: Sequence[Phase], seed: str) -> array[float]:
    """Return when each request is due, in seconds from the start: a Poisson process, the same for a seed."""
    if sum(phase.rate_per_s * phase.seconds for phase in phases) > REQUESTS_MAX:
        raise ValueError(f"a schedule holds at most {REQUESTS_MAX:,} requests")
    gap = random.Random(f"schedule {seed}").expovariate
    due = array("d")
    start_s = 0.0
    for phase in phases:
        end_s = start_s + phase.seconds
        at_s = start_s
        while phase.rate_per_s and (at_s := at_s + gap(phase.rate_per_s)) < end_s:
            due.append(at_s)
        start_s = end_s
    return due


def requests(source: Payments | Gets, host: str, seed: str, run: str) -> Iterator[tuple[bytes, str]]:
    """Yield requests without end: the bytes, and the transaction id or "".

    `run` makes the transaction ids of a run its own; they begin at random, since sorted keys would be cheap.
    """
    rng = random.Random(f"requests {seed}")
    if isinstance(source, Gets):
        return gets(source, host, rng)
    return payments(source, host, rng, run)


def payments(source: Payments, host: str, rng: random.Random, run: str) -> Iterator[tuple[bytes, str]]:
    heads = [
        f"POST {source.path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
        for token in source.tokens
    ]
    pick_loan = chooser(len(source.loans), source.skew, rng)
    for number in count(1):
        transaction_id = f"{rng.getrandbits(32):08x}-{run}-{number}"
        body = (
            f'{{"loan_id":"{source.loans[pick_loan()]}","amount":"{source.amount}",'
            f'"transaction_id":"{transaction_id}"}}'
        )
        head = heads[int(rng.random() * len(heads))]
        yield f"{head}{len(body)}\r\n\r\n{body}".encode(), transaction_id


def gets(source: Gets, host: str, rng: random.Random) -> Iterator[tuple[bytes, str]]:
    bearers = [f"Authorization: Bearer {token}\r\n" for token in source.tokens] or [""]
    while True:
        path, bearer = rng.choice(source.paths), rng.choice(bearers)
        yield f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{bearer}\r\n".encode(), ""


def chooser(size: int, skew: str, rng: random.Random) -> Callable[[], int]:
    """Return a function that picks one of `size` by the skew. ValueError for a skew that is none."""
    name, _, exponent = skew.partition(":")
    if skew == "one" or size == 1:
        return lambda: 0
    if skew == "uniform":
        return lambda: int(rng.random() * size)
    if name == "zipf":
        weights = list(accumulate(rank ** -float(exponent) for rank in range(1, size + 1)))
        return lambda: min(bisect(weights, rng.random() * weights[-1]), size - 1)
    raise ValueError(f'a skew is "uniform", "one" or "zipf:1.0", not "{skew}"')


def message_bytes(data: bytes) -> int | None:
    """Return how long the HTTP message is that data begins with, or None while its head is not whole.

    ValueError for what neither has a Content-Length nor can do without: a GET or an answer 204 can.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head = data[: end + 2].lower()
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        length = int(head[at + 17 : head.index(b"\r\n", at + 17)])
        if length > ANSWER_BYTES_MAX:
            raise ValueError(f"a message of {length} bytes")
        return end + 4 + length
    if head.startswith((b"get ", b"http/1.1 204")):
        return end + 4
    raise ValueError(f"a message without Content-Length: {head[:40]!r}")
