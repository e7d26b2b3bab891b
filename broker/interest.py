"""Which channels the broker wants from Redis, and how far Redis has followed.

Laws: a channel is live only when everything that was sent about it has been confirmed and the last
of it was SUBSCRIBE, so what is published after "live" is not missed. A channel is let go a while
after the last listener has gone, so a client that comes and goes causes no traffic. Redis answers
in the order it was asked: one confirmation for each channel of a command, or one error for all.

Synchronous; no I/O, no clock. Bounds: one entry for each channel that somebody wants or wanted
within the linger. Source: Redis SUBSCRIBE, UNSUBSCRIBE (RESP2 push replies).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from attrs import Factory, define, frozen

CHANNELS_PER_COMMAND = 500


@frozen
class Command:
    """One SUBSCRIBE or UNSUBSCRIBE of up to `CHANNELS_PER_COMMAND` channels."""

    verb: bytes
    names: tuple[bytes, ...]


@define(eq=False)
class _Entry:
    wanted: bool = True
    asked: bool = False  # the last command sent was SUBSCRIBE
    outstanding: int = 0  # commands sent and not yet confirmed
    released_at: float = 0.0

    @property
    def live(self) -> bool:
        return self.asked and not self.outstanding


@define(eq=False)
class Interest:
    """The table of wanted channels. `linger_seconds` is how long an unwanted one is kept."""

    linger_seconds: float
    _entries: dict[bytes, _Entry] = Factory(dict)
    _to_ask: dict[bytes, None] = Factory(dict)
    _to_ask_alone: dict[bytes, None] = Factory(dict)  # a command of its own for each
    _released: dict[bytes, None] = Factory(dict)  # in the order of their release
    _sent: deque[dict[bytes, None]] = Factory(deque)  # the unconfirmed channels of each command sent
    _to_restore: set[bytes] = Factory(set)  # asked for by a new connection's first commands, and not yet live

    def want(self, name: bytes) -> bool:
        """Note that somebody listens. Returns whether the channel is live already."""
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry()
            self._to_ask[name] = None
        elif not entry.wanted:
            entry.wanted = True
            self._released.pop(name, None)
            if not entry.asked:
                self._to_ask[name] = None
        return entry.live

    def release(self, name: bytes, now: float) -> None:
        """Note that nobody listens any more."""
        entry = self._entries.get(name)
        if entry is None or not entry.wanted:
            return
        entry.wanted = False
        entry.released_at = now
        self._to_restore.discard(name)
        self._to_ask.pop(name, None)
        self._to_ask_alone.pop(name, None)
        if entry.asked:
            self._released[name] = None
        else:
            self._forget_if_done(name, entry)

    def take_commands(self, now: float) -> list[Command]:
        """What to send now; it counts as sent. Empty when there is nothing to say."""
        commands = self._commands(b"SUBSCRIBE", self._to_ask, CHANNELS_PER_COMMAND)
        commands += self._commands(b"SUBSCRIBE", self._to_ask_alone, 1)
        self._to_ask = {}
        self._to_ask_alone = {}
        return commands + self._commands(b"UNSUBSCRIBE", self._take_due(now), CHANNELS_PER_COMMAND)

    def next_release(self) -> float | None:
        """When the next channel is to be let go; None for never."""
        for name in self._released:
            return self._entries[name].released_at + self.linger_seconds
        return None

    def confirmed(self, name: bytes) -> bool:
        """Redis confirmed the oldest unconfirmed command for `name`. Returns whether it is live now."""
        # Whoever answers out of order is believed about the name; about a name that was not asked for, not.
        command = next((command for command in self._sent if name in command), None)
        if command is None:
            return False
        del command[name]
        while self._sent and not self._sent[0]:
            self._sent.popleft()
        entry = self._entries[name]
        entry.outstanding -= 1
        self._forget_if_done(name, entry)
        if entry.live:
            self._to_restore.discard(name)
        return entry.live

    def refused(self) -> list[bytes]:
        """Redis answered the oldest unconfirmed command with an error.

        Returns:
            The channel it refused; empty where the command had several (those are asked again one
            by one, as Redis does not say which of them it meant) and where a later command about
            the channel is under way, whose answer will tell.
        """
        if not self._sent:
            return []
        names = list(self._sent.popleft())
        refused = []
        for name in names:
            entry = self._entries[name]
            entry.outstanding -= 1
            if entry.outstanding:
                continue
            entry.asked = False
            self._released.pop(name, None)
            if not entry.wanted:
                self._forget_if_done(name, entry)
            elif name in self._to_ask:
                continue
            elif len(names) > 1:
                self._to_ask_alone[name] = None
            else:
                self._to_restore.discard(name)
                del self._entries[name]
                refused.append(name)
        return refused

    def connected(self) -> None:
        """A new connection is there: what is wanted by now is what it has to restore."""
        self._to_restore = set(self._to_ask)

    def lost(self) -> None:
        """The connection is gone, and with it everything that Redis had confirmed."""
        self._sent.clear()
        self._released.clear()
        self._to_ask_alone.clear()
        for name, entry in list(self._entries.items()):
            if entry.wanted:
                entry.asked = False
                entry.outstanding = 0
                self._to_ask[name] = None
            else:
                del self._entries[name]

    @property
    def is_waiting(self) -> bool:
        """Whether a command is unconfirmed."""
        return bool(self._sent)

    @property
    def is_restored(self) -> bool:
        """Whether Redis has answered about everything that was wanted when it connected.

        Newer channels do not count: where some are always under way, an outage would never end.
        """
        return not self._to_restore

    def live_count(self, besides: bytes | None = None) -> int:
        """How many channels Redis delivers now, but for those that begin with `besides`."""
        return sum(entry.live for name, entry in self._entries.items() if not besides or not name.startswith(besides))

    def __len__(self) -> int:
        return len(self._entries)

    def _commands(self, verb: bytes, names: Iterable[bytes], most: int) -> list[Command]:
        listed = list(names)
        commands = []
        for start in range(0, len(listed), most):
            part = listed[start : start + most]
            for name in part:
                entry = self._entries[name]
                entry.asked = verb == b"SUBSCRIBE"
                entry.outstanding += 1
            self._sent.append(dict.fromkeys(part))
            commands.append(Command(verb, tuple(part)))
        return commands

    def _take_due(self, now: float) -> list[bytes]:
        due = []
        for name in self._released:
            if self._entries[name].released_at + self.linger_seconds > now:
                break
            due.append(name)
        for name in due:
            del self._released[name]
        return due

    def _forget_if_done(self, name: bytes, entry: _Entry) -> None:
        if not entry.wanted and not entry.asked and not entry.outstanding:
            del self._entries[name]
