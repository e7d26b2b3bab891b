"""The script calls that publish: which keys and arguments they have.

Bounds, for whoever has no settings: `POSITION_MS`, and `BUILT_IN_BOUNDS` for the types; what the daemons wrote
into Redis for a type wins.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Protocol

from attrs import frozen

from broker.command import Argument, Script
from broker.config.types import BUILT_IN_TYPES, TypeOptions
from broker.history.keys import Keys
from broker.history.scripts import PUBLISH, PUBLISH_ALL

# The default of the daemon's `history.position_seconds`, which a publisher cannot know.
POSITION_MS = 86_400_000

_NO_HISTORY = "0 0"


def bounds_of(types: Mapping[str, TypeOptions]) -> Mapping[str, str]:
    """`"<length> <ms>"` for each type, `"0 0"` where it keeps no history."""
    return {
        name: f"{options.history_length} {options.history_milliseconds}" if options.keeps_history else _NO_HISTORY
        for name, options in types.items()
    }


BUILT_IN_BOUNDS = bounds_of(BUILT_IN_TYPES)


class Item(Protocol):
    """An event for a channel, which is named without the prefix."""

    @property
    def channel(self) -> str: ...
    @property
    def payload(self) -> bytes: ...


@frozen
class Call:
    """One call of a script."""

    script: Script
    keys: tuple[str, ...]
    arguments: tuple[Argument, ...]

    def by_digest(self) -> tuple[Argument, ...]:
        """The command for a Redis that knows the script."""
        return ("EVALSHA", self.script.digest, len(self.keys), *self.keys, *self.arguments)

    def whole(self) -> tuple[Argument, ...]:
        """The command for one that does not."""
        return ("EVAL", self.script.text, len(self.keys), *self.keys, *self.arguments)


def publish(keys: Keys, item: Item, idempotency_key: str | None, idempotency_ms: int) -> Call:
    """PUBLISH of one event."""
    channel = item.channel
    kind = channel.partition(":")[0]
    names = [keys.types, keys.top(channel), keys.events(channel)]
    arguments: list[Argument] = [
        keys.channel_prefix + channel,
        kind,
        BUILT_IN_BOUNDS.get(kind, _NO_HISTORY),
        item.payload,
        _tag(),
        POSITION_MS,
    ]
    if idempotency_key is not None:
        names.append(keys.memory(channel, idempotency_key))
        arguments.append(idempotency_ms)
    return Call(PUBLISH, tuple(names), tuple(arguments))


def publish_all(
    keys: Keys,
    items: Sequence[Item],
    *,
    bounds: Mapping[str, str] = BUILT_IN_BOUNDS,
    position_ms: int = POSITION_MS,
    memory: str | None = None,
    digest: str = "",
    memory_ms: int = 0,
) -> Call:
    """PUBLISH_ALL of several.

    Args:
        memory: the key that remembers the answer to a request with this `digest`, for `memory_ms`.
    """
    names = [keys.types]
    arguments: list[Argument] = [_tag(), position_ms, digest, memory_ms]
    for item in items:
        channel = item.channel
        kind = channel.partition(":")[0]
        names += (keys.top(channel), keys.events(channel))
        arguments += (keys.channel_prefix + channel, kind, bounds.get(kind, _NO_HISTORY), item.payload)
    if memory is not None:
        names.append(memory)
    return Call(PUBLISH_ALL, tuple(names), tuple(arguments))


def _tag() -> str:
    """A random number below 2 ** 30: from the system, as processes that were forked, or seeded alike, must differ."""
    return str(int.from_bytes(os.urandom(4), "big") >> 2)
