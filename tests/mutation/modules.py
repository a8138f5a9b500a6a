"""Which modules are mutated, and which tests must notice: the quickest first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Module:
    path: str
    tests: tuple[str, ...]
    only: frozenset[str] = frozenset()  # these functions of it alone


def _domain(name: str, *more: str) -> Module:
    return Module(f"ledgerd/domain/{name}.py", (f"tests/domain/test_{name}.py", *more))


def _http(name: str, *more: str, only: frozenset[str] = frozenset()) -> Module:
    return Module(f"ledgerd/http/{name}.py", (f"tests/http/test_{name}.py", *more), only)


# Whole lives beside the reference: one of eight seeds is enough for nearly all.
LIVES = "tests/domain/test_loan_lives.py::test_the_rules_agree_with_the_reference[0]"

MODULES = (
    _domain("calendar"),
    _domain("eligibility"),
    _domain("scoring"),
    _domain("statement"),
    _domain("money"),
    _domain("commands", "tests/domain/test_loan.py"),
    _domain("events", "tests/domain/test_loan.py"),
    _domain("loan", "tests/domain/test_loan_refusals.py", "tests/domain/test_loan_laws.py", LIVES),
    _domain("transactions"),
    _http("keyring"),
    _http("tokens"),
    _http("throttle"),
    _http("passwords"),
    _http(
        "endpoint",
        "tests/http/test_people.py",
        only=frozenset({"bearer", "accept", "check_draining", "draining", "_authenticate", "problem_of"}),
    ),
    _http("accounts"),
)
