from __future__ import annotations

import pytest

from ledgerd.http.throttle import ADDRESS_ALLOWANCE_FACTOR, DELAY_MAX_S, Throttle

ASHA, RAVI = b"a" * 32, b"r" * 32
HERE, ELSEWHERE = "203.0.113.7", "198.51.100.9"
FAILURES = 5


class World:
    def __init__(self, entries_max=1000) -> None:
        self.now_s = 1000.0
        self.throttle = Throttle(FAILURES, lambda: self.now_s, entries_max)

    def fail(self, times=1, account=ASHA, address=HERE) -> None:
        for _ in range(times):
            self.throttle.failed(account, address)

    def wait_s(self, account=ASHA, address=HERE) -> int:
        return self.throttle.check(account, address)


@pytest.fixture
def world():
    return World()


def test_a_few_failures_cost_nothing(world):
    assert world.wait_s() == 0
    world.fail(FAILURES - 1)
    assert world.wait_s() == 0


def test_then_the_delay_doubles_up_to_a_minute(world):
    world.fail(FAILURES - 1)
    delays = []
    for _ in range(9):
        world.fail()
        delays.append(world.wait_s())
        world.now_s += delays[-1]
        assert world.wait_s() == 0
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_the_wait_is_whole_seconds_and_ends(world):
    world.fail(FAILURES + 2)
    world.now_s += 0.5
    assert world.wait_s() == 4
    world.now_s += 3.4
    assert world.wait_s() == 1
    world.now_s += 0.1
    assert world.wait_s() == 0


def test_nobody_is_locked_out_from_another_address(world):
    world.fail(60)
    assert world.wait_s() == DELAY_MAX_S
    assert world.wait_s(address=ELSEWHERE) == 0


def test_other_accounts_at_the_same_address_go_on(world):
    world.fail(60)
    assert world.wait_s(account=RAVI) == 0


def test_a_success_begins_anew(world):
    world.fail(FAILURES - 1)
    world.throttle.succeeded(ASHA, HERE)
    world.fail(FAILURES - 1)
    assert world.wait_s() == 0
    world.fail()
    assert world.wait_s() == 1


def test_one_guess_at_each_of_many_accounts_slows_the_address_down(world):
    allowance = FAILURES * ADDRESS_ALLOWANCE_FACTOR
    for number in range(allowance - 1):
        world.fail(account=b"%032d" % number)
    assert world.wait_s(account=RAVI) == 0
    world.fail(account=b"one more")
    assert world.wait_s(account=RAVI) == 1
    assert world.wait_s(account=RAVI, address=ELSEWHERE) == 0
    world.throttle.succeeded(RAVI, HERE)
    assert world.wait_s(account=RAVI) == 1  # one's own account pays for nothing


def test_an_address_has_a_hundred_failures_and_six_seconds_forgive_one(world):
    for number in range(99):
        world.fail(account=b"%032d" % number)
    world.now_s += 5.9
    world.fail(account=b"the hundredth")
    assert world.wait_s(account=RAVI) == 1
    world.now_s += 6
    world.fail(account=b"one forgiven, one more")
    assert world.wait_s(account=RAVI) == 1
    world.now_s += 12
    world.fail(account=b"two forgiven, one more")
    assert world.wait_s(account=RAVI) == 0


def test_who_never_failed_has_no_failure_even_as_time_begins(world):
    world.now_s = 0
    world.fail(FAILURES - 1)
    assert world.wait_s() == 0
    world.fail()
    assert world.wait_s() == 1


def test_quiet_forgives_one_failure_after_another(world):
    world.fail(FAILURES - 1)
    world.now_s += 179
    world.fail()
    assert world.wait_s() == 1  # in a row, however slowly
    world.now_s += 2 * 180
    world.fail()
    assert world.wait_s() == 0
    world.now_s += 10 * 180
    world.fail(FAILURES - 1)
    assert world.wait_s() == 0


@pytest.mark.parametrize("step_s", [61, 86_400])
def test_a_clock_that_steps_back_keeps_nobody_waiting_for_it(world, step_s):
    world.fail(60)
    world.now_s -= step_s
    assert world.wait_s() == 0
    world.fail()
    assert world.wait_s() == DELAY_MAX_S
    world.now_s += DELAY_MAX_S
    assert world.wait_s() == 0


def test_many_failures_do_not_overflow(world):
    world.fail(5000)
    assert world.wait_s() == DELAY_MAX_S


def test_memory_is_bounded_and_the_stalest_goes():
    world = World(entries_max=10)
    world.fail(FAILURES)
    for number in range(9):
        world.fail(account=b"%032d" % number)
    assert world.wait_s() == 1
    world.fail()  # not the stalest any more
    for number in range(9):
        world.fail(account=b"%031dx" % number)
    assert world.wait_s() == 2
    for number in range(500):
        world.fail(account=b"%032d" % number, address=f"10.0.{number // 250}.{number % 250}")
    assert world.wait_s() == 0
    assert len(world.throttle) == 20


def test_an_ipv6_subnet_is_one_address(world):
    world.fail(60, address="2001:db8:1:2::7")
    assert world.wait_s(address="2001:db8:1:2:ffff::1") == DELAY_MAX_S
    assert world.wait_s(address="2001:db8:1:3::7") == 0
    world.fail(60, address="fe80::1%eth0")
    assert world.wait_s(address="fe80::2%eth1") == DELAY_MAX_S


def test_an_ipv4_address_is_the_same_in_ipv6_clothes(world):
    world.fail(60)
    assert world.wait_s(address=f"::ffff:{HERE}") == DELAY_MAX_S
    assert world.wait_s(address=f"::ffff:{ELSEWHERE}") == 0


def test_what_is_no_address_is_one_of_its_own(world):
    world.fail(60, address="")
    assert world.wait_s(address="a socket") == DELAY_MAX_S
    assert world.wait_s() == 0
