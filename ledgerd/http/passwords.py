"""Passwords: argon2id in a few threads of its own, with a bound on how many may wait.

One check takes tens of milliseconds and 19 MiB, by intention, so it neither holds the event loop nor queues
without end: past the bound `Busy` is raised, which is a 503. Logins and registrations have a bound each, so
that a flood of new people turns away nobody who is known. The owner module of argon2. Used by
http/accounts.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

# OWASP's lowest recommended argon2id parameters.
MEMORY_KIB = 19 * 1024
PASSES = 2
LANES = 1
SALT_BYTES = 16
LOGINS_WAITING = 128  # for each worker: a wait of some seconds
REGISTRATIONS_WAITING = 32

Result = TypeVar("Result")


class Busy(Exception):
    """Too many passwords wait to be hashed; nothing was done."""


class Passwords:
    """Hashes and checks passwords in `workers` threads. `random_bytes(n)` gives the salts."""

    def __init__(self, workers: int, random_bytes: Callable[[int], bytes]) -> None:
        self._hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
        self._random_bytes = random_bytes
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="passwords")
        self._logins = BoundedSemaphore(workers * (1 + LOGINS_WAITING))
        self._registrations = BoundedSemaphore(workers * (1 + REGISTRATIONS_WAITING))
        # What an unknown user's password is compared with, so that both take the same work.
        self._nobodys_hash = self._hash(random_bytes(SALT_BYTES), random_bytes(SALT_BYTES))

    async def hash(self, password: str) -> str:
        """Return the password's hash, with its salt and parameters in it. Raises Busy."""
        return await self._run(
            self._registrations, self._hash, _encoded(password), self._random_bytes(SALT_BYTES)
        )

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Return whether the password is right; None stands for a user who is not there: same work, False.

        Raises Busy.
        """
        known = password_hash or self._nobodys_hash
        matches = await self._run(self._logins, self._matches, known, _encoded(password))
        return matches and password_hash is not None

    def close(self) -> None:
        """Wait for the hashes that are being computed, and cancel those that are not begun."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    async def _run(self, room: BoundedSemaphore, work: Callable[..., Result], *arguments: object) -> Result:
        if not room.acquire(blocking=False):
            raise Busy
        try:
            future = self._pool.submit(work, *arguments)
        except BaseException:
            room.release()
            raise
        # Room is given back when the work ends, also when the one who asked has gone.
        future.add_done_callback(lambda _: room.release())
        return await asyncio.wrap_future(future)

    def _hash(self, password: bytes, salt: bytes) -> str:
        return self._hasher.hash(password, salt=salt)

    def _matches(self, password_hash: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (Argon2Error, InvalidHashError):
            return False


def _encoded(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")
