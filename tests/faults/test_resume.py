"""Row 5: hypothesis tells stories of publishers, clients and faults, and whatever happens, resuming is exact.

The stories are in `tests/promise/stories.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.promise.stories import FLAGS, Scene, Story

PERSISTENCE = ("--save", "", "--appendonly", "yes", "--appendfsync", "everysec")


def play(stage: Stage) -> None:
    server = stage.redis(*PERSISTENCE)
    daemons = tuple(stage.daemon(server.url, *FLAGS) for _ in range(2))
    scene = Story.scene = Scene(server, daemons, stage.dice.getrandbits(30), stage.folder)
    steps, steps_a_story, stories = stage.pick((10_000, 80, 10), (100, 30, 5))
    while scene.steps < steps and not scene.faults:
        hypothesis.seed(stage.dice.getrandbits(30))(Story)
        run_state_machine_as_test(
            Story,
            settings=settings(
                max_examples=stories,
                stateful_step_count=steps_a_story,
                deadline=None,
                database=None,
                # A story takes its time, and is told in full: to shrink it would take minutes.
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    counts, verdict = scene.counts, scene.verdict
    stage.faults += scene.faults
    stage.at_least("steps", scene.steps, steps)
    stage.at_least("connections dropped", counts["cut"] + counts["miss"], stage.pick(500, 0))
    stage.at_least("histories trimmed or deleted", counts["trim"] + counts["delete"], stage.pick(500, 0))
    stage.at_least("restarts of a daemon", counts["restart_daemon"], stage.pick(20, 0))
    stage.at_least("restarts of Redis", counts["restart_redis"], stage.pick(20, 0))
    stage.at_least("events delivered", verdict.heard, steps)
    stage.at_least("resumed without a gap", scene.resumed, stage.pick(500, 1))
    stage.at_least("gaps told", sum(scene.gaps.values()), stage.pick(500, 0))
    stage.exactly("gaps that nothing justifies", scene.unjustified, 0)
    stage.exactly("events lost", verdict.lost, 0)
    stage.exactly("doubled", verdict.doubled, 0)
    stage.exactly("out of order", verdict.out_of_order, 0)
    stage.exactly("gaps not told", verdict.not_told, 0)


ROW = Row(
    5,
    "Resuming is exact, over WebSocket and SSE",
    "hypothesis state machine: publish, drop, resume, trim, restart of a daemon and of Redis, over both transports",
    "10 000 steps, no gap, no double, order kept",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
