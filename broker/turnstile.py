"""The turnstile: how many connections one IP address may have at once, and open in a second.

Of IPv6 a /64 counts as one address, for that is what one customer is given; IPv4 inside of IPv6 is IPv4. Who comes by
a unix socket has no address and no limit; this machine has none unless `limits.loopback` says so. Text that is no
address, such as `unknown` from behind a proxy, is one address of its own.

Bounds: addresses that are inside, of which there are as many as connections; and `REMEMBERED_MAX` whose last
connects are remembered. Those who have been quiet long enough are forgotten as others come; when there are too many,
the one that was quiet longest is.

Synchronous; no I/O.
"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from collections.abc import Mapping
from ipaddress import IPv4Address, ip_address

from attrs import Factory, define, frozen

from broker.bucket import Bucket
from broker.config.access import Limits

REMEMBERED_MAX = 20_000
CONNECTIONS = "connections_per_ip"
CONNECTS = "connects_per_second_per_ip"
# Nobody knows when one of its connections ends.
_CONNECTIONS_RETRY_SECONDS = 5
_FORGOTTEN_AT_ONCE = 2


@frozen
class Barrier:
    """A limit that was reached.

    Args:
        limit: the name of its setting.
        retry_seconds: when trying again may help; whole seconds.
    """

    limit: str
    retry_seconds: int


@frozen
class TurnstileStatistics:
    """A snapshot: addresses that are inside, or remembered; connections refused since the start, by limit."""

    inside: int
    remembered: int
    refused: Mapping[str, int]


@define(eq=False)
class Turnstile:
    """Counts addresses in and out."""

    _limits: Limits = Factory(Limits)
    _inside: dict[str, int] = Factory(dict)
    _buckets: OrderedDict[str, Bucket] = Factory(OrderedDict)
    _refused: Counter[str] = Factory(Counter)

    def enter(self, address: str | None, now: float, *, connects: bool = True) -> Barrier | None:
        """Count one connection in; where a limit is reached it is not counted, and the limit is returned.

        Args:
            connects: it is new; a stream on one that is there already does not count as a connect.
        """
        who = self._counted_as(address)
        if who is None:
            return None
        limits = self._limits
        inside = self._inside.get(who, 0)
        wait = self._bucket(who, now).take(now) if connects and limits.connects_per_second_per_ip else 0.0
        if wait:
            barrier = Barrier(CONNECTS, max(1, math.ceil(wait)))
        elif limits.connections_per_ip and inside >= limits.connections_per_ip:
            barrier = Barrier(CONNECTIONS, _CONNECTIONS_RETRY_SECONDS)
        else:
            self._inside[who] = inside + 1
            return None
        self._refused[barrier.limit] += 1
        return barrier

    def leave(self, address: str | None) -> None:
        """Count one connection out that was counted in."""
        who = self._name_of(address)
        # After `adapt` there are those who came uncounted, and leave from an address that is counted by now.
        inside = self._inside.get(who, 0) - 1 if who is not None else 0
        if who is not None and inside > 0:
            self._inside[who] = inside
        elif who is not None:
            self._inside.pop(who, None)

    def adapt(self, limits: Limits) -> None:
        """Go by other limits from here on. Who is inside stays."""
        self._limits = limits
        self._buckets.clear()

    def statistics(self) -> TurnstileStatistics:
        return TurnstileStatistics(len(self._inside), len(self._buckets), dict(self._refused))

    def _counted_as(self, address: str | None) -> str | None:
        """The address, or network, that a connection counts for; None for none."""
        return self._name_of(address, is_loopback_exempt=self._limits.loopback == "exempt")

    @staticmethod
    def _name_of(address: str | None, *, is_loopback_exempt: bool = False) -> str | None:
        if address is None:
            return None
        if ":" not in address:
            return None if is_loopback_exempt and address.startswith("127.") else address
        ip = ip_address(address.partition("%")[0])
        ip = getattr(ip, "ipv4_mapped", None) or ip
        if is_loopback_exempt and ip.is_loopback:
            return None
        return str(ip) if isinstance(ip, IPv4Address) else f"{int(ip) >> 64:x}::/64"

    def _bucket(self, who: str, now: float) -> Bucket:
        """What is remembered of an address, which from now on was seen last."""
        buckets = self._buckets
        bucket = buckets.get(who)
        if bucket is not None:
            buckets.move_to_end(who)
            return bucket
        for _ in range(_FORGOTTEN_AT_ONCE):
            oldest = next(iter(buckets), None)
            if oldest is None or not (len(buckets) >= REMEMBERED_MAX or buckets[oldest].is_full(now)):
                break
            del buckets[oldest]
        bucket = buckets[who] = Bucket(self._limits.connects_per_second_per_ip, self._limits.connects_burst_per_ip)
        return bucket
