"""The limits of one IP address, by the clock of the test."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.access import Limits
from broker.turnstile import CONNECTIONS, CONNECTS, REMEMBERED_MAX, Barrier, Turnstile, TurnstileStatistics

IP = "198.51.100.7"
FULL = Barrier(CONNECTIONS, 5)


def limits(connections: int = 0, per_second: float = 0.0, burst: int = 1, loopback: str = "exempt") -> Limits:
    return Limits(
        connections_per_ip=connections,
        connects_per_second_per_ip=per_second,
        connects_burst_per_ip=burst,
        loopback=loopback,
    )


def test_so_many_at_once() -> None:
    turnstile = Turnstile(limits(connections=2))
    assert [turnstile.enter(IP, 0) for _ in range(3)] == [None, None, FULL]
    assert turnstile.enter("198.51.100.8", 0) is None
    turnstile.leave(IP)
    assert [turnstile.enter(IP, 0) for _ in range(2)] == [None, FULL]
    for _ in range(2):
        turnstile.leave(IP)
    turnstile.leave("198.51.100.8")
    assert turnstile.statistics() == TurnstileStatistics(0, 0, {CONNECTIONS: 2})


def test_so_many_a_second() -> None:
    turnstile = Turnstile(limits(per_second=0.5, burst=3))
    assert [turnstile.enter(IP, 10.0) for _ in range(4)] == [None, None, None, Barrier(CONNECTS, 2)]
    assert turnstile.enter(IP, 11.5) == Barrier(CONNECTS, 1)
    assert [turnstile.enter(IP, 12.0) for _ in range(2)] == [None, Barrier(CONNECTS, 2)]
    assert [turnstile.enter(IP, 1000.0) for _ in range(4)] == [None, None, None, Barrier(CONNECTS, 2)]
    assert turnstile.statistics() == TurnstileStatistics(1, 1, {CONNECTS: 4})


def test_who_is_refused_is_not_inside() -> None:
    turnstile = Turnstile(limits(connections=1, per_second=1.0, burst=2))
    assert [turnstile.enter(IP, 0) for _ in range(3)] == [None, FULL, Barrier(CONNECTS, 1)]
    turnstile.leave(IP)
    assert turnstile.statistics().inside == 0


def test_without_limits() -> None:
    turnstile = Turnstile(limits())
    assert [turnstile.enter(IP, 0) for _ in range(10_000)] == [None] * 10_000
    assert turnstile.statistics() == TurnstileStatistics(1, 0, {})


@pytest.mark.parametrize(
    ("one", "other", "are_one"),
    [
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff::2", True),
        ("2001:db8:0:1::1%eth0", "2001:db8:0:1::1", True),
        ("::ffff:198.51.100.7", IP, True),
        ("::FFFF:c633:6407", IP, True),
        ("unknown", "unknown", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("::ffff:198.51.100.7", "::ffff:198.51.100.8", False),
        (IP, "198.51.100.8", False),
        ("unknown", IP, False),
    ],
)
def test_what_one_address_is(one: str, other: str, are_one: bool) -> None:
    turnstile = Turnstile(limits(connections=1))
    assert turnstile.enter(one, 0) is None
    assert turnstile.enter(other, 0) == (FULL if are_one else None)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.255.0.3", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_exempt_unless_it_is_limited(address: str) -> None:
    exempt, limited = (Turnstile(limits(connections=1, loopback=loopback)) for loopback in ("exempt", "limited"))
    assert [exempt.enter(address, 0) for _ in range(3)] == [None, None, None]
    assert [limited.enter(address, 0) for _ in range(3)] == [None, FULL, FULL]
    exempt.leave(address)
    limited.leave(address)
    assert exempt.statistics().inside == limited.statistics().inside == 0


def test_a_unix_socket_has_no_address() -> None:
    turnstile = Turnstile(limits(connections=1, per_second=1, loopback="limited"))
    assert [turnstile.enter(None, 0) for _ in range(3)] == [None, None, None]
    turnstile.leave(None)


def test_addresses_without_end_are_remembered_up_to_a_bound() -> None:
    """An attacker with a /32 of IPv6 has 2**32 addresses that count."""
    turnstile = Turnstile(limits(per_second=1, burst=1000))
    for number in range(REMEMBERED_MAX + 1000):
        address = f"2001:db8:{number >> 16:x}:{number & 0xFFFF:x}::1"
        turnstile.enter(address, 0.0)
        turnstile.leave(address)
    assert turnstile.statistics() == TurnstileStatistics(0, REMEMBERED_MAX, {})


def test_who_was_quiet_is_forgotten_and_who_was_not_is_not() -> None:
    turnstile = Turnstile(limits(per_second=1, burst=2))
    for number in range(100):
        turnstile.enter(f"192.0.2.{number}", 0.0)
    turnstile.enter(IP, 0.0)
    for tick in range(1, 200):
        assert turnstile.enter(IP, tick) is None
        assert turnstile.enter(f"203.0.113.{tick}", tick) is None
    assert turnstile.statistics().remembered <= 4
    assert [turnstile.enter(IP, 199) for _ in range(2)] == [None, Barrier(CONNECTS, 1)]


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.floats(0, 2)), max_size=60))
def test_never_more_inside_than_allowed(steps: list[tuple[int, bool, float]]) -> None:
    turnstile = Turnstile(limits(connections=2, per_second=2, burst=3))
    inside: dict[str, int] = {}
    now, entered = 0.0, 0
    for number, comes, pause in steps:
        now += pause
        address = f"198.51.100.{number}"
        if comes:
            if turnstile.enter(address, now) is None:
                inside[address] = inside.get(address, 0) + 1
                entered += 1
        elif inside.get(address):
            turnstile.leave(address)
            inside[address] -= 1
        assert all(count <= 2 for count in inside.values())
        assert turnstile.statistics().inside == sum(map(bool, inside.values()))
    assert entered <= 6 * (3 + 2 * now)
