from __future__ import annotations

import random

import pytest

from ledgerd.config import Console
from ledgerd.http.console.sessions import Sessions
from ledgerd.http.tokens import Caller

LIMITS = Console(sessions=3, session_idle_s=100, session_max_s=250)


def caller(*scopes: str) -> Caller:
    return Caller("client", 7, frozenset(scopes), 0, 0, "", "c:0000000000000007")


class Now:
    s = 1000.0


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def sessions(now) -> Sessions:
    return Sessions(LIMITS, random.Random(1).randbytes, lambda: now.s)


def test_a_session_is_found_by_its_id_alone(sessions):
    one, other = sessions.begin(caller("ops"), "one"), sessions.begin(caller("borrower"), "other")
    assert len({one, other}) == 2
    assert sessions.find(one).name == "one"
    assert sessions.find(one).runs_the_book
    assert not sessions.find(other).runs_the_book
    assert sessions.find("") is None
    assert sessions.find(one[:-1]) is None


def test_an_id_cannot_be_guessed(sessions):
    assert len(sessions.begin(caller("ops"), "one")) == 43  # 256 bits
    first, second = (sessions.find(sessions.begin(caller("ops"), "x")).csrf for _ in range(2))
    assert first != second


def test_it_ends_when_it_is_unused(sessions, now):
    session_id = sessions.begin(caller("ops"), "one")
    now.s += LIMITS.session_idle_s - 1
    assert sessions.find(session_id)
    now.s += LIMITS.session_idle_s - 1
    assert sessions.find(session_id)
    now.s += LIMITS.session_idle_s
    assert sessions.find(session_id) is None
    assert len(sessions) == 0


def test_it_ends_after_its_longest_time_however_it_is_used(sessions, now):
    session_id = sessions.begin(caller("ops"), "one")
    for _ in range(4):
        now.s += 60
        assert sessions.find(session_id)
    now.s += 10
    assert sessions.find(session_id) is None


def test_the_one_unused_for_longest_makes_room(sessions):
    first, second, third = (sessions.begin(caller("ops"), name) for name in ("1", "2", "3"))
    assert sessions.find(first)
    fourth = sessions.begin(caller("ops"), "4")
    assert sessions.find(second) is None
    assert all(sessions.find(each) for each in (first, third, fourth))


def test_it_ends_at_once(sessions):
    session_id = sessions.begin(caller("ops"), "one")
    sessions.end(session_id)
    sessions.end(session_id)
    assert sessions.find(session_id) is None


def test_a_form_is_known_by_its_token(sessions):
    session = sessions.find(sessions.begin(caller("ops"), "one"))
    assert session.sent(session.csrf)
    assert not session.sent("")
    assert not session.sent("\udc80é")
    assert not session.sent(session.csrf[:-1])
    assert session.csrf not in repr(session)
