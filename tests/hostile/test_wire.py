"""Bytes on a connection: what one reader could take for another request than the next reader does.

A refused request ends its connection, so that nothing that stands behind it is ever taken for a request; and
a request is answered alike however its bytes are cut, by the express lane or the ordinary way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.hostile.wire import LIVEZ, RawAnswer, Scribe, Wire, odd_requests

SEEDS = 300
AT_ONCE = 100


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


# Smuggled requests --------------------------------------------------------------------------------

# How a body's length is told twice, or oddly. What a reader that trusts the other one would take for the next
# request is a payment, which must not be made.
TWO_FRAMINGS = {
    "CL.TE": b"Content-Length: %d\r\nTransfer-Encoding: chunked",
    "TE.CL": b"Transfer-Encoding: chunked\r\nContent-Length: %d",
    "TE.TE": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nContent-Length: %d",
    "TE of another case": b"Content-Length: %d\r\ntransfer-encoding: CHUNKED",
    "TE x": b"Content-Length: %d\r\nTransfer-Encoding: xchunked",
    "TE in quotes": b'Content-Length: %d\r\nTransfer-Encoding: "chunked"',
    "TE with a blank": b"Content-Length: %d\r\nTransfer-Encoding : chunked",
    "TE behind a blank": b"Content-Length: %d\r\n Transfer-Encoding: chunked",
    "TE with a tab": b"Content-Length: %d\r\nTransfer-Encoding:\tchunked",
    "TE behind VT": b"Content-Length: %d\r\nTransfer-Encoding: \x0bchunked",
    "TE with NUL": b"Content-Length: %d\r\nTransfer-Encoding: chunked\x00",
    "TE folded": b"Content-Length: %d\r\nTransfer-Encoding:\r\n chunked",
    "TE behind LF": b"Content-Length: %d\r\nA: b\nTransfer-Encoding: chunked",
    "TE behind CR": b"Content-Length: %d\r\nA: b\rTransfer-Encoding: chunked",
    "TE not last": b"Content-Length: %d\r\nTransfer-Encoding: chunked, identity",
    "TE twice": b"Content-Length: %d\r\nTransfer-Encoding: chunked, chunked",
    "two lengths": b"Content-Length: 0\r\nContent-Length: %d",
    "a list of lengths": b"Content-Length: 0, %d",
    "a length and a sign": b"Content-Length: +%d",
    "a length and a blank": b"Content-Length : %d",
    "a length of other digits": "Content-Length: ²%d".encode("latin-1"),
    "a length folded": b"Content-Length: 0\r\n %d",
}


@pytest.mark.parametrize("framing", TWO_FRAMINGS.values(), ids=TWO_FRAMINGS)
async def test_a_body_of_two_lengths_ends_the_connection_and_smuggles_nothing(wire: Wire, framing: bytes):
    smuggled = wire.request(wire.payment("smuggled"), b"Content-Length: %d" % len(wire.payment("smuggled")))
    before = await wire.world.head()
    for body in (b"0\r\n\r\n" + smuggled, chunked(smuggled)):
        head = wire.request(b"", framing % len(body))
        for pieces in ([head + body + LIVEZ], [head, body + LIVEZ], [head + body[:5], body[5:], LIVEZ]):
            answers = await wire.send(*pieces)
            assert [answer.status for answer in answers] == [400], pieces
            assert answers[0].slug == "malformed"
            assert ("connection", "close") in answers[0].headers
    assert await wire.world.head() == before
    assert (await wire.world.get("/api/payments/smuggled/", wire.borrower)).status == 404


# What stands behind a request that was refused by its head alone, with a body that was not read.
REFUSED_EARLY = {
    "no token": (b"Authorization: Bearer x\r\n", 401),
    "no JSON": (b"Content-Type: text/plain\r\n", 415),
    "compressed": (b"Content-Encoding: gzip\r\n", 415),
}


@pytest.mark.parametrize(("line", "status"), REFUSED_EARLY.values(), ids=REFUSED_EARLY)
async def test_a_body_that_was_not_read_is_not_taken_for_a_request(wire: Wire, line: bytes, status: int):
    """The payment is the body of what is refused, and then again the request behind it."""
    payment = wire.payment("smuggled")
    smuggled = wire.request(payment, b"Content-Length: %d" % len(payment))
    head = wire.request(b"", b"Content-Length: %d" % len(smuggled))
    name = line.partition(b":")[0]
    kept = [each for each in head.split(b"\r\n")[:-2] if not each.startswith(name)]
    refused = b"\r\n".join([*kept, line, b""])
    before = await wire.world.head()
    for pieces in (
        [refused + smuggled + LIVEZ],
        [refused, smuggled, LIVEZ],
        [refused, smuggled[:9], smuggled[9:] + LIVEZ],
    ):
        statuses = [answer.status for answer in await wire.send(*pieces)]
        assert statuses == [status, 200], pieces
    assert await wire.world.head() == before


async def test_whose_the_target_says_it_is_makes_no_difference(wire: Wire):
    """A whole URL, or two hosts, lead to the same answers or to none; they open nothing."""
    payment = wire.payment()
    length = b"Content-Length: %d" % len(payment)
    good = (await wire.send(wire.request(payment, length) + LIVEZ))[0]
    assert good.status == 200
    for target in (
        b"http://x/api/make-payment/",
        b"http://evil.example/api/make-payment/",
        b"https://x:1/api/make-payment/",
    ):
        whole, *_ = await wire.send(wire.request(payment, length, target=target) + LIVEZ)
        assert whole == good or whole.status in {400, 404}, target
        assert b"evil" not in whole.body
    for line in (b"Host: y", b"Host: evil.example"):
        twice, *_ = await wire.send(wire.request(payment, line, length) + LIVEZ)
        assert twice.status == 400, line
    old = wire.request(payment, b"Transfer-Encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0")
    statuses = [answer.status for answer in await wire.send(old + LIVEZ)]
    assert statuses == [400]


# The same bytes, cut --------------------------------------------------------------------------------


def told(answers: list[RawAnswer]) -> list[RawAnswer | str]:
    """The answers; of what is malformed not how it was found out, which depends on what had come by then."""
    return [answer.slug if answer.slug == "malformed" else answer for answer in answers]


def agree(whole: list[RawAnswer], cut: list[RawAnswer], canary: RawAnswer) -> bool:
    """Equal; or, what came in one piece with something malformed was refused with it. Cut, it may have been
    answered before that came, which then ends the connection too.
    """
    return told(whole) == told(cut) or (told(whole) == ["malformed"] and canary not in cut)


async def compare(
    wire: Wire, canary: RawAnswer, request: bytes, cuts: list[list[bytes]], name: str
) -> set[int]:
    """Send a request in one piece and cut; return the statuses of its answers."""
    whole = await wire.send(request)
    for pieces in cuts:
        cut = await wire.send(*pieces)
        assert agree(whole, cut, canary), f"{name}:\n{whole}\n{cut}\n{pieces!r:.3000}"
    assert all(answer.status < 500 for answer in whole), f"{name}: {whole}"
    assert all(b"evil" not in answer.body for answer in whole), f"{name}: {whole}"
    assert len(whole) <= 2, f"{name}: {whole}"
    assert canary not in whole[:-1], f"{name}: {whole}"
    return {answer.status for answer in whole}


async def test_each_oddity_is_answered_alike_whole_and_cut_within_the_body(wire: Wire):
    """In one piece a payment takes the express lane; cut within its body it goes the ordinary way."""
    before = await wire.world.head()
    [canary] = await wire.send(LIVEZ)

    async def one(request: bytes) -> set[int]:
        name, place = f"{request[-900:]!r}", request.index(wire.payment()) + 5
        alone = await compare(wire, canary, request, [[request[:place], request[place:]]], name)
        behind = request + LIVEZ
        cuts = [[behind[:place], behind[place:]], [request, LIVEZ]]
        return alone | await compare(wire, canary, behind, cuts, name)

    statuses = set().union(*await asyncio.gather(*map(one, odd_requests(wire))))
    assert await wire.world.head() == before
    assert statuses >= {200, 400, 404, 405, 415, 417}


async def cut_by_chance(wire: Wire, seeds: Sequence[int]) -> set[int]:
    """Send the request of each seed whole and cut; return the statuses of the answers."""
    before = await wire.world.head()
    [canary] = await wire.send(LIVEZ)

    async def one(seed: int) -> set[int]:
        scribe = Scribe(wire, seed)
        request = scribe.request() + LIVEZ
        cuts = [scribe.cuts(request)]
        if len(request) < 3_000:
            cuts.append([request[at : at + 61] for at in range(0, len(request), 61)])
        return await compare(wire, canary, request, cuts, f"seed {seed}")

    statuses = set().union(*await asyncio.gather(*map(one, seeds)))
    assert await wire.world.head() == before
    return statuses


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
async def test_a_request_is_answered_alike_however_it_is_cut(wire: Wire, first: int):
    assert {200, 400} <= await cut_by_chance(wire, range(first, first + AT_ONCE))
