"""What the clients of a row wait for while they read: a time, everything, or the next events after a fault."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.actors.followers import Follower, follow
from tests.promise.oracle import STAMPED, Event


def let_pass(followers: Sequence[Follower], seconds: float) -> None:
    until = time.monotonic() + seconds
    follow(followers, lambda: time.monotonic() >= until)


def deliver_again(followers: Sequence[Follower]) -> float:
    """Until every client has, on every channel, something that was published after now. Returns the seconds."""
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

    return follow(followers, is_over)


def settle(followers: Sequence[Follower], seconds: float) -> None:
    """Read until nobody waits for anything more, or the time is over: then `verdicts.judge` says who does."""

    def is_settled() -> bool:
        return all(each.is_live and len(each.faults(is_end=True)) == len(each.faults()) for each in followers)

    try:
        follow(followers, is_settled, seconds)
    except AssertionError:
        pass
