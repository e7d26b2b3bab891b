"""A channel pattern, as rules and tokens have it: `job_progress:*`, `alerts:{sub}`, `*`.

Laws: `*` stands for any characters within one part of a name; a last part that is `*` alone stands for all
the parts that are left, one or more, so `*` is every channel. `{sub}` stands for the user of the token,
letter by letter: a user whose id holds a `*` or a `:` gains nothing by it, and nobody's `{sub}` is nothing.

Matching is greedy from the left, which finds a match wherever there is one, and never goes back: so no pattern
is slow. Synchronous; no I/O. Bounds: 400 characters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from attrs import frozen

from broker.channel import Channel
from broker.errors import ChannelError

_USER = "{sub}"
_MAX_CHARACTERS = 400
_PARTS_MAX = 3
_STARS = re.compile(r"\*+")
_ANY = ("", "")


@frozen
class Pattern:
    """One pattern.

    Shape: of each part, the texts between its stars, so `a*` is `a` and an empty one; `{sub}` stands in them as it is.
    """

    text: str
    _parts: tuple[tuple[str, ...], ...]
    _names_user: bool

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read a pattern.

        Raises:
            ValueError: it could match no channel; the message goes on from the pattern: `has an empty part; ...`.
        """
        if not isinstance(text, str) or not 0 < len(text) <= _MAX_CHARACTERS:
            raise ValueError(f"is no channel pattern of 1 to {_MAX_CHARACTERS} characters, such as job_progress:*")
        return _parsed(text)

    def matches(self, channel: Channel, user_id: str | None) -> bool:
        """Whether a channel is meant, for a user; None for nobody."""
        return self.matches_parts(channel.parts, user_id)

    def matches_parts(self, names: Sequence[str], user_id: str | None) -> bool:
        """As `matches`, of the parts of a channel's name."""
        if self._names_user and not user_id:
            return False
        parts = self._parts
        if len(names) != len(parts) and (len(names) < len(parts) or parts[-1] != _ANY):
            return False
        for part, name in zip(parts, names, strict=False):
            if part is not _ANY and not _part_matches(part, name, user_id or ""):
                return False
        return True


# Only what can be parsed is kept.
@lru_cache(maxsize=4096)
def _parsed(text: str) -> Pattern:
    parts = text.split(":")
    if len(parts) > _PARTS_MAX:
        raise ValueError(f"has {len(parts)} parts; a channel has at most {_PARTS_MAX}")
    found = []
    for part in parts:
        if not part:
            raise ValueError("has an empty part; write * for any")
        for piece in _STARS.sub(_USER, part).split(_USER):
            if piece:
                _check_literal(piece)
        texts = tuple(_STARS.split(part))
        found.append(_ANY if texts == _ANY else texts)
    return Pattern(text, tuple(found), _USER in text)


def _check_literal(piece: str) -> None:
    try:
        Channel.from_name(piece)
    except ChannelError:
        raise ValueError(
            "has a part that no channel has; use up to 128 letters, digits and _ - . @ = + ~, "
            "and * for any of them, {sub} for the user"
        ) from None


def _part_matches(texts: tuple[str, ...], name: str, user_id: str) -> bool:
    # A literal has no braces, so nothing but the user is put in, and what is put in is not looked at again.
    first = texts[0].replace(_USER, user_id)
    if len(texts) == 1:
        return name == first
    last = texts[-1].replace(_USER, user_id)
    at, end = len(first), len(name) - len(last)
    if at > end or not name.startswith(first) or not name.endswith(last):
        return False
    for text in texts[1:-1]:
        text = text.replace(_USER, user_id)
        at = name.find(text, at, end)
        if at < 0:
            return False
        at += len(text)
    return True
