"""The view: what `broker top` shows of a sample, and what a key changes about it. No I/O.

The filter of channels is the beginning of their names; that of clients is a user, or with a `:` in it a channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import Factory, define

from broker.cli import channels, clients
from broker.cli.keyboard import ENTER, ESCAPE, RUBOUT
from broker.cli.source import CHANNELS_PATH, CLIENTS_PATH

CHANNELS, CLIENTS, NODES = "channels", "clients", "nodes"
SORTS: Mapping[str, tuple[str, ...]] = {CHANNELS: channels.SORTS, CLIENTS: clients.SORTS, NODES: ("id",)}
_KEYS = {"h": CHANNELS, "c": CLIENTS, "n": NODES}
_FILTER_MAX = 400


@define(eq=False)
class View:
    """What is looked at.

    Args:
        sorts: by kind, the order in use.
        filters: by kind; empty for none.
        typed: the filter that is being typed; None while none is.
    """

    kind: str = CHANNELS
    sorts: dict[str, str] = Factory(lambda: {kind: names[0] for kind, names in SORTS.items()})
    filters: dict[str, str] = Factory(lambda: dict.fromkeys(SORTS, ""))
    typed: str | None = None
    is_paused: bool = False
    is_over: bool = False

    def press(self, key: str) -> bool:
        """Take a key. Returns whether the daemon is to be asked anew."""
        if self.typed is not None:
            return self._type(key)
        if key == "q":
            self.is_over = True
        elif key == "p":
            self.is_paused = not self.is_paused
            return not self.is_paused
        elif key in _KEYS:
            self.kind = _KEYS[key]
            return True
        elif key == "s":
            names = SORTS[self.kind]
            self.sorts[self.kind] = names[(names.index(self.sorts[self.kind]) + 1) % len(names)]
            return True
        elif key == "/" and self.kind != NODES:
            self.typed = self.filters[self.kind]
        elif key == ESCAPE and self.filters[self.kind]:
            self.filters[self.kind] = ""
            return True
        return False

    def questions(self, rows: int) -> list[tuple[str, dict[str, str | int | None]]]:
        """Which lists to ask for, each a path and its query; at most `rows` of each."""
        wanted: list[tuple[str, dict[str, str | int | None]]] = []
        if self.kind == CHANNELS:
            prefix = self.filters[CHANNELS] or None
            wanted.append((CHANNELS_PATH, {"sort": self.sorts[CHANNELS], "limit": rows, "prefix": prefix}))
            wanted.append((CLIENTS_PATH, {"sort": "queued", "limit": SLOW_ROWS}))
        elif self.kind == CLIENTS:
            text = self.filters[CLIENTS]
            by = {} if not text else {"channel": text} if ":" in text else {"user": text}
            wanted.append((CLIENTS_PATH, {"sort": self.sorts[CLIENTS], "limit": rows, **by}))
        return wanted

    def _type(self, key: str) -> bool:
        assert self.typed is not None
        if key == ENTER:
            self.filters[self.kind], self.typed = self.typed.strip(), None
            return True
        if key == ESCAPE:
            self.typed = None
        elif key == RUBOUT:
            self.typed = self.typed[:-1]
        elif len(key) == 1 and len(self.typed) < _FILTER_MAX:
            self.typed += key
        return False


SLOW_ROWS = 5


def slow_of(listed: Sequence[Mapping[str, Any]] | None) -> list[Mapping[str, Any]]:
    """Of clients that are sorted by what waits for them, those for whom anything does."""
    return [each for each in listed or () if clients.waiting_bytes(each)]
