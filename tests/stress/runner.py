"""The runner: plays scenarios in one house, first those that bear others in groups, then each of the others alone.

At the end everybody has left, and the daemons are looked at: what is not as it was before the first scenario is told.
"""

from __future__ import annotations

import random
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import trio
from attrs import define, field, frozen

from tests.actors import peers
from tests.stress.evaluator import evaluating
from tests.stress.house import House, open_house
from tests.stress.remains import SETTLED_SECONDS, Remains, leaks, look
from tests.stress.room import Room
from tests.stress.scenario import Scenario

GROUP = 12
"""How many are played at once."""
SCENARIO_SECONDS = 40.0
Tell = Callable[[str], object]


@frozen
class Played:
    """What came of a scenario. `wrong` is empty where all was well."""

    name: str
    seconds: float
    wrong: str

    def __str__(self) -> str:
        return f"{'ok   ' if not self.wrong else 'WRONG'} {self.seconds:5.1f} s  {self.name}{self._why()}"

    def _why(self) -> str:
        return "".join(f"\n        {line}" for line in self.wrong.splitlines())


@define(eq=False)
class Stress:
    """One run.

    Args:
        folder: for logs and data.
        daemons: how many share the Redis.
        tell: is given a line for each scenario, as soon as it is over.
        settled_seconds: how long daemons have, when everybody has left, to be as they were.
    """

    folder: Path
    seed: int
    scenarios: Sequence[Scenario]
    daemons: int = 3
    tell: Tell = print
    settled_seconds: float = SETTLED_SECONDS
    played: list[Played] = field(factory=list)
    faults: list[str] = field(factory=list)
    before: Remains | None = None
    after: Remains | None = None

    def run(self) -> list[str]:
        """Returns what was wrong, a line each; empty for nothing. Blocks."""
        try:
            trio.run(self._run)
        except* Exception as group:
            self.faults += [f"the run itself: {_told(error)}" for error in _leaves(group)]
        wrong = [f"{each.name}: {each.wrong.splitlines()[0]}" for each in self.played if each.wrong]
        return wrong + self.faults

    def figures(self) -> list[str]:
        """What there was with nobody there, before and after."""
        if self.before is None or self.after is None:
            return []
        lines = [f"{'with nobody there':<24}{'before':>8}{'after':>8}"]
        return lines + [f"{name:<24}{was:>8}{self.after.figures[name]:>8}" for name, was in self.before.figures.items()]

    async def _run(self) -> None:
        order = random.Random(self.seed)
        crowd = [each for each in self.scenarios if not each.is_alone]
        loners = [each for each in self.scenarios if each.is_alone]
        order.shuffle(crowd)
        order.shuffle(loners)
        async with open_house(self.folder, self.daemons) as house:
            self.before = await look(house)
            limiter = trio.CapacityLimiter(GROUP)
            async with evaluating(house.redis_server.url), trio.open_nursery() as nursery:
                for each in crowd:
                    nursery.start_soon(self._play_among_others, house, each, limiter)
            for each in loners:
                await self._play(house, each)
                try:
                    await house.settled()
                except AssertionError as error:
                    self.faults.append(f"after {each.name}: {error}")
            peers.close_all()
            self.after = await look(house, self.before, self.settled_seconds)
            self.faults += [f"left over: {leak}" for leak in leaks(self.before, self.after)]
        self.faults += house.complaints()

    async def _play_among_others(self, house: House, scenario: Scenario, limiter: trio.CapacityLimiter) -> None:
        async with limiter:
            await self._play(house, scenario)

    async def _play(self, house: House, scenario: Scenario) -> None:
        began, wrong = time.monotonic(), ""
        key = "".join(letter for letter in scenario.name.title() if letter.isalnum())
        dice = random.Random(f"{self.seed}:{scenario.name}")
        try:
            with trio.fail_after(SCENARIO_SECONDS):
                async with trio.open_nursery() as nursery:
                    room = Room(house, key, dice, nursery)
                    try:
                        await scenario.play(room)
                    finally:
                        room.end()
                        nursery.cancel_scope.cancel()
        except* Exception as group:
            wrong = "\n".join(_told(error) for error in _leaves(group)[:3])
        self.played.append(Played(scenario.name, time.monotonic() - began, wrong))
        self.tell(str(self.played[-1]))


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for each in group.exceptions:
        found += _leaves(each) if isinstance(each, BaseExceptionGroup) else [each]
    return found


def _told(error: BaseException) -> str:
    """What it was, and the last lines of the tests that it went through."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if "/tests/" in each.filename]
    places = " < ".join(f"{Path(each.filename).name}:{each.lineno}" for each in reversed(frames[-4:]))
    return f"{type(error).__name__}: {str(error)[:1500]} ({places})"
