"""API keys: for services, which have no user. `bk_<name>_<43 characters of base64url>`, 256 random bits.

Laws: the settings have a key's name and its SHA-256, never the key; so many random bits need no slower hash. A key
is told from a token by its beginning. How long a comparison takes says nothing of the key.

Values; no I/O. Bounds: names of 1 to 64 characters.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping

from attrs import field, frozen

from broker.auth.identity import KEY, Identity
from broker.config.access import Auth
from broker.errors import TokenRefused

PREFIX = "bk_"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_RANDOM_BYTES = 32
_RANDOM_CHARACTERS = 43
_KEY = re.compile(rf"{PREFIX}({_NAME.pattern})_[A-Za-z0-9_-]{{{_RANDOM_CHARACTERS}}}", re.ASCII)
_MAX_CHARACTERS = len(PREFIX) + 64 + 1 + _RANDOM_CHARACTERS


def new_key(name: str) -> str:
    """A key that nobody has yet.

    Raises:
        ValueError: the name has other characters than letters, digits, `_`, `-` and `.`, or too many.
    """
    if not _NAME.fullmatch(name):
        raise ValueError("a key's name has 1 to 64 letters, digits, _ - and .")
    return f"{PREFIX}{name}_{secrets.token_urlsafe(_RANDOM_BYTES)}"


def line_of(key: str) -> str:
    """What the settings have of a key: `NAME:HASH`.

    Raises:
        ValueError: it is no API key.
    """
    found = _KEY.fullmatch(key)
    if found is None:
        raise ValueError("that is no API key, as `broker key create` prints it")
    return f"{found[1]}:{_digest(key)}"


@frozen
class ApiKeys:
    """The keys of the settings. One name may have several: the old and the new while a key is changed."""

    _section: Auth
    _digests: Mapping[str, tuple[tuple[bytes, bool], ...]] = field(init=False, repr=False)

    @_digests.default
    def _read(self) -> Mapping[str, tuple[tuple[bytes, bool], ...]]:
        found: dict[str, tuple[tuple[bytes, bool], ...]] = {}
        for lines, is_admin in ((self._section.admin_keys, True), (self._section.publish_keys, False)):
            for line in lines:
                name, _, digest = line.partition(":")
                found[name] = (*found.get(name, ()), (digest.lower().encode(), is_admin))
        return found

    def __bool__(self) -> bool:
        return bool(self._digests)

    def identify(self, text: str) -> Identity | None:
        """Who has a key; None for what does not look like one.

        Raises:
            TokenRefused: unknown_api_key.
        """
        if not text.startswith(PREFIX):
            return None
        found = _KEY.fullmatch(text) if len(text) <= _MAX_CHARACTERS else None
        if found is not None:
            digest = _digest(text).encode()
            for known, is_admin in self._digests.get(found[1], ()):
                if hmac.compare_digest(known, digest):
                    return Identity(KEY, name=found[1], is_admin=is_admin)
        raise TokenRefused("unknown_api_key", "the API key is not one of those in the settings")


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
