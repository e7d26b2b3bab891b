"""What the oracle says of all clients of a row, as figures: lost, doubled, out of order, and not told."""

from __future__ import annotations

import re
from collections.abc import Sequence

from attrs import define

from tests.actors.followers import Follower
from tests.faults.stage import Stage
from tests.promise.oracle import Begun, Event, Record

_LOST = re.compile(r"lost(?: and not told)?: \w+ (\d+) to (\d+)$")


@define
class Verdict:
    """Counts over all clients and channels."""

    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    not_told: int = 0
    heard: int = 0

    def hear(self, record: Record) -> None:
        """Count what is in one record."""
        for fault in record.faults_at_end():
            if hole := _LOST.search(fault):
                self.lost += int(hole[2]) - int(hole[1]) + 1
            elif "not told" in fault:
                self.not_told += 1
        had: set[tuple[str, int]] = set()
        last: dict[str, int] = {}
        for entry in record.entries:
            if isinstance(entry, Begun) and entry.since is None:
                had, last = set(), {}
            elif isinstance(entry, Event):
                voice, number = entry.heard
                self.heard += 1
                self.doubled += entry.heard in had
                self.out_of_order += entry.heard not in had and number < last.get(voice, 0)
                had.add(entry.heard)
                last[voice] = number


def judge(stage: Stage, followers: Sequence[Follower]) -> Verdict:
    """Tell the stage what the oracle found in the records of clients that have to have everything by now."""
    verdict = Verdict()
    for follower in followers:
        for record in follower.records.values():
            verdict.hear(record)
        stage.faults += follower.faults(is_end=True)
        if not follower.is_live:
            stage.faults.append(f"{follower} is not live")
    stage.exactly("events lost", verdict.lost, 0)
    stage.exactly("doubled", verdict.doubled, 0)
    stage.exactly("out of order", verdict.out_of_order, 0)
    stage.exactly("gaps not told", verdict.not_told, 0)
    return verdict
