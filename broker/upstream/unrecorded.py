"""What is published plainly where nobody can record it: it is handed on as it comes, without history.

Whether that is so is known from our own recorder, which Redis refused; and from what arrives recorded all the
same, by another daemon that Redis lets. What ours recorded last may still be on its way then.
"""

from __future__ import annotations

import trio
from attrs import define

from broker.hub import Hub
from broker.upstream.link import Link

_OWN_SECONDS = 1.0


@define(eq=False)
class Unrecorded:
    """The switch, for a hub and its link."""

    _hub: Hub
    _link: Link
    _since: float = float("inf")

    def begin(self, why: str) -> None:
        """Our recorder was refused."""
        self._since = min(self._since, trio.current_time())
        self._set(True)

    def end(self) -> None:
        """Our recorder records, or sees that another does."""
        self._since = float("inf")
        self._set(False)

    def heard_recorded(self) -> None:
        """Somebody records all the same: from here on nothing is handed on twice."""
        if trio.current_time() > self._since + _OWN_SECONDS:
            self.end()

    def _set(self, is_plain: bool) -> None:
        self._hub.is_plain = is_plain
        self._link.take_plain(is_plain)
