"""The names of history's keys in Redis.

A channel's keys share a hash tag, so they would be on one node of a cluster; those of all channels are not, so
the scripts do not run in one yet.
"""

from __future__ import annotations

from hashlib import sha256

from attrs import field, frozen


@frozen
class Keys:
    """The keys below one prefix, which is `redis.channel_prefix`. Channels are named without it."""

    channel_prefix: str
    types: str = field(init=False)
    lease: str = field(init=False)
    generation: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        for name in ("types", "lease", "generation"):
            object.__setattr__(self, name, f"{self.channel_prefix}broker:history:{name}")

    def top(self, channel: str) -> str:
        return f"{self.channel_prefix}broker:history:{{{channel}}}:top"

    def events(self, channel: str) -> str:
        return f"{self.channel_prefix}broker:history:{{{channel}}}:events"

    def memory(self, channel: str, idempotency_key: str) -> str:
        """What remembers the answer to one event's idempotency key."""
        digest = sha256(idempotency_key.encode()).hexdigest()
        return f"{self.channel_prefix}broker:history:{{{channel}}}:once:{digest}"
