"""A scenario: a short story of clients, services and faults that checks its own result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from tests.stress.room import Room

Play = Callable[["Room"], Awaitable[None]]


@frozen
class Scenario:
    """One of them.

    Args:
        is_alone: it hurts everybody, so it is played when nobody else is there.
    """

    name: str
    play: Play
    is_alone: bool = False

    @classmethod
    def among_others(cls, play: Play) -> Scenario:
        """One that is played beside others, on channels of its own."""
        return cls(play.__name__.replace("_", " "), play)

    @classmethod
    def alone(cls, play: Play) -> Scenario:
        return cls(play.__name__.replace("_", " "), play, is_alone=True)
