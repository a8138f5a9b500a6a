"""A second of what `python -m tests.overload` does for minutes, and that its judgement has teeth. Faults
in the service itself are planted there.
"""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.overload.rounds import Failed, Overload, ready


def failure(overload: Overload) -> str:
    with pytest.raises(Failed) as failed:
        overload.check()
    return str(failed.value)


def test_twice_what_it_holds_leaves_most_of_it_done_and_the_rest_refused(tmp_path: Path):
    with ready(tmp_path) as overload:
        overload.warm(0.5, 1)
        is_so = overload.round(1.0, 1)
        overload.check(alone=False)
        for is_not_so, said in (
            (replace(is_so, over=is_so.after), "nothing was refused"),
            (replace(is_so, after=is_so.over), "what it holds was refused"),
            (replace(is_so, goodput=0.1), "goodput 0.10"),
            (replace(is_so, again_after_s=9.0), "itself again after 9.00 s"),
            (replace(is_so, rss_mb=(500.0, 50.0)), "more memory"),
            (replace(is_so, answers_ms=[500.0] * 9), "an answer takes 500 ms"),
        ):
            overload.rounds = [is_not_so]
            assert said in failure(overload)
        overload.rounds = [is_so]
        acknowledged = overload.acknowledged.pop()
        assert "1 payments that nobody was told of" in failure(overload)
        overload.acknowledged |= {acknowledged, "never paid"}
        assert "1 acknowledged payments are lost" in failure(overload)
