"""Pauses grow, bear chance from a seed, come after Retry-After, and end."""

from __future__ import annotations

from random import Random

import pytest

from ledgerd.client.backoff import Backoff, Patience
from ledgerd.client.errors import Failed, OutcomeUnknown, Unavailable


def pauses(seed: int, count: int, retry_after_s: float = 0.0) -> list[float]:
    backoff = Backoff(Patience(60, 0.1, 2.0, Random(seed)), "it")
    return [backoff.next_pause_s(retry_after_s) for _ in range(count)]


def test_pauses_double_up_to_the_longest_with_chance_from_a_seed():
    found = pauses(1, 40)
    for number, pause_s in enumerate(found):
        longest_s = min(2.0, 0.1 * 2**number)
        assert longest_s / 2 <= pause_s <= longest_s
    assert found == pauses(1, 40) != pauses(2, 40)


def test_retry_after_is_waited_out_before_the_pause():
    assert pauses(1, 3, 5.0) == [5.0 + pause_s for pause_s in pauses(1, 3)]


async def test_progress_begins_anew():
    backoff = Backoff(Patience(60, 0.001, 60, Random(1)), "it")
    first = [backoff.next_pause_s() for _ in range(5)]
    backoff.progressed()
    assert backoff.next_pause_s() < first[1]


@pytest.mark.parametrize("gives_up", [Unavailable, OutcomeUnknown])
async def test_it_gives_up_when_the_next_attempt_would_be_too_late(gives_up):
    backoff = Backoff(Patience(retry_for_s=10, first_pause_s=0.001, random=Random(1)), "it", gives_up)
    await backoff.pause(Failed("no luck", unsure=False))
    failed = Failed("still none", unsure=False, retry_after_s=11)
    with pytest.raises(
        gives_up, match=r"^it: no final answer in 2 attempts; the last: still none$"
    ) as caught:
        await backoff.pause(failed)
    assert caught.value.__cause__ is failed


async def test_without_patience_there_is_one_attempt():
    with pytest.raises(Unavailable, match="in 1 attempts"):
        await Backoff(Patience(retry_for_s=0), "it").pause(Failed("no luck", unsure=True))
