"""What became of each of many payments, and where they come from."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from ledgerd.client.errors import Failed, OutcomeUnknown, Problem, failed, problem_of
from ledgerd.client.models import Line, Payment, Receipt

T = TypeVar("T")


@dataclass(frozen=True)
class Result:
    """A payment with its receipt, its refusal, or neither: OutcomeUnknown is to be sent again."""

    payment: Payment
    outcome: Receipt | Problem | OutcomeUnknown

    @property
    def receipt(self) -> Receipt | None:
        """The receipt, if it counted."""
        return self.outcome if isinstance(self.outcome, Receipt) else None


def read_result(payment: Payment, line: Line, request_id: str | None) -> Result:
    """Return what a line of an answer says of the payment that it should be of; raise Failed if that is
    nothing final.
    """
    if line.transaction_id == payment.transaction_id:
        if line.status < 300 and line.receipt is not None:
            return Result(payment, line.receipt)
        if line.status >= 400 and line.problem is not None:
            problem = problem_of(line.problem, line.status, request_id)
            if (failure := failed(problem)) is not None:
                raise failure
            return Result(payment, problem)
    raise Failed(f"not a result of {payment.transaction_id}: {line}", unsure=True)


async def each(source: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """Go through either kind of source."""
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
    else:
        for item in source:
            yield item


async def chunks(source: Iterable[T] | AsyncIterable[T], size: int) -> AsyncIterator[list[T]]:
    """Gather what a source gives, so many at a time."""
    if isinstance(source, Iterable):
        items = iter(source)
        while chunk := list(islice(items, size)):
            yield chunk
        return
    chunk = []
    async for item in source:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
