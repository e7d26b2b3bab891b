"""A channel: a name of one to three parts, `type[:id][:userId]`.

Laws: a part has 1 to 128 characters of letters, digits and `_ - . @ = + ~`, ASCII only, so that a
name can stand in a URL, a log line, an SSE field and a Redis key without quoting. The name in Redis
is the same behind a prefix from the settings.

Source: the wire contract, "Channels"; `docs/protocol.md`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from attrs import frozen

from broker.errors import ChannelError

_PART = re.compile(r"[A-Za-z0-9_\-.@=+~]{1,128}", re.ASCII)
_SHOWN_CHARACTERS = 80


@frozen
class Channel:
    """One channel. Equal names are equal channels, however a client wrote them."""

    type: str
    id: str | None = None
    user_id: str | None = None

    @property
    def name(self) -> str:
        return ":".join(self.parts)

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(part for part in (self.type, self.id, self.user_id) if part is not None)

    @classmethod
    def from_name(cls, name: str) -> Channel:
        """Read `type`, `type:id` or `type:id:userId`.

        Raises:
            ChannelError: more than three parts, or a part that the grammar refuses.
        """
        parts = name.split(":")
        if len(parts) > 3:
            raise ChannelError(f"channel {_shown(name)} has {len(parts)} parts; write type, type:id or type:id:userId")
        for part in parts:
            _check_part(part, name)
        return cls(*parts)

    @classmethod
    def from_wire(cls, value: object) -> Channel:
        """Read what a client sent: a name, or `{"type", "id"?, "userId"?}`.

        Raises:
            ChannelError: neither of these, or a part that the grammar refuses.
        """
        if isinstance(value, str):
            return cls.from_name(value)
        if not isinstance(value, Mapping):
            raise ChannelError('channel must be a name or an object {"type", "id", "userId"}')
        parts = {key: value.get(key) for key in ("type", "id", "userId")}
        if parts["type"] is None:
            raise ChannelError("channel has no type")
        for key, part in parts.items():
            if part is None:
                continue
            if not isinstance(part, str):
                raise ChannelError(f"channel.{key} must be a string, not {_described(part)}")
            _check_part(part, part)
        return cls(parts["type"], parts["id"], parts["userId"])


def _check_part(part: str, name: str) -> None:
    if _PART.fullmatch(part):
        return
    if not part:
        raise ChannelError(f"channel {_shown(name)} has an empty part")
    if len(part) > 128:
        raise ChannelError(f"channel {_shown(name)} has a part of {len(part)} characters; at most 128")
    raise ChannelError(
        f"channel {_shown(name)} has a character that is not allowed; use letters, digits and _ - . @ = + ~"
    )


def _described(part: object) -> str:
    # Never the repr of a list or an object: one can be nested deep enough to be decoded, and too deep to be shown.
    return "a list or an object" if isinstance(part, (list, Mapping)) else _shown(repr(part))


def _shown(text: str) -> str:
    """`text` fit for a message: quoted, escaped, cut."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
    return ascii(cut)
