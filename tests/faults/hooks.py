"""What the daemon calls for one client on behalf of others, found in its code: row 22 has each of them raise.

These are the methods with a fence around them (`broker.client.fenced`), and those that a client's objects have because
a protocol wants them: of the conversation, of what is said in it, and of whoever listens to channels.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import attrs

import broker.daemon  # noqa: F401  brings in everything that a daemon runs
from broker.client import Conversation, fenced
from broker.hub import Subscriber
from broker.topic.topic import Composer
from broker.websocket import Talk

PROTOCOLS: tuple[type, ...] = (Conversation, Talk, Subscriber, Composer)
_FENCE = fenced(lambda self: None).__code__


def hooks() -> set[str]:
    """Their names, as `Tampered.raising` has them."""
    return set(_fenced()) | set(_wanted())


def _fenced() -> Iterator[str]:
    for each in _classes():
        for name, value in vars(each).items():
            if getattr(value, "__code__", None) is _FENCE:
                yield _name(each, name)


def _wanted() -> Iterator[str]:
    members = [_members(protocol) for protocol in PROTOCOLS]
    for each in _classes():
        if not attrs.has(each) or "_client" not in attrs.fields_dict(each):  # not for one client
            continue
        for wanted in members:
            if all(hasattr(each, name) for name in wanted):
                for name in wanted:
                    yield _name(next(owner for owner in each.__mro__ if name in vars(owner)), name)


def _members(protocol: type) -> set[str]:
    return {
        name
        for base in protocol.__mro__
        if base.__module__.partition(".")[0] == "broker"
        for name in vars(base)
        if not name.startswith("_")
    }


def _classes() -> Iterator[type]:
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "broker":
            yield from (each for each in vars(module).values() if isinstance(each, type) and each.__module__ == name)


def _name(owner: type, name: str) -> str:
    return f"{owner.__module__}:{owner.__qualname__}.{name}"
