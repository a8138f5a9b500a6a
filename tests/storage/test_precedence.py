"""Precedence: who gives way waits while another goes first, and not for ever."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest

from ledgerd.storage import precedence
from ledgerd.storage.precedence import Precedence, between

GUARD_S = 60.0


def test_with_nobody_first_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "LONGEST_S", GUARD_S)
    one = Precedence()
    one.give_way()
    one.begin()
    one.end()
    one.give_way()


def test_the_others_wait_until_the_first_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "LONGEST_S", GUARD_S)
    one, said, asked = Precedence(), list[str](), threading.Event()

    def other() -> None:
        asked.set()
        one.give_way()
        said.append("other")

    one.begin()
    thread = threading.Thread(target=other)
    thread.start()
    assert asked.wait(GUARD_S)
    said.append("first")
    one.end()
    thread.join(GUARD_S)
    assert said == ["first", "other"]


def test_nobody_waits_for_ever() -> None:
    one = Precedence()
    one.begin()
    began_s = time.monotonic()
    for _ in range(3):
        one.give_way()
    assert time.monotonic() - began_s < GUARD_S


def test_each_spell_of_work_ends_with_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s, rests = 100.0, list[float]()

    def sleep(seconds_s: float) -> None:
        nonlocal now_s
        now_s += seconds_s
        rests.append(seconds_s)

    monkeypatch.setattr(precedence, "time", SimpleNamespace(perf_counter=lambda: now_s, sleep=sleep))
    one = Precedence()
    one.give_way()
    assert rests == [precedence.REST_S]
    for _ in range(3):  # a little over one spell in all
        now_s += precedence.WORK_S * 0.4
        one.give_way()
    assert rests == [precedence.REST_S] * 2


def test_rows_come_as_they_are_each_after_giving_way() -> None:
    ways: list[str] = []
    rows = between("ab", lambda: ways.append("way"))
    assert [(row, len(ways)) for row in rows] == [("a", 1), ("b", 2)]
