"""The soak: a daemon and a Redis for as long as one likes, everything that happens to them, and what is left of it.

Laws: whatever happens, no follower misses an event without being told, nobody is refused, nothing is logged as an
error, and with nobody there the daemon is as it was at first. What happens is made from the seed.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event

import redis
from attrs import define, field

from tests.actors.daemon_process import DaemonProcess
from tests.actors.followers import Truths
from tests.actors.peers import SsePeer, pump, wait_until
from tests.actors.redis_server import RedisServer
from tests.conftest import errors_of
from tests.promise.oracle import Truth
from tests.soak.crowd import Crowd
from tests.soak.plan import PARTS, Step, plan
from tests.soak.vitals import Vitals, complaints, measure, table
from tests.soak.voices import CHANNELS, PLAIN_CHANNELS, HttpVoice, voices

PROBED = Path(__file__).with_name("probed.py")
SETTLED_SECONDS = 20.0
REST_SECONDS = 2.0
POSITIONS_KEPT = 20_000
# With everysec Redis puts a write off while the sync before takes its time, up to two seconds: what it has answered is
# then lost when it is killed, and nobody who had not yet heard of it can be told.
PERSISTENCE = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
SETTINGS = """\
[limits]
connections_per_user = {number}
[rules]
anonymous_publish = ["plain:*"]
[types.long]
history_length = 5000
history_seconds = 600
[types.short]
history_length = 8
history_seconds = 600
[types.passing]
history_length = 0
[clients]
outbox_max_bytes = 262144
catch_up_bytes = 65536
[channels]
message_max_bytes = 65536
[history]
check_seconds = 1
[redis]
backoff_min_seconds = 0.05
backoff_max_seconds = 0.5
ping_seconds = 1
ping_timeout_seconds = 3
unsubscribe_after_seconds = 0.5
"""
Tell = Callable[[str], object]


@define(eq=False)
class Soak:
    """One run. Blocks.

    Args:
        folder: for everything that is written.
        tell: is given a line about each part.
        part_seconds: how long everybody comes and goes before all leave; 0: a run is `PARTS` parts.
        pace: how busy it is there.
        over: where there is one, the run goes on past its minutes until it is set.
        base: with nobody there, before anybody came.
    """

    folder: Path
    seed: int
    minutes: float
    tell: Tell = print
    part_seconds: float = 0.0
    pace: float = 1.0
    over: Event | None = None
    base: Vitals = field(init=False)
    counts: Counter[str] = field(factory=Counter)
    faults: list[str] = field(factory=list)
    taken: list[Vitals] = field(factory=list)
    _settings: Path = field(init=False)
    _begun: float = 0.0
    _reloads: int = 0

    def run(self) -> list[str]:
        """Returns what was wrong, a line each; empty for nothing."""
        self._settings = self.folder / "broker.toml"
        self._write_settings()
        server = RedisServer(self.folder, PERSISTENCE)
        window = self.folder / "window.json"
        daemon = DaemonProcess(
            server.url,
            self.folder / "daemon.log",
            ("--log-format", "json", "--config", str(self._settings)),
            under=(sys.executable, str(PROBED), str(window)),
        )
        server.start()
        try:
            daemon.start()
            self._live(server, daemon, window)
            status = daemon.stop()
            if status:
                self.faults.append(f"the daemon ended with status {status}")
        finally:
            if hasattr(daemon, "port"):
                daemon.stop(signal.SIGKILL)
            server.kill()
        self.faults += [f"in the log: {entry}" for entry in errors_of(daemon)[:20]]
        self.faults += complaints(self.taken)
        return self.faults

    def report(self) -> Sequence[str]:
        """What happened, and the figures."""
        happened = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        return [f"happened: {happened}", *table(self.taken)]

    def _live(self, server: RedisServer, daemon: DaemonProcess, window: Path) -> None:
        truths: Truths = defaultdict(Truth)
        speaking = voices(truths, server, daemon.port, self.seed, self.pace)
        wait_until(lambda: daemon.stats()["history"]["isRecorder"])
        _touch(speaking[1], 0.0)
        self.base = measure(daemon, server, window, 0.0)
        for voice in speaking:
            voice.start()
        begun = self._begun = time.monotonic()
        seconds = self.part_seconds or max(4.0, self.minutes * 60 / PARTS - REST_SECONDS)
        part = 0
        try:
            while part < PARTS if not self.part_seconds else not part or not self._is_over():
                crowd = Crowd(daemon.port, truths, random.Random(f"{self.seed}:{part}:bytes"))
                for voice in speaking:
                    voice.go_on()
                self._play(plan(self.seed, part, seconds, self.pace), seconds, crowd, server, daemon)
                for voice in speaking:
                    voice.rest(SETTLED_SECONDS)
                crowd.settle(SETTLED_SECONDS)
                self.faults += crowd.faults[:20]
                self.counts += crowd.counts
                for truth in truths.values():
                    for position in list(truth.at)[:-POSITIONS_KEPT]:
                        del truth.at[position]
                minute = (time.monotonic() - begun) / 60
                _touch(speaking[1], minute)
                vitals = measure(daemon, server, window, minute)
                self.taken.append(vitals)
                figures = ", ".join(f"{name} {value:.4g}" for name, value in vitals.figures.items())
                part += 1
                self.tell(f"part {part}, minute {vitals.minute:.1f}: {figures}")
        finally:
            for voice in speaking:
                voice.end()
                self.counts[f"events by {voice.name}"] = voice.said
                self.counts[f"tried again by {voice.name}"] = voice.retries

    def _is_over(self) -> bool:
        has_lasted = time.monotonic() - self._begun >= 60 * self.minutes
        return has_lasted and bool(self.part_seconds) and (self.over is None or self.over.is_set())

    def _play(
        self, steps: Sequence[Step], seconds: float, crowd: Crowd, server: RedisServer, daemon: DaemonProcess
    ) -> None:
        """Do the steps at their times."""
        begun, due = time.monotonic(), list(reversed(steps))
        back: list[tuple[float, Callable[[], object]]] = []
        while ((now := time.monotonic() - begun) < seconds and not self._is_over()) or back:
            while due and due[-1].at <= now:
                step = due.pop()
                if step.what == "redis":
                    if not back:
                        back += self._hurt(step, now, server)
                elif step.what == "reload":
                    self._write_settings()
                    daemon.process.send_signal(signal.SIGHUP)
                    self.counts["reloads"] += 1
                elif step.what == "dump":
                    daemon.process.send_signal(signal.SIGUSR1)
                    self.counts["dumps"] += 1
                else:
                    crowd.take(step)
            for each in [each for each in back if each[0] <= now]:
                back.remove(each)
                each[1]()
            crowd.tick()

    def _hurt(self, step: Step, now: float, server: RedisServer) -> list[tuple[float, Callable[[], object]]]:
        """Do something to Redis. Returns when it is over, and how."""
        self.counts[f"redis {step.kind}"] += 1
        if step.kind == "kill":
            server.kill()
            return [(now + step.seconds, server.start)]
        if step.kind == "freeze":
            server.freeze()
            return [(now + step.seconds, server.thaw)]
        try:
            with server.client() as client:
                for kind in ("pubsub", "normal"):
                    client.execute_command("CLIENT", "KILL", "TYPE", kind)
        except redis.RedisError:
            pass  # it may have cut off who asked, too
        return []

    def _write_settings(self) -> None:
        self._reloads += 1
        self._settings.write_text(SETTINGS.format(number=100 + self._reloads % 2))


def _touch(voice: HttpVoice, minute: float) -> None:
    """One publishes and one follows, and are gone: connections to Redis that are opened when needed are then there."""
    wait_until(lambda: voice.publish(PLAIN_CHANNELS[0], {"type": "plain"}, f"minute-{minute}"))
    voice.hang_up()
    stream = SsePeer(voice.port, CHANNELS[0])
    pump([stream], lambda: stream.is_open)
    stream.close()
