"""Many payments in one array, of which those without a final answer are sent again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ledgerd.client.calls import Attempts, Calls
from ledgerd.client.errors import Failed, OutcomeUnknown, Problem
from ledgerd.client.models import Line, Payment, encode_payment, reader
from ledgerd.client.results import Result, read_result

_read_lines: Final = reader(list[Line])


async def pay_batch(calls: Calls, payments: Sequence[Payment]) -> list[Result]:
    """Make these payments and return their results in order."""
    results: dict[int, Result] = {}
    waiting = list(range(len(payments)))
    attempts = Attempts(calls.patience, "an array of payments", moves_money=True)
    while waiting := [place for place in waiting if place not in results]:
        try:
            trouble = await _try(calls, payments, waiting, results)
        except (Problem, Failed) as error:  # of the whole call
            await attempts.again(error)
            continue
        if trouble is not None:
            try:
                await attempts.again(trouble)
            except OutcomeUnknown as unknown:
                results |= {
                    place: Result(payments[place], unknown) for place in waiting if place not in results
                }
    return [results[place] for place in range(len(payments))]


async def _try(
    calls: Calls, payments: Sequence[Payment], places: Sequence[int], results: dict[int, Result]
) -> Failed | None:
    """Send the payments at these places, and note the results that are final; return how one failed."""

    def read(content: bytes) -> list[Line]:
        lines = _read_lines(content)
        if len(lines) != len(places):
            raise msgspec.ValidationError(f"{len(lines)} results of {len(places)} payments")
        return lines

    body = b"[%b]" % b",".join([encode_payment(payments[place]) for place in places])
    lines, request_id = await calls.once("POST", "/api/make-payments/", read, body)
    trouble = None
    for place, line in zip(places, lines, strict=True):
        try:
            results[place] = read_result(payments[place], line, request_id)
        except Failed as failure:
            trouble = failure
    return trouble
