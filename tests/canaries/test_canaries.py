"""The list of canaries fits the code of today, and the quickest are killed. `make canaries` tries all."""

from __future__ import annotations

import ast
from dataclasses import replace

import pytest

from tests.canaries.__main__ import ROOT, Wrong, apply, copied, noticed, run
from tests.canaries.harness import ROUTES
from tests.canaries.table import CANARIES, Canary

QUICK = ("verify takes digests on trust", "widen the algorithms")
CANARIES_MIN = 12


def named(name: str) -> Canary:
    [canary] = [each for each in CANARIES if each.name == name]
    return canary


def test_there_are_enough_and_each_has_its_own_name():
    assert len({canary.name for canary in CANARIES}) == len(CANARIES) >= CANARIES_MIN


def test_the_documents_tell_of_each():
    told = (ROOT / "docs" / "teeth.md").read_text(encoding="utf-8")
    for canary in CANARIES:
        assert f"| {canary.name} | {canary.breaks} | {canary.killed_by.name} |" in told


@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: canary.name.replace(" ", "-"))
def test_each_change_fits_the_code_and_leaves_it_code(canary: Canary):
    for name, before, after in canary.changes:
        text = (ROOT / "ledgerd" / name).read_text(encoding="utf-8")
        assert text.count(before) == 1, f"{name} has changed: write {canary.name!r} anew"
        assert before != after
        ast.parse(text.replace(before, after))


@pytest.mark.parametrize("name", QUICK)
def test_a_canary_is_killed(name: str):
    is_killed, said = noticed(named(name))
    assert is_killed, said


def test_what_does_not_fit_or_is_no_code_is_not_taken_for_a_canary():
    canary = named("widen the algorithms")
    with copied() as folder:
        for before, after, why in (
            ("no such text", "", "has changed: 'no such text' stands there 0 times"),
            ("self", "", "has changed: 'self' stands there"),
            ("_TYPE = ", "_TYPE = _type or ", "the fault is no code"),
        ):
            with pytest.raises(Wrong, match=why):
                apply(replace(canary, changes=(("http/tokens.py", before, after),)), folder)


@pytest.mark.parametrize(
    ("code", "output"),
    [
        (0, "1 passed"),
        (-1, "FAILED tests/http/test_x.py::test_y - assert 0"),
        (2, "ERROR tests/http/test_x.py - ImportError: no"),
        (1, "ERROR tests/http/test_x.py::test_y - assert 0"),
        (1, "FAILED tests/http/test_x.py::test_y - NameError: name 'x' is not defined"),
    ],
)
def test_a_harness_that_passes_hangs_or_never_began_has_noticed_nothing(code: int, output: str):
    assert not ROUTES.has_noticed(code, output)
    assert ROUTES.has_noticed(1, "FAILED tests/http/test_x.py::test_y - assert 0")


def test_a_harness_that_takes_too_long_is_ended():
    with copied() as folder:
        hanging = replace(ROUTES, arguments=("-c", "import time; time.sleep(600)"), budget_s=0.5)
        assert run(hanging, folder) == (-1, "")
