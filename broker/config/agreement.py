"""What settings must have in common: each may be right by itself, and wrong beside another.

Law: what is wrong is said of a setting that somebody gave, never of a default. So a built-in type whose
history is turned off with one option keeps its other defaults, and nothing is wrong with them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import attrs
from attrs import frozen

from broker.config.access_agreement import disagreements_about_access
from broker.config.names import DEFAULT, SETTINGS, TYPES, type_setting, type_table
from broker.config.structure import Place
from broker.config.types import BUILT_IN_TYPES, TypeOptions

# (the lesser, the greater, whether they must differ)
_ORDERED = (
    ("channels.message_max_bytes", "clients.outbox_max_bytes", False),
    ("clients.catch_up_bytes", "clients.outbox_max_bytes", False),
    ("clients.outbox_max_bytes", "limits.outbox_total_bytes", False),
    ("clients.patience_seconds", "listen.dead_seconds", True),
    ("redis.backoff_min_seconds", "redis.backoff_max_seconds", False),
    ("websocket.ping_seconds", "websocket.silence_seconds", True),
)
# At 0 the greater one is off, and not less than anything.
_OFF_AT_ZERO = ("listen.dead_seconds",)
_HISTORY = ("history_length", "history_seconds")


def disagreements(
    values: Mapping[str, Mapping[str, Any]], origins: Mapping[str, str], unsure: Collection[str]
) -> Iterator[tuple[Place, str]]:
    """What is wrong between settings, and the place of one of them.

    Args:
        values: what was given, by section and key; for `types` by type and key.
        origins: where each dotted setting that was given comes from.
        unsure: dotted settings, and tables of types, of which nobody knows what they are to be; `types` for all types.
    """
    yield from _pairs(values, origins, unsure)
    yield from disagreements_about_access(values, origins, unsure)
    if TYPES not in unsure:
        for type, table in values[TYPES].items():
            if type_table(type) not in unsure:
                yield from _Options.of(type, table, origins).disagreements()


def _pairs(
    values: Mapping[str, Mapping[str, Any]], origins: Mapping[str, str], unsure: Collection[str]
) -> Iterator[tuple[Place, str]]:
    """What is wrong between two numbers, said of the greater one unless that is a default."""
    for lesser, greater, apart in _ORDERED:
        small, great = (
            values[section].get(key, SETTINGS[f"{section}.{key}"].default)
            for section, key in (lesser.split("."), greater.split("."))
        )
        if lesser in unsure or greater in unsure or (greater in _OFF_AT_ZERO and not great):
            continue
        if small < great or (small == great and not apart):
            continue
        if greater in origins:
            than, origin = "not more" if apart else "less", origins.get(lesser, DEFAULT)
            what = f"{great} is {than} than {lesser}, which is {small} ({origin}); raise this or lower that"
            yield tuple(greater.split(".")), what
        elif lesser in origins:
            what = f"{small} is {'not less' if apart else 'more'} than {greater}, which is {great} ({DEFAULT})"
            yield tuple(lesser.split(".")), what + "; lower this or raise that"


@frozen
class _Options:
    """The options of one channel type, and which of them were given."""

    type: str
    options: TypeOptions
    given: Collection[str]
    origins: Mapping[str, str]

    @classmethod
    def of(cls, type: str, table: Mapping[str, Any], origins: Mapping[str, str]) -> _Options:
        return cls(type, attrs.evolve(BUILT_IN_TYPES.get(type, TypeOptions()), **table), table.keys(), origins)

    def disagreements(self) -> Iterator[tuple[Place, str]]:
        """One at most: the next may be gone when that one is."""
        options = self.options
        for kept, missing in (_HISTORY, _HISTORY[::-1]):
            if kept in self.given and getattr(options, kept) and not getattr(options, missing):
                yield self._without(kept, missing)
                return
        if not options.keeps_history:
            to_do = "set history_length and history_seconds"
            if "replay" in self.given and options.replay:
                what = f"{options.replay}, but the type has no history to replay; {to_do}, or this to 0"
                yield self._place("replay"), what
            elif "slow_clients" in self.given and options.slow_clients == "catch_up":
                what = f"catch_up, but the type has no history to read; {to_do}, or write another policy"
                yield self._place("slow_clients"), what
        elif "replay" in self.given and options.replay > options.history_length:
            what = f"{options.replay} is more than {self._named('history_length')}; lower this or raise that"
            yield self._place("replay"), what

    def _without(self, kept: str, missing: str) -> tuple[Place, str]:
        """Half a history; said of the half that is missing where that was given."""
        if missing in self.given:
            what = f"0 keeps nothing, but there is {self._named(kept)}; raise this, or set that to 0 too"
            return self._place(missing), what
        what = f"keeps nothing without {missing}, which is 0 ({DEFAULT}); set that too, or this to 0"
        return self._place(kept), what

    def _place(self, key: str) -> Place:
        return (TYPES, self.type, key)

    def _named(self, key: str) -> str:
        setting = type_setting(self.type, key)
        return f"{setting}, which is {getattr(self.options, key)} ({self.origins.get(setting, DEFAULT)})"
