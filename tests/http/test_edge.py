"""What the connections of a listener share: who is let in, and an answer without a request."""

from __future__ import annotations

import pytest

from ledgerd.http.edge import Edge, EdgeLimits
from tests.http.edge import assert_problem


def an_edge(refused: list[int]) -> Edge:
    return Edge(EdgeLimits(connections_per_address=2), lambda sent: sent or "made-here", refused.append)


def test_each_address_has_its_own_connections():
    edge = an_edge([])
    assert [edge.admit("a"), edge.admit("a"), edge.admit("a"), edge.admit("b")] == [True, True, False, True]
    edge.release("a")
    assert edge.admit("a")


def test_it_is_empty_when_the_last_one_has_gone():
    edge = an_edge([])
    edge.admit("a")
    edge.admit("b")
    edge.release("a")
    assert not edge.empty.is_set()
    edge.release("b")
    assert edge.empty.is_set()
    assert edge.connections == {}


@pytest.mark.parametrize(("slug", "status"), [("overloaded", 503), ("request-timeout", 408)])
def test_an_answer_without_a_request_is_whole_and_counted(slug, status):
    refused: list[int] = []
    headers = assert_problem(an_edge(refused).head_and_body(slug, "Because."), status, slug)
    assert headers["connection"] == "close"
    assert ("retry-after" in headers) == (status == 503)
    assert refused == [status]
