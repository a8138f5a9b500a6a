"""What the connections of a listener share: who is let in, and an answer without a request."""

from __future__ import annotations

import pytest

from ledgerd.http.addresses import TrustedProxies, network
from ledgerd.http.edge import Edge, EdgeLimits
from tests.http.edge import assert_problem

A, B, PROXY = "192.0.2.1", "192.0.2.2", "10.0.0.1"
LIMITS = EdgeLimits(
    connections=6, connections_per_address=2, trusted_proxies=TrustedProxies(["10.0.0.0/24", "fd00::/64"])
)


def an_edge(refused: list[int]) -> Edge:
    return Edge(LIMITS, lambda sent: sent or "made-here", refused.append)


def admitted(edge: Edge, *addresses: str) -> list[bool]:
    return [edge.admit(address) is not None for address in addresses]


def test_each_address_has_its_own_connections():
    edge = an_edge([])
    assert admitted(edge, A, A, A, B) == [True, True, False, True]
    edge.release(network(A))
    assert admitted(edge, A, A) == [True, False]


def test_a_subnet_counts_as_one_address():
    edge = an_edge([])
    assert admitted(edge, "2001:db8::1", "2001:db8::2:0:0:1", "2001:db8:0:0:1::3") == [True, True, False]
    assert admitted(edge, "2001:db8:0:1::1") == [True]


def test_all_together_have_so_many():
    edge = an_edge([])
    assert admitted(edge, *(f"192.0.2.{number}" for number in range(8))) == 6 * [True] + 2 * [False]
    edge.release(network("192.0.2.0"))
    assert admitted(edge, "192.0.2.9", A) == [True, False]


@pytest.mark.parametrize("proxy", [PROXY, "::ffff:10.0.0.9", "fd00::1"])
def test_a_trusted_proxy_has_as_many_as_there_are(proxy):
    edge = an_edge([])
    assert admitted(edge, *7 * [proxy]) == 6 * [True] + [False]


def test_it_is_empty_when_the_last_one_has_gone():
    edge = an_edge([])
    edge.admit(A)
    edge.admit(B)
    edge.release(network(A))
    assert not edge.empty.is_set()
    edge.release(network(B))
    assert edge.empty.is_set()
    assert (edge.open, edge.open_by_network) == (0, {})


@pytest.mark.parametrize(("slug", "status"), [("overloaded", 503), ("request-timeout", 408)])
def test_an_answer_without_a_request_is_whole_and_counted(slug, status):
    refused: list[int] = []
    headers = assert_problem(an_edge(refused).head_and_body(slug, "Because."), status, slug)
    assert headers["connection"] == "close"
    assert ("retry-after" in headers) == (status == 503)
    assert refused == [status]
