"""An audience: followers that read in a thread of their own, while the test does something else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread

from tests.actors.followers import (
    Follower,
    SseFollower,
    Truths,
    V1Follower,
    WebSocketFollower,
    follow,
    open_followers,
)

_SECONDS_MAX = 600.0


def audience(truths: Truths, port: int, *, resumable: tuple[str, ...]) -> list[Follower]:
    """Live followers of every kind: two of each channel, one of all, and one of those that are `resumable`."""
    kinds: Sequence[type[Follower]] = (WebSocketFollower, SseFollower)
    followers = [kind((channel,), truths, port) for channel in truths for kind in kinds]
    followers += [V1Follower(tuple(truths), truths, port), SseFollower(resumable, truths, port)]
    open_followers(followers)
    return followers


@contextmanager
def listening(followers: Sequence[Follower]) -> Iterator[None]:
    """They read until the end of the `with`; what went wrong while they did is raised then."""
    over = Event()
    failures: list[Exception] = []

    def read() -> None:
        try:
            follow(followers, over.is_set, _SECONDS_MAX)
        except Exception as error:
            failures.append(error)

    reader = Thread(target=read, daemon=True)
    reader.start()
    try:
        yield
    finally:
        over.set()
        reader.join()
    if failures:
        raise failures[0]


def catch_up(followers: Sequence[Follower], seconds: float = 10.0) -> list[str]:
    """Read until all have what was published, or for so long. Returns what was not as promised."""
    try:
        follow(followers, lambda: not any(each.faults(is_end=True) for each in followers), seconds)
    except AssertionError:
        pass  # the faults say it better
    return [fault for each in followers for fault in each.faults(is_end=True)]
