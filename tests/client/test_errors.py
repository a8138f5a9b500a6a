"""What an answer that is no success tells: a final refusal, or to try again."""

from __future__ import annotations

import json

import pytest

from ledgerd.client.errors import PROBLEM_TYPE, failed, read_problem, read_retry_after_s


def told(status: int, slug: str, **more: object):
    body = {"type": f"/problems/{slug}", "title": "T", "status": status, "detail": "D", **more}
    return read_problem(status, PROBLEM_TYPE, json.dumps(body).encode(), "r-1")


def test_a_problem_is_read_whole():
    problem = told(422, "amount-exceeds-payoff", payoff="4850.00")
    assert (problem.slug, problem.title, problem.status, problem.detail) == (
        "amount-exceeds-payoff",
        "T",
        422,
        "D",
    )
    assert (problem.request_id, problem.extra) == ("r-1", {"payoff": "4850.00"})
    assert str(problem) == "422 amount-exceeds-payoff: D"


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html", b"<h1>Not\nhere</h1>"),
        (PROBLEM_TYPE, b"{"),
        (PROBLEM_TYPE, b"[]"),
        (PROBLEM_TYPE, b"\xff"),
    ],
)
def test_what_is_not_the_service_s_own_has_no_slug(content_type, body):
    problem = read_problem(404, content_type, body)
    assert (problem.slug, problem.status, problem.request_id) == ("", 404, None)
    assert "\n" not in str(problem)
    assert len(read_problem(502, "text/html", b"x" * 10**6).detail) == 200


@pytest.mark.parametrize(
    ("status", "slug", "is_final", "unsure"),
    [
        (400, "malformed", True, None),
        (401, "unauthorized", True, None),
        (404, "loan-not-found", True, None),
        (409, "loan-closed", True, None),
        (422, "invalid-fields", True, None),
        (408, "request-timeout", False, False),
        (429, "too-many-attempts", False, False),
        (500, "outcome-unknown", False, True),
        (500, "internal", False, True),
        (503, "overloaded", False, False),
        (503, "draining", False, False),
        (503, "storage-full", False, False),
    ],
)
def test_4xx_is_final_and_the_rest_is_tried_again(status, slug, is_final, unsure):
    failure = failed(told(status, slug), "7")
    assert (failure is None) == is_final
    if failure is not None:
        assert (failure.unsure, failure.retry_after_s) == (unsure, 7.0)


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_s_word_leaves_open_what_was_done(status):
    failure = failed(read_problem(status, "text/html", b"Bad Gateway"))
    assert failure is not None
    assert failure.unsure


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", 3.0),
        ("0", 0.0),
        (None, 0.0),
        ("", 0.0),
        ("-1", 0.0),
        ("soon", 0.0),
        ("9" * 400, 0.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after_is_seconds(text, expected):
    assert read_retry_after_s(text) == expected
