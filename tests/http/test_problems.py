"""The table of problems: one status each, whole documents, and that nothing names one that is not there."""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from pathlib import Path
from typing import get_args

import pytest

import ledgerd.http
from ledgerd.domain.commands import RejectionCode
from ledgerd.http.problems import CONTENT_TYPE, PROBLEMS, Problem, problem_bytes, problem_document
from ledgerd.http.routes import ROUTES

SOURCES = sorted(Path(ledgerd.http.__file__).parent.glob("*.py"))
# As the contract has them.
STATUSES = {
    "malformed": 400, "invalid-fields": 422, "unauthorized": 401, "insufficient-scope": 403, "not-found": 404,
    "loan-not-found": 404, "method-not-allowed": 405, "request-timeout": 408, "body-too-large": 413,
    "unsupported-media-type": 415, "too-many-attempts": 429, "already-registered": 409,
    "bad-credentials": 401, "score-pending": 409, "not-eligible": 422, "idempotency-key-conflict": 409,
    "transaction-id-conflict": 409,
    "loan-closed": 409, "no-such-bill": 422, "past-due-unpaid": 409, "amount-exceeds-payoff": 422,
    "overloaded": 503, "draining": 503,
}  # fmt: skip


def test_each_problem_has_the_status_of_the_contract():
    assert {slug: PROBLEMS[slug].status for slug in STATUSES} == STATUSES
    for slug, kind in PROBLEMS.items():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", slug)
        assert HTTPStatus(kind.status) >= HTTPStatus.BAD_REQUEST
        assert kind.title
        assert kind.advice.endswith(".")
        assert Problem(slug, "x").status == kind.status


def test_every_slug_that_is_raised_stands_in_the_table():
    raised = {
        slug
        for source in SOURCES
        for slug in re.findall(r'\b(?:Problem|Refusal)\(\s*"([a-z-]+)"', source.read_text(encoding="utf-8"))
    }
    assert len(raised) > 10
    assert raised | set(get_args(RejectionCode)) <= PROBLEMS.keys()
    assert {slug for route in ROUTES for slug in route.problems} <= PROBLEMS.keys()


@pytest.mark.parametrize("slug", PROBLEMS)
def test_a_document_is_whole(slug):
    extras = {"payoff": "1.00"}
    document = problem_document(slug, "Because.", extras)
    assert list(document) == ["type", "title", "status", "detail", "payoff"]
    assert document["type"] == f"/problems/{slug}"
    assert json.loads(problem_bytes(slug, "Because.", extras)) == document
    assert "payoff" not in problem_document(slug, "Because.")


def test_the_media_type():
    assert CONTENT_TYPE == "application/problem+json"
