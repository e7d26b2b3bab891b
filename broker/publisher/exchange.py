"""What an exchange with Redis came to: an answer for each event, in order, up to where it broke off."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen

from broker.publisher.destination import Destination
from broker.publisher.statistics import CANCELLED, CLOSED


@frozen
class Refusal:
    """What Redis said instead of a number.

    Args:
        is_unknown_script: it does not know the digest (any more); nothing ran.
        is_denial: this user may not do that here; nothing ran.
    """

    text: str
    is_unknown_script: bool = False
    is_denial: bool = False


@frozen
class Breakdown:
    """Why there are no answers, or no more: a reason of `statistics`, and one line for people."""

    reason: str
    why: str


@frozen
class Outcome:
    """The answers to the first events of a batch: how many received each, or a refusal.

    `breakdown` says what became of the others; it is None when all were answered.

    Args:
        unkept, why_unkept: how many were taken, and ought to be in the history, and are not.
        why_plain: why Redis refused to run the script, where it took plain PUBLISHes after that; else empty.
    """

    answers: Sequence[int | Refusal] = field(factory=tuple)
    breakdown: Breakdown | None = None
    unkept: int = 0
    why_unkept: str = ""
    why_plain: str = ""


CLOSED_OUTCOME = Outcome((), Breakdown(CLOSED, "the publisher is closed"))
CANCELLATION = Breakdown(CANCELLED, "the caller was cancelled before Redis answered")


def busy(destination: Destination) -> str:
    """What a call is told that waited in vain for its turn."""
    return (
        f"no connection became free within {destination.timeout_seconds} s; "
        f"at most {destination.connections_max} are open at once (connections_max)"
    )
