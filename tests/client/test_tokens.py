"""One token at a time for however many ask."""

from __future__ import annotations

import asyncio

import pytest

from ledgerd.client.errors import Failed
from ledgerd.client.tokens import Grant, Tokens


class Service:
    """Grants a new token at each call, once it is let to."""

    def __init__(self, lives_s: float = 900) -> None:
        self.calls = 0
        self.lives_s = lives_s
        self.lets = asyncio.Event()
        self.error: Exception | None = None

    async def grant(self) -> Grant:
        self.calls += 1
        token = f"token-{self.calls}"
        await self.lets.wait()
        if self.error is not None:
            raise self.error
        return Grant(token, self.lives_s)


async def asking(tokens: Tokens, count: int) -> list[asyncio.Task[str]]:
    tasks = [asyncio.create_task(tokens.current()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_many_callers_wait_for_one_token_and_none_takes_it_from_another():
    service = Service()
    tokens = Tokens(service.grant)
    first, *others = await asking(tokens, 10)
    first.cancel()
    await asyncio.wait([first])
    service.lets.set()
    assert await asyncio.gather(*others) == ["token-1"] * 9
    assert await tokens.current() == "token-1"
    assert service.calls == 1


async def test_one_that_is_about_to_expire_is_renewed_before():
    service = Service(lives_s=0)
    service.lets.set()
    tokens = Tokens(service.grant)
    assert [await tokens.current() for _ in range(2)] == ["token-1", "token-2"]


async def test_a_refused_token_is_forgotten_and_no_other():
    service = Service()
    service.lets.set()
    tokens = Tokens(service.grant)
    assert await tokens.current() == "token-1"
    tokens.forget("token-0")
    assert await tokens.current() == "token-1"
    tokens.forget("token-1")
    assert await tokens.current() == "token-2"


async def test_all_who_wait_hear_of_a_failure_and_the_next_tries_again():
    service = Service()
    tokens = Tokens(service.grant)
    waiting = await asking(tokens, 3)
    service.error = Failed("no token", unsure=False)
    service.lets.set()
    assert await asyncio.gather(*waiting, return_exceptions=True) == [service.error] * 3
    service.error = None
    assert await tokens.current() == "token-2"


async def test_closing_ends_what_is_under_way():
    tokens = Tokens(Service().grant)
    [waiting] = await asking(tokens, 1)
    await tokens.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await tokens.close()
