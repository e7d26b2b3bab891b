"""A slice of the stress run, and tests of the runner: `python -m tests.stress` is the whole."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import trio

from tests.actors.peers import SsePeer, pump
from tests.stress.house import aside
from tests.stress.room import Room
from tests.stress.runner import Stress
from tests.stress.scenario import Scenario
from tests.stress.scenarios import SLICE, all_scenarios, slice_of

SECONDS_MAX = 120.0
"""It takes some seconds on a machine that has time."""


def test_a_slice_leaves_nothing() -> None:
    """In a process of its own, with the seed that it prints."""
    command = [sys.executable, "-m", "tests.stress", "--daemons", "2", "--slice"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS_MAX)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^ok ", done.stdout, re.MULTILINE)) == SLICE + 1
    assert re.search(r"^clients +0 +0$", done.stdout, re.MULTILINE)
    assert re.search(r"^tasks +([1-9]\d*) +\1$", done.stdout, re.MULTILINE)


def test_what_fails_and_what_stays_is_told(tmp_path: Path) -> None:
    @Scenario.among_others
    async def one_that_fails(room: Room) -> None:
        await room.say(room.channel(), 1)
        raise AssertionError("not as it should be")

    @Scenario.among_others
    async def one_that_loses_an_event(room: Room) -> None:
        channel = room.channel()
        await room.mixed_guests(3, channel)
        room.event(channel)
        await room.all_have_all(0.3)

    @Scenario.among_others
    async def one_that_ends_well(room: Room) -> None:
        await trio.lowlevel.checkpoint()

    @Scenario.alone
    async def one_that_does_not_leave(room: Room) -> None:
        peer = SsePeer(room.port(), room.channel())
        await aside(pump, [peer], lambda: peer.is_open)
        # The runner closes every peer; not this.
        left.append(peer.socket.dup())

    left = []
    lines: list[str] = []
    scenarios = (one_that_fails, one_that_loses_an_event, one_that_ends_well, one_that_does_not_leave)
    stress = Stress(tmp_path, 1, scenarios, 1, lines.append, settled_seconds=0.5)
    faults = stress.run()
    left.pop().close()
    verdicts = {line.partition(" s  ")[2].partition("\n")[0]: line[:5].strip() for line in lines}
    assert verdicts == {
        "one that fails": "WRONG",
        "one that loses an event": "WRONG",
        "one that ends well": "ok",
        "one that does not leave": "ok",
    }
    told = "\n".join(lines + faults)
    assert "one that fails: AssertionError: not as it should be (test_stress.py:" in told
    assert "lost and not told: stamped 1 to 1" in told
    wanted = (
        "clients: 0 before, 1 after",
        "connections: 0 before, 1",
        "subscriptions in Redis:",
        "object Stream:",
        "task",
    )
    for what in wanted:
        assert any(fault.startswith(f"left over: {what}") for fault in faults), (what, faults)


def test_what_a_daemon_logs_as_an_error_is_told(tmp_path: Path) -> None:
    @Scenario.alone
    async def one_with_wrong_settings(room: Room) -> None:
        settings = room.house.settings
        settings.write_text(settings.read_text().replace("replay = 3", "replay = 3000"))
        room.daemon().process.send_signal(1)
        await room.until(lambda: '"level": "error"' in room.daemon().log())

    faults = Stress(tmp_path, 1, [one_with_wrong_settings], 1, [].append).run()
    assert len(faults) == 1 and faults[0].startswith("in the log: "), faults


def test_a_seed_chooses_the_same_slice() -> None:
    scenarios = all_scenarios()
    names = [each.name for each in scenarios]
    assert len(names) == len(set(names)) > 50
    assert slice_of(scenarios, random.Random(7)) == slice_of(scenarios, random.Random(7))
    assert slice_of(scenarios, random.Random(7)) != slice_of(scenarios, random.Random(8))
