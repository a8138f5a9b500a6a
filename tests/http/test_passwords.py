from __future__ import annotations

import asyncio
import random
import threading

import pytest
from argon2 import extract_parameters
from argon2.low_level import Type

from ledgerd.http.passwords import LOGINS_WAITING, REGISTRATIONS_WAITING, Busy, Passwords


@pytest.fixture
def passwords():
    passwords = Passwords(1, random.Random(1).randbytes)
    yield passwords
    passwords.close()


async def test_the_right_password_matches_and_no_other(passwords):
    password_hash = await passwords.hash("correct horse")
    assert await passwords.verify(password_hash, "correct horse") is True
    for wrong in ("correct horsE", "", "correct horse ", "correct\x00horse"):
        assert await passwords.verify(password_hash, wrong) is False


async def test_a_hash_is_argon2id_at_the_recommended_cost_with_its_own_salt(passwords):
    first, second = await passwords.hash("correct horse"), await passwords.hash("correct horse")
    assert first != second
    parameters = extract_parameters(first)
    assert parameters.type is Type.ID
    assert (parameters.memory_cost, parameters.time_cost, parameters.parallelism) == (19 * 1024, 2, 1)
    assert parameters.salt_len == 16
    assert parameters.hash_len == 32


async def test_any_text_is_a_password(passwords):
    for password in ("पासवर्ड पासवर्ड", "\ud800 lone surrogate", "x" * 100_000, "nul\x00l"):
        assert await passwords.verify(await passwords.hash(password), password) is True


async def test_nobody_has_no_password_and_costs_the_same_parameters(passwords):
    for password in ("", "correct horse"):
        assert await passwords.verify(None, password) is False
    parameters = extract_parameters(passwords._nobodys_hash)
    assert parameters == extract_parameters(await passwords.hash("correct horse"))


async def test_a_damaged_hash_matches_nothing(passwords):
    assert await passwords.verify("not a hash", "correct horse") is False


class Held:
    """Work that waits until it is let go."""

    def __init__(self) -> None:
        self.begun, self.gate = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.gate.wait(60)
        return "done"


async def test_past_a_bound_it_is_busy_and_room_comes_back(passwords):
    held = Held()
    logins = [
        asyncio.ensure_future(passwords._run(passwords._logins, held)) for _ in range(1 + LOGINS_WAITING)
    ]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await passwords.verify(None, "correct horse")
    new = [asyncio.ensure_future(passwords.hash("correct horse")) for _ in range(1 + REGISTRATIONS_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await passwords.hash("correct horse")
    held.gate.set()
    assert await asyncio.gather(*logins) == ["done"] * (1 + LOGINS_WAITING)
    assert await passwords.verify(await new[-1], "correct horse") is True


async def test_a_flood_of_new_people_turns_no_login_away(passwords):
    held = Held()
    room = passwords._registrations
    new = [asyncio.ensure_future(passwords._run(room, held)) for _ in range(1 + REGISTRATIONS_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await passwords.hash("correct horse")
    login = asyncio.ensure_future(passwords.verify(None, "correct horse"))
    await asyncio.sleep(0)
    assert not login.done()
    held.gate.set()
    assert await login is False
    await asyncio.gather(*new)


async def test_one_who_goes_away_gives_room_back_once_the_work_has_ended(passwords):
    held = Held()
    running = asyncio.ensure_future(passwords._run(passwords._logins, held))
    waiting = [asyncio.ensure_future(passwords._run(passwords._logins, held)) for _ in range(LOGINS_WAITING)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    # Those that had not begun are gone; the one that runs still holds its place, whoever waits for it.
    waiting = [asyncio.ensure_future(passwords._run(passwords._logins, held)) for _ in range(LOGINS_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await passwords.verify(None, "correct horse")
    held.gate.set()
    await asyncio.gather(running, *waiting)


async def test_closing_cancels_what_has_not_begun_and_waits_for_what_has():
    passwords = Passwords(1, random.Random(1).randbytes)
    held, hashed = Held(), []

    def work() -> str:
        said = held()
        hashed.append(passwords._hash(b"correct horse", bytes(16)))  # which takes its time
        return said

    running = asyncio.ensure_future(passwords._run(passwords._logins, work))
    waiting = asyncio.ensure_future(passwords._run(passwords._logins, held))
    await asyncio.to_thread(held.begun.wait, 60)
    closing = asyncio.get_running_loop().run_in_executor(None, passwords.close)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    held.gate.set()
    await closing
    assert len(hashed) == 1
    assert await running == "done"


async def test_what_comes_after_closing_fails_and_keeps_no_room():
    passwords = Passwords(1, random.Random(1).randbytes)
    passwords.close()
    for _ in range(2 * (1 + REGISTRATIONS_WAITING)):
        with pytest.raises(RuntimeError, match="after shutdown"):
            await passwords.hash("correct horse")
