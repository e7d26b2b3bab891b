"""What the clients of a row wait for while they read: a time, everything, or the next events after a fault.

And what a row waits for itself. What does not come is a figure that is not reached, and not the end of the play.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from tests.actors.followers import Follower, follow
from tests.actors.peers import BOUND_SECONDS
from tests.promise.oracle import STAMPED, Event


def let_pass(followers: Sequence[Follower], seconds: float) -> None:
    until = time.monotonic() + seconds
    follow(followers, lambda: time.monotonic() >= until)


def deliver_again(followers: Sequence[Follower]) -> float:
    """Until every client has, on every channel, something that was published after now.

    Returns the seconds; infinity where that did not come.
    """
    waiting = [
        (record, record.truth.published[STAMPED]) for follower in followers for record in follower.records.values()
    ]

    def is_over() -> bool:
        while waiting:
            record, mark = waiting[-1]
            last = record.entries[-1]
            if not (isinstance(last, Event) and last.heard[1] > mark):
                return False
            waiting.pop()
        return True

    try:
        return follow(followers, is_over)
    except AssertionError:
        return math.inf


def seconds_until(condition: Callable[[], object], most: float = BOUND_SECONDS) -> float:
    """Ask until it holds. Returns the seconds that it took; infinity where it did not within the most."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > most:
            return math.inf
        time.sleep(0.01)
    return time.monotonic() - began


def settle(followers: Sequence[Follower], seconds: float) -> None:
    """Read until nobody waits for anything more, or the time is over: then `verdicts.judge` says who does."""

    def is_settled() -> bool:
        return all(each.is_live and len(each.faults(is_end=True)) == len(each.faults()) for each in followers)

    try:
        follow(followers, is_settled, seconds)
    except AssertionError:
        pass
