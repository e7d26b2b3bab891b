"""A credential: where a subscriber's token comes from, and whether another one may be tried after a refusal.

Laws: a callable is asked anew before each connection. What was refused is not sent again: only another token from
a callable is tried, once, until a connection is live. That a token is over is no refusal. No message holds a token.

Bounds: a token has at most `_TOKEN_CHARACTERS`; it comes within the seconds that `show` is given.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio
from attrs import define, field

from broker.errors import SubscriberError

Token: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A token, or what gives one, plain or asynchronous; a plain one must not block."""

_TOKEN_CHARACTERS = 8000
_TOKEN = re.compile(rf"[\x21-\x7e]{{1,{_TOKEN_CHARACTERS}}}")


class NoToken(Exception):
    """The callable gave none this time. It never leaves the subscriber."""


@define(eq=False)
class Credential:
    """One subscription's.

    Raises:
        SubscriberError: a text that can be no token.
    """

    _source: Token | None = field(repr=False)
    _shown: str | None = field(init=False, default=None, repr=False)
    # The words of a refusal, until a connection is live again.
    _refusal: str = field(init=False, default="")

    def __attrs_post_init__(self) -> None:
        if isinstance(self._source, str):
            _checked(self._source)
        elif self._source is not None and not callable(self._source):
            raise SubscriberError(f"token must be a text or a callable, not {type(self._source).__name__}")

    async def show(self, seconds: float) -> str | None:
        """The token for the next connection; None for none.

        Raises:
            NoToken: the callable raised, or took too long; its exception is the cause.
            SubscriberError: what it gave is no token, or is the one that was just refused.
        """
        source = self._source
        if source is None or isinstance(source, str):
            return source
        try:
            with trio.fail_after(seconds):
                token = source()
                if inspect.isawaitable(token):
                    token = await token
        except trio.TooSlowError as error:
            raise NoToken(f"no token came within {seconds:g} s") from error
        except Exception as error:
            # Not its text, which may hold what it was asked with.
            raise NoToken(f"the callable for the token raised {type(error).__name__}") from error
        token = _checked(token)
        if self._refusal and token == self._shown:
            raise SubscriberError(f"{self._refusal}; the callable for the token gave the same one again")
        self._shown = token
        return token

    def accept(self) -> None:
        """A connection with the token is live."""
        self._refusal = ""

    @property
    def is_renewable(self) -> bool:
        """Whether there may be another when this one is over."""
        return callable(self._source)

    def refuse(self, words: str) -> bool:
        """The broker refuses the token. Returns whether another may be tried."""
        if self._refusal or not self.is_renewable:
            return False
        self._refusal = words
        return True


def _checked(token: object) -> str:
    """Raises: SubscriberError, for what would not be one header."""
    if isinstance(token, str) and _TOKEN.fullmatch(token):
        return token
    raise SubscriberError(f"not a token: it must be 1 to {_TOKEN_CHARACTERS} visible ASCII characters, without spaces")
