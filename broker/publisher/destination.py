"""Where a publisher publishes to, and the bounds it keeps: one frozen value, checked when it is made.

An argument wins over the environment (`BROKER_REDIS_URL`, then `REDIS_URL`; `BROKER_REDIS_CHANNEL_PREFIX`),
which wins over the default: the daemon's embedded server. Nothing is looked up or connected here.
"""

from __future__ import annotations

import math
import os

from attrs import field, frozen

from broker.config.redisname import check_channel_prefix, check_redis_url
from broker.config.secret import mask_url
from broker.errors import ConfigError, Problem

MIB = 1024 * 1024

_LEAST_SECONDS = 0.01


@frozen
class Destination:
    """A Redis, the prefix of its channels, and what a publish may cost.

    Args:
        timeout_seconds: the longest that one call may take: waiting for a connection, connecting, sending, the answer.
        pause_seconds: after a failure, how long events are given up at once before one is tried again.
        connections_max: connections at once, for each process (and each event loop).
        event_max_bytes: the largest event; the daemon's own limit is `channels.message_max_bytes`.
    """

    url: str = field(repr=False)
    channel_prefix: str
    timeout_seconds: float
    pause_seconds: float
    connections_max: int
    event_max_bytes: int

    @classmethod
    def from_settings(
        cls,
        url: str | None,
        channel_prefix: str | None,
        *,
        timeout_seconds: float,
        pause_seconds: float,
        connections_max: int,
        event_max_bytes: int,
    ) -> Destination:
        """What the arguments say, else the environment, else the defaults.

        Raises:
            ConfigError: with everything that is wrong, and where it came from.
        """
        problems: list[Problem] = []
        url_from, url = _first(
            ("argument url", url),
            ("environment BROKER_REDIS_URL", os.environ.get("BROKER_REDIS_URL") or None),
            ("environment REDIS_URL", os.environ.get("REDIS_URL") or None),
            default=f"redis://127.0.0.1:{os.environ.get('BROKER_EMBEDDED_PORT') or 6399}/0",
        )
        prefix_from, prefix = _first(
            ("argument channel_prefix", channel_prefix),
            ("environment BROKER_REDIS_CHANNEL_PREFIX", os.environ.get("BROKER_REDIS_CHANNEL_PREFIX")),
            default="",
        )
        try:
            check_redis_url(url)
        except ValueError as error:
            problems.append(Problem(url_from, str(error)))
        if not url:
            problems.append(Problem(url_from, "is empty; write redis://, rediss:// or unix://"))
        try:
            check_channel_prefix(prefix)
        except ValueError as error:
            problems.append(Problem(prefix_from, str(error)))
        for name, seconds in (("timeout_seconds", timeout_seconds), ("pause_seconds", pause_seconds)):
            if not _LEAST_SECONDS <= seconds < math.inf:
                problems.append(Problem(f"argument {name}", f"{seconds} is not a time of at least {_LEAST_SECONDS} s"))
        for name, count in (("connections_max", connections_max), ("event_max_bytes", event_max_bytes)):
            if count < 1:
                problems.append(Problem(f"argument {name}", f"{count} is less than 1"))
        if problems:
            raise ConfigError(problems)
        return cls(url, prefix, timeout_seconds, pause_seconds, connections_max, event_max_bytes)

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return mask_url(self.url)


def _first(*candidates: tuple[str, str | None], default: str) -> tuple[str, str]:
    for origin, value in candidates:
        if value is not None:
            return origin, value
    return "default", default
