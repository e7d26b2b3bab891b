"""Commands to Redis: what a script is, and who carries commands there.

Source: Redis commands EVALSHA, EVAL; an error reply to one command is a value among the replies, as
the other commands of the same write may have succeeded.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Any, Protocol

from attrs import field, frozen

Argument = bytes | str | int


@frozen
class Script:
    """A Lua script that Redis runs as one step."""

    text: str
    digest: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        # Redis names scripts by SHA-1; nothing secret hangs on it.
        object.__setattr__(self, "digest", sha1(self.text.encode(), usedforsecurity=False).hexdigest())


class Commands(Protocol):
    """A connection to Redis for commands."""

    async def execute(self, *commands: tuple[Argument, ...]) -> list[Any]:
        """Run commands in one write. Returns a reply for each, in order; an error reply is an exception object.

        Raises:
            UpstreamError: Redis is away or did not answer; whether it ran them is not known.
        """

    async def run(self, script: Script, keys: tuple[str, ...], *arguments: Argument) -> Any:
        """Run one script and return its reply.

        Raises:
            UpstreamError: as `execute`, and where the script failed.
        """

    def post(self, script: Script, keys: tuple[str, ...], *arguments: Argument) -> None:
        """Run a script some time soon; nobody waits for it, and it may be lost with the connection. Synchronous."""
