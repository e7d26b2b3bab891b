"""Row 3: Redis is there and says nothing: its process stands still, or every packet is lost on the way.

The connections stay open, so nothing tells the daemon but the silence. Meanwhile services publish: behind the broken
wire they do, and with the frozen process they try until it goes on.
"""

from __future__ import annotations

import json
import math
import time
import urllib.request
from collections.abc import Callable

from attrs import define, field

from tests.actors.daemon_process import DaemonProcess
from tests.actors.distant_redis import DistantRedis, NoNamespace
from tests.actors.followers import Follower, SseFollower, Truths, V1Follower, WebSocketFollower, follow, open_followers
from tests.actors.redis_server import RedisServer
from tests.actors.service import Service
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.faults.verdicts import judge
from tests.faults.waits import deliver_again, let_pass, settle
from tests.promise.oracle import STAMPED, Truth

CHANNELS = ("kept:1", "kept:2")
HISTORY = ("--type", "kept.history_length=100000", "--type", "kept.history_seconds=600")
# A tenth of the defaults.
QUICK = (
    *("--redis-ping-seconds", "0.3", "--redis-ping-timeout-seconds", "0.5"),
    *("--redis-connect-seconds", "0.5", "--redis-backoff-max-seconds", "0.2"),
)
RATE = 100
ASK_SECONDS = 0.01
SETTLED_SECONDS = 20.0
NOTICED_SECONDS = 30.0


@define(eq=False)
class House:
    """A daemon, its Redis, a service and clients.

    Args:
        noticed: after how many seconds each silence was.
        back: after how many seconds everybody was served again.
        asked: how often the daemon was asked while a silence lasted that it had noticed; denied: how often it did.
    """

    daemon: DaemonProcess
    service: Service
    followers: list[Follower]
    noticed: list[float] = field(factory=list)
    back: list[float] = field(factory=list)
    asked: int = 0
    denied: int = 0
    _asked_at: float = 0.0

    def fall_silent(self, break_off: Callable[[], object], mend: Callable[[], object], lasts: float) -> None:
        """From one to the other; it lasts so many seconds more after it was noticed."""
        break_off()
        try:
            self.noticed.append(follow(self.followers, lambda: self._is_due() and self._is_away(), NOTICED_SECONDS))
        except AssertionError:
            self.noticed.append(math.inf)
        until = time.monotonic() + lasts

        def is_over() -> bool:
            if self._is_due():
                self.asked += 1
                self.denied += not self._is_away()
            return time.monotonic() >= until

        follow(self.followers, is_over)
        mend()
        self.back.append(deliver_again(self.followers))

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now - self._asked_at < ASK_SECONDS:
            return False
        self._asked_at = now
        return True

    def _is_away(self) -> bool:
        """What `/readyz` says of Redis."""
        with urllib.request.urlopen(f"{self.daemon.url}/readyz", timeout=5) as answer:
            return bool(json.load(answer)["redis"] == "away")


def play(stage: Stage) -> None:
    frozen = stage.redis()
    houses = [move_in(stage, frozen, frozen.url)]
    let_live(stage, houses[0], 1, frozen.freeze, frozen.thaw)
    times = stage.pick(2, 1)
    folder = stage.folder / "distant"
    folder.mkdir()
    distant = DistantRedis(folder)
    try:
        distant.start()
    except NoNamespace as why:
        stage.note = f"no network namespace here ({why}): a proxy loses the packets"
        server = stage.redis()
        wire = stage.proxy(server.port)
        houses.append(move_in(stage, server, f"redis://127.0.0.1:{wire.port}/0"))

        def mend() -> None:
            wire.flow()
            wire.cut()

        let_live(stage, houses[1], times, wire.lose, mend)
    else:
        try:
            houses.append(move_in(stage, distant, distant.distant_url))
            let_live(stage, houses[1], times, distant.lose, distant.flow)
        finally:
            distant.kill()
    noticed = [seconds for house in houses for seconds in house.noticed]
    stage.exactly("silences", len(noticed), 1 + times)
    # At small size the settings are a tenth of the defaults; a busy machine gets two seconds more.
    stage.at_most("noticed after", max(noticed), stage.pick(10.0, 3.0), "s")
    stage.at_least("times asked meanwhile", sum(house.asked for house in houses), stage.pick(100, 1))
    stage.exactly("answered that Redis is there", sum(house.denied for house in houses), 0)
    stage.at_most("delivering again after", max(seconds for house in houses for seconds in house.back), 10.0, "s")
    stage.at_least("events published", sum(house.service.published for house in houses), stage.pick(2000, 100))
    followers = [follower for house in houses for follower in house.followers]
    judge(stage, followers)
    stage.exactly("gaps", sum(len(follower.gaps()) for follower in followers), 0)
    stage.exactly("clients disconnected", sum(follower.endings for follower in followers), 0)


def move_in(stage: Stage, server: RedisServer, url: str) -> House:
    """A daemon that reaches Redis at `url`, clients of every kind, and a service that publishes."""
    daemon = stage.daemon(url, *HISTORY, *stage.pick((), QUICK))
    truths: Truths = {channel: Truth({STAMPED: 0}) for channel in CHANNELS}
    followers = [
        kind(names, truths, daemon.port)
        for kind in (WebSocketFollower, V1Follower, SseFollower)
        for names in (CHANNELS, CHANNELS[:1])
        for _ in range(stage.pick(5, 1))
    ]
    open_followers(followers)
    service = Service(server, truths, RATE, seed=stage.dice.getrandbits(30))
    service.start()
    return House(daemon, service, followers)


def let_live(
    stage: Stage, house: House, times: int, break_off: Callable[[], object], mend: Callable[[], object]
) -> None:
    """So many silences, and then everybody has everything."""
    for _ in range(times):
        let_pass(house.followers, stage.dice.uniform(0.1, stage.pick(4.0, 0.4)))
        house.fall_silent(break_off, mend, stage.dice.uniform(*stage.pick((1.0, 3.0), (0.2, 0.4))))
    house.service.end()
    settle(house.followers, SETTLED_SECONDS)


ROW = Row(
    3,
    "A half-open Redis is found",
    "SIGSTOP; all packets dropped both ways in a network namespace, twice; 100 events/s, 30 clients at each daemon",
    "noticed within 10 s; readiness says so; nothing lost after healing, with history",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
