"""Whose request it is: what counts as one address, and who it is that speaks through a trusted proxy.

Nothing that a stranger sends changes whom a request is counted for. Used by edge.py for connections and by
throttle.py and people.py for logins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

IPV6_SUBNET_BITS = 64


def network(address: str) -> bytes:
    """Return what counts as one address: all of an IPv4 one, the subnet of an IPv6 one; always 16 bytes."""
    parsed = _parsed(address)
    if parsed is None:
        return b"\x00" * 16
    if isinstance(parsed, IPv6Address):
        return parsed.packed[: IPV6_SUBNET_BITS // 8].ljust(16, b"\x01")
    return parsed.packed.rjust(16, b"\x00")


class TrustedProxies:
    """The proxies whose X-Forwarded-For is believed: addresses and networks, such as "10.0.0.0/8"."""

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = [ip_network(each) for each in networks]

    def trusts(self, address: str) -> bool:
        """Return whether this is the address of a trusted proxy."""
        parsed = _parsed(address) if self._networks else None
        return parsed is not None and any(parsed in each for each in self._networks)

    def caller(self, peer: str, forwarded: Sequence[str]) -> str:
        """Return the address of who calls, given the peer's and every X-Forwarded-For header.

        Each trusted proxy adds at the right whom it heard from, so that is read from the right, up to the
        first that is not trusted: what stands left of that one anybody could have written.
        """
        caller = peer
        hops = ",".join(forwarded).split(",")
        while hops and self.trusts(caller):
            hop = _parsed(_bare(hops.pop()))
            if hop is None:
                break
            caller = str(hop)
        return caller


def _bare(hop: str) -> str:
    """Return a hop without the port that some proxies add."""
    hop = hop.strip()
    if hop.startswith("["):
        inside, closing, _ = hop[1:].partition("]")
        return inside if closing else ""
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    """Return the address, an IPv4 one also where it is written as IPv6; None when it is none."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is not None:
        return parsed.ipv4_mapped
    return parsed
