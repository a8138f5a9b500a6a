"""A second of what `python -m tests.overload` does for minutes."""

from pathlib import Path

from tests.overload.faults import seen
from tests.overload.rounds import ready


def test_twice_what_it_holds_leaves_most_of_it_done_and_the_rest_refused(tmp_path: Path):
    with ready(tmp_path) as overload:
        overload.warm(0.5, 1)
        overload.round(1.0, 1)
        overload.check()


def test_a_service_that_refuses_nothing_is_seen(tmp_path: Path):
    assert "nothing was refused" in seen("refuses nothing", tmp_path, 0.5)
