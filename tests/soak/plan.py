"""The plan of a soak: what happens when, made from a seed before anything runs. No I/O.

A run is `PARTS` parts. At the end of each everybody is judged and leaves, and the daemon is measured; the first
part warms it up, and what is measured behind it is where the figures begin.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from attrs import frozen

PARTS = 5
FOLLOWERS = ("v1", "v1", "sse", "sse", "base")
VISITORS = ("ws", "sse", "publisher", "http", "crowd", "broken", "silent", "stalled")
FAULTS = ("kill", "kill", "freeze", "disconnect")
# A part needs so long for what follows a fault, and for everybody to leave.
CALM_SECONDS = 2.0


@frozen
class Step:
    """One thing that happens.

    Args:
        at: seconds since the part began.
        what: follow, visit, stall, trickle, cut, away, redis, reload or dump.
        kind: of the client, or of the fault.
        seconds: how long it lasts.
        choice: which client, channel or number: taken modulo how many there are.
    """

    at: float
    what: str
    kind: str = ""
    seconds: float = 0.0
    choice: int = 0


def plan(seed: int, part: int, seconds: float, pace: float = 1.0) -> Sequence[Step]:
    """The steps of a part, in their order.

    Args:
        seconds: as long as the part's clients come and go.
        pace: of the clients; half of it is half as many.
    """
    dice = random.Random(f"{seed}:{part}")
    faults_every = min(60.0, max(4.0, seconds / 2))
    steps: list[Step] = []

    def scatter(what: str, every: float, kinds: Sequence[str] = ("",), *, mean: float = 0.0, until: float) -> None:
        at = dice.expovariate(1 / every)
        while at < until:
            lasts = dice.expovariate(1 / mean) if mean else 0.0
            steps.append(Step(at, what, dice.choice(kinds), min(lasts, 4 * mean), dice.getrandbits(30)))
            at += dice.expovariate(1 / every)

    scatter("follow", 0.5 / pace, FOLLOWERS, mean=min(30.0, seconds), until=seconds)
    scatter("visit", 0.2 / pace, VISITORS, mean=3.0, until=seconds)
    scatter("stall", 2.0 / pace, mean=3.0, until=seconds)
    scatter("trickle", 3.0 / pace, mean=3.0, until=seconds)
    scatter("cut", 0.7 / pace, until=seconds)
    scatter("away", 1.5 / pace, mean=4.0, until=seconds)
    scatter("redis", faults_every, FAULTS, mean=0.5, until=seconds - CALM_SECONDS)
    scatter("reload", faults_every, until=seconds)
    scatter("dump", 2 * faults_every, until=seconds)
    # However the dice fall, each happens.
    steps.append(Step(seconds * 0.3, "redis", FAULTS[part % len(FAULTS)], 0.5))
    steps.append(Step(seconds * 0.5, "reload"))
    steps += [Step(seconds * 0.4, "away", seconds=3.0, choice=number) for number in range(4)]
    return sorted(steps, key=lambda step: step.at)
