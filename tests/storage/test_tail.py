"""The tail: what is in it is seen always, by a reader at any moment of a turn; what was dropped is gone."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ledgerd.storage.ports import StoredEvent
from ledgerd.storage.tail import Tail
from tests.storage.books import Writer, stored


def lives() -> list[StoredEvent]:
    """Six events of two loans, by turns."""
    one, two = Writer(1), Writer(2)
    entries = [one.lend(), two.lend(), one.pay("t1"), two.pay("t2"), one.pay("t3"), two.pay("t4")]
    return stored(entries)


def seen(tail: Tail) -> list[object]:
    return [
        tail.of_loan(1),
        tail.of_loan(2),
        tail.last_version(1),
        tail.last_version(2),
    ]


def test_an_empty_tail_knows_nothing() -> None:
    tail = Tail()
    assert (tail.of_loan(1), tail.last_version(1), len(tail)) == ([], None, 0)
    assert tail.turn() == []
    tail.drop()


@pytest.mark.parametrize("turn_after", range(7))
def test_a_turn_changes_nothing_for_readers(turn_after: int) -> None:
    events = lives()
    tail, turned = Tail(), Tail()
    for event in events:
        tail.add(event)
    for event in events[:turn_after]:
        turned.add(event)
    assert turned.turn() == events[:turn_after]
    for event in events[turn_after:]:
        turned.add(event)
    assert seen(turned) == seen(tail)
    assert len(turned) == len(tail) == 6
    turned.drop()
    assert len(turned) == 6 - turn_after
    assert turned.of_loan(1) == [event for event in events[turn_after:] if event.loan_id == 1]
    assert turned.turn() == events[turn_after:]


def test_a_reader_between_the_two_steps_of_a_turn_sees_each_event_once() -> None:
    """The old generation is replaced first: for a moment both names mean the same events."""
    events = lives()
    tail = Tail()
    for event in events:
        tail.add(event)
    whole = seen(tail)
    tail._old = tail._new
    assert seen(tail) == whole


def test_only_what_was_dropped_may_be_turned_over() -> None:
    tail = Tail()
    tail.add(lives()[0])
    tail.turn()
    with pytest.raises(AssertionError, match="projected and dropped"):
        tail.turn()


def test_what_a_reader_holds_does_not_change_under_it() -> None:
    events = lives()
    tail = Tail()
    tail.add(events[0])
    held = tail.of_loan(1)
    for event in events[1:]:
        tail.add(event)
    tail.turn()
    tail.drop()
    assert held == events[:1]
    assert all(first.seq < second.seq for first, second in pairwise(events))
