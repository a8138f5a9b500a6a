"""Whose request it is, whatever headers say."""

from __future__ import annotations

import pytest

from ledgerd.config import Server
from ledgerd.http.addresses import TrustedProxies, network
from tests.http.outside import PASSWORD

CALLER, SPOOFED = "203.0.113.7", "198.51.100.66"
NEAR, FAR = "10.1.0.1", "192.0.2.80"  # two proxies, one behind the other
PROXIES = TrustedProxies(["10.0.0.0/8", FAR, "fd00::/64"])


# What counts as one address ----------------------------------------------------------------------


def test_an_ipv6_subnet_is_one_address():
    assert network("2001:db8::1") == network("2001:db8::ffff:1")
    assert network("2001:db8::1") != network("2001:db8:0:1::1")
    assert network("192.0.2.1") != network("192.0.2.2")


def test_one_spelt_two_ways_is_one():
    assert network("::ffff:192.0.2.1") == network("192.0.2.1")
    assert network("fe80::1%eth0") == network("fe80::1")


def test_what_is_no_address_is_one_of_its_own():
    nobody = {network(text) for text in ("", "x", "1.2.3", "1.2.3.4.5", "::g")}
    assert len(nobody) == 1
    assert nobody.isdisjoint({network("0.0.0.1"), network("::1"), network("192.0.2.1")})
    assert all(len(each) == 16 for each in (*nobody, network("192.0.2.1"), network("::1")))


# Through proxies ---------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", [CALLER, "2001:db8::1", "", "11.0.0.1"])
def test_the_header_of_a_stranger_is_ignored(peer):
    assert PROXIES.caller(peer, [SPOOFED]) == peer
    assert TrustedProxies().caller(peer, [SPOOFED]) == peer


@pytest.mark.parametrize(
    ("peer", "forwarded", "caller"),
    [
        (NEAR, [CALLER], CALLER),
        (NEAR, [f" {CALLER} "], CALLER),
        (f"::ffff:{NEAR}", [CALLER], CALLER),
        ("fd00::1", ["2001:db8::7"], "2001:db8::7"),
        (NEAR, [f"{CALLER}:51234"], CALLER),
        (NEAR, ["[2001:db8::7]:51234"], "2001:db8::7"),
        (NEAR, [f"{CALLER}, {FAR}"], CALLER),
        (NEAR, [CALLER, FAR], CALLER),
        # What the caller wrote stands further left, whatever it says.
        (NEAR, [f"{SPOOFED}, {CALLER}"], CALLER),
        (NEAR, [SPOOFED, CALLER], CALLER),
        (NEAR, [f"{SPOOFED}, {CALLER}, {FAR}"], CALLER),
        (NEAR, [f"{FAR}, {CALLER}"], CALLER),
        (NEAR, [f"x, {CALLER}"], CALLER),
        (NEAR, ["x" * 8000, CALLER], CALLER),
        # Everybody is a proxy: the first of them called.
        (NEAR, [f"10.0.0.9, {FAR}"], "10.0.0.9"),
        # Nothing to go by: the last proxy that is known.
        (NEAR, [], NEAR),
        (NEAR, [""], NEAR),
        (NEAR, ["unknown"], NEAR),
        (NEAR, [f"{CALLER}, unknown"], NEAR),
        (NEAR, [f"{CALLER}, "], NEAR),
        (NEAR, [f"{CALLER}, unknown, {FAR}"], FAR),
        (NEAR, ["1.2.3"], NEAR),
        (NEAR, ["256.0.0.1"], NEAR),
        (NEAR, ["[2001:db8::7"], NEAR),
        (NEAR, [f"{CALLER};{SPOOFED}"], NEAR),
        (NEAR, ["\u0661.2.3.4"], NEAR),
    ],
)
def test_who_calls_through_a_trusted_proxy(peer, forwarded, caller):
    assert PROXIES.caller(peer, forwarded) == caller


# Logins ------------------------------------------------------------------------------------------


async def fail_until_throttled(world, identity, forwarded):
    for attempt in range(world.service.config.auth.login_failures + 1):
        answer = await log_in(world, identity, "wrong", next(forwarded))
        if answer.status == 429:
            return attempt
    return None


def log_in(world, identity, password, forwarded):
    body = {"aadhar_id": identity, "password": password}
    return world.call("POST", "/api/login/", body, None, {"X-Forwarded-For": forwarded})


async def test_a_stranger_does_not_escape_the_throttle_with_another_header_each_time(world, borrower):
    headers = (f"198.51.100.{number}" for number in range(1, 99))
    assert await fail_until_throttled(world, borrower.identity, headers) is not None


async def test_behind_a_trusted_proxy_each_caller_is_throttled_alone(open_world):
    async with open_world(server=Server(trusted_proxies=["127.0.0.0/8"])) as world:
        borrower = await world.borrower()
        guesser = (f"198.51.100.{number}, {CALLER}" for number in range(1, 99))
        assert await fail_until_throttled(world, borrower.identity, guesser) is not None
        assert (await log_in(world, borrower.identity, PASSWORD, CALLER)).status == 429
        assert (await log_in(world, borrower.identity, PASSWORD, "203.0.113.8")).status == 200
