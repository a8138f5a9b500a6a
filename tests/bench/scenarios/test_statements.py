"""Queries are counted by the service itself, on the ledger that was loaded."""

from __future__ import annotations

from bench.scenarios.statements import pages_of, query_measures
from bench.stage import Stage


def test_queries_are_counted_for_each_kind_of_page(stage: Stage):
    with stage.serve("payments") as service:
        token = service.tokens(1)[0]
        _, (_, loans) = service.statement_loans
        pages = pages_of(service, token, 60, loans)
    assert list(pages) == ["a loan with 60 payments, first page"]
    resident, cold = query_measures(stage, pages)
    assert 1 <= resident.median <= cold.median
