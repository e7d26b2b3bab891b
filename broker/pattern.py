"""A channel pattern, as rules and tokens have it: `job_progress:*`, `alerts:{sub}`, `*`.

Laws: `*` stands for any characters within one part of a name; a last part that is `*` alone stands for all
the parts that are left, one or more, so `*` is every channel. `{sub}` stands for the user of the token,
letter by letter: a user whose id holds a `*` or a `:` gains nothing by it, and nobody's `{sub}` is nothing.

Synchronous; no I/O. Bounds: 400 characters.
"""

from __future__ import annotations

import re
from functools import lru_cache

from attrs import frozen

from broker.channel import Channel
from broker.errors import ChannelError

_USER = "{sub}"
_MAX_CHARACTERS = 400
_PARTS_MAX = 3
_PIECE = re.compile(r"(\*+|\{sub\})")


@frozen
class Pattern:
    """One pattern. Shape: each part is a list of literals, `*` and `{sub}`, in their order."""

    text: str
    _parts: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read a pattern.

        Raises:
            ValueError: it could match no channel; the message says why.
        """
        return _parsed(text)

    def matches(self, channel: Channel, user_id: str | None) -> bool:
        """Whether a channel is meant, for a user; None for nobody."""
        names = channel.name.split(":")
        parts = self._parts
        if parts[-1] == ("*",) and len(names) > len(parts):
            names = names[: len(parts)]
        return len(names) == len(parts) and all(
            _part_matches(part, name, user_id) for part, name in zip(parts, names, strict=True)
        )


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Pattern:
    if not isinstance(text, str) or not text or len(text) > _MAX_CHARACTERS:
        raise ValueError(f"a channel pattern has 1 to {_MAX_CHARACTERS} characters, such as job_progress:*")
    parts = text.split(":")
    if len(parts) > _PARTS_MAX:
        raise ValueError(f"{_shown(text)} has {len(parts)} parts; a channel has at most {_PARTS_MAX}")
    found = []
    for part in parts:
        pieces = tuple("*" if piece.startswith("*") else piece for piece in _PIECE.split(part) if piece)
        for piece in pieces:
            if piece not in ("*", _USER):
                _check_literal(piece, text)
        if not pieces:
            raise ValueError(f"{_shown(text)} has an empty part; write * for any")
        found.append(pieces)
    return Pattern(text, tuple(found))


def _check_literal(piece: str, text: str) -> None:
    try:
        Channel.from_name(piece)
    except ChannelError:
        raise ValueError(
            f"{_shown(text)} has a character that no channel has; use letters, digits and _ - . @ = + ~, "
            "and * for any of them, {sub} for the user"
        ) from None


def _part_matches(pieces: tuple[str, ...], name: str, user_id: str | None) -> bool:
    if _USER in pieces and user_id is None:
        return False
    written = "".join(
        ".*" if piece == "*" else re.escape(user_id or "" if piece == _USER else piece) for piece in pieces
    )
    return re.fullmatch(written, name, re.DOTALL) is not None


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:80] + "...")
