"""Appends come first: whatever else computes in the store stands aside while a batch is decided, and rests
often.

Threads of one interpreter run one at a time. One that computes gives the others a turn each 0.5 ms, and a
batch needs some twenty turns; a projection that goes on for 40 ms would make every batch meanwhile take ten.
So who has much to do asks `give_way` between its rows. It waits there while a batch is under way (not for
its sync, which takes no turn), and rests for a while after each millisecond of its own, so that the service
and its callers find a free core.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

T = TypeVar("T")

LONGEST_S: Final = 0.005  # that a row waits for a batch: however busy the journal is, the rest goes on
WORK_S: Final = 0.001  # that goes on before ..
REST_S: Final = 0.002  # .. a rest


class Precedence:
    """The one who comes first calls `begin` and `end`, one other `give_way`."""

    def __init__(self) -> None:
        self._free = threading.Event()
        self._free.set()
        self._rested_s = 0.0

    def begin(self) -> None:
        """Go first from now on."""
        self._free.clear()

    def end(self) -> None:
        """Let the other go on."""
        self._free.set()

    def give_way(self) -> None:
        """Wait for who goes first, if anybody does, and rest when it is time."""
        if not self._free.is_set():
            self._free.wait(LONGEST_S)
        if time.perf_counter() - self._rested_s > WORK_S:
            time.sleep(REST_S)
            self._rested_s = time.perf_counter()


def between(rows: Iterable[T], give_way: Callable[[], None]) -> Iterator[T]:
    """Yield the rows, and give way before each."""
    for row in rows:
        give_way()
        yield row
