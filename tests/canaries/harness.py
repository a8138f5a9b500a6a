"""The harnesses that canaries are sung to: commands that fail when a promise is broken, and how long each may
take.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# What a fault that is merely badly written would fail with: that shows nothing of the harness.
BROKEN = re.compile(
    r"^FAILED .* - (?:NameError|ImportError|ModuleNotFoundError|SyntaxError|IndentationError)\b", re.MULTILINE
)


@dataclass(frozen=True)
class Harness:
    name: str
    arguments: tuple[str, ...]  # of the interpreter
    budget_s: float
    noticed: str  # what the output of a harness that noticed something says

    @property
    def needs(self) -> str:
        """A file without which there is no such harness."""
        if self.arguments[1] == "pytest":
            return self.arguments[2].partition("::")[0]
        return f"{self.arguments[1].replace('.', '/')}/__main__.py"

    def has_noticed(self, code: int, output: str) -> bool:
        """Whether it failed as a test fails: pytest ends with 1 then, and with 2 to 5 when nothing was
        tested.
        """
        return code == 1 and re.search(self.noticed, output) is not None and not BROKEN.search(output)


def _pytest(name: str, tests: str, budget_s: float = 120) -> Harness:
    options = ("-x", "-q", "--tb=short", "-p", "no:cacheprovider")
    return Harness(name, ("-m", "pytest", *tests.split(), *options), budget_s, r"(?m)^FAILED ")


SCHEDULES = _pytest(
    "random schedules of the actors",
    "tests/actors/test_registry_schedules.py -k test_every_answer_follows",
)
ENGINE = _pytest("every schedule of the engine", "tests/storage/test_engine_schedules.py")
SIMULATION = Harness(
    "the whole simulation",
    ("-m", "tests.simulation", "--seeds", "80"),
    300,
    r"(?m)^seed [0-9]+ of .* fails",
)
LIVES = _pytest("lives of the rules beside the reference", "tests/domain/test_loan_lives.py")
LIFE = _pytest("lives over HTTP beside the reference", "tests/test_life.py", 240)
ROUTES = _pytest("every route as everybody", "tests/http/test_endpoint.py")
LOANS = _pytest("loans over HTTP", "tests/http/test_loans.py")
FORGERS = _pytest("forged tokens", "tests/http/test_tokens.py")
BODIES = _pytest("bodies over HTTP", "tests/http/test_bodies_over_http.py")
PAYMENTS = _pytest("payments over HTTP", "tests/http/test_payments.py")
BILLING = _pytest("billing killed at every call", "tests/scheduler/test_billing_faults.py")
YEAR = _pytest("a year of nights", "tests/simulation/test_year.py")
KILLS = _pytest("kills of real processes under load", "tests/crash/test_kill.py", 240)
IMPORTS = _pytest("kills of imports", "tests/crash/test_imports.py", 240)
TAMPERING = _pytest("a journal and tables that were tampered with", "tests/storage/test_verify.py")
STORE = _pytest("the store's contract", "tests/storage/test_contract.py")
POWER = Harness(
    "cuts of power",
    ("-m", "tests.crash", "--rounds", "5", "--mode", "power", "--seed", "1"),
    600,
    r"seed",
)
