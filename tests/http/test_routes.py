"""The route table itself. That the service keeps to it is tested in test_endpoint.py."""

from __future__ import annotations

import re
from typing import get_args

import pytest

from ledgerd.http.problems import PROBLEMS
from ledgerd.http.route import Scope
from ledgerd.http.routes import ROUTES

# The calls of the contract, with whose tokens they take.
CONTRACT = {
    "POST /api/register-user/": set(),
    "POST /api/login/": set(),
    "POST /api/token/": set(),
    "POST /api/logout/": {"borrower", "payments:write", "ops"},
    "GET /api/me/": {"borrower"},
    "POST /api/apply-loan/": {"borrower"},
    "GET /api/loans/": {"borrower", "ops"},
    "GET /api/loans/{loan_id}/": {"borrower", "ops"},
    "POST /api/make-payment/": {"borrower", "payments:write"},
    "POST /api/make-payments/": {"payments:write"},
    "GET /api/payments/{transaction_id}/": {"borrower", "payments:write"},
    "GET /api/get-statement/": {"borrower", "ops"},
    "POST /api/billing-runs/": {"ops"},
    "GET /api/billing-runs/": {"ops"},
    "GET /api/billing-runs/{run_id}/": {"ops"},
    "POST /api/sandbox/advance-clock/": {"ops"},
    "GET /livez": set(),
    "GET /readyz": set(),
    "GET /metrics": set(),
    "GET /.well-known/jwks.json": set(),
}


def test_every_call_of_the_contract_takes_whose_tokens_it_should():
    table = {f"{route.method} {route.path}": set(route.scopes) for route in ROUTES}
    assert {call: table.get(call) for call in CONTRACT} == CONTRACT


def test_a_name_and_an_address_stand_once():
    assert len({route.name for route in ROUTES}) == len(ROUTES)
    assert len({(route.method, route.path) for route in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_a_row_is_whole(route):
    assert route.path.startswith("/")
    assert route.path.endswith("/") == route.path.startswith("/api/")
    assert route.scopes <= set(get_args(Scope))
    assert route.answers
    assert all(200 <= status < 300 for status in route.answers)
    assert set(route.headers) <= set(route.answers)
    assert set(route.problems) <= PROBLEMS.keys()
    assert not {"unauthorized", "insufficient-scope"} & set(route.problems), "they follow from the scopes"
    assert (route.method == "POST") or route.body is None
    named = set(re.findall(r"\{(\w+)\}", route.path))
    assert named == {parameter.name for parameter in route.parameters if parameter.place == "path"}
    assert all(parameter.required for parameter in route.parameters if parameter.place == "path")
    if route.body is not None:
        assert {"malformed", "invalid-fields", "unsupported-media-type", "body-too-large"} <= set(
            route.problems
        )
