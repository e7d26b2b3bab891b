"""Row 23: the daemon's loop is stuck, and then only who reads from Redis is: the watchdog of systemd hears of both."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from tests.actors.peers import open_websockets, pump
from tests.actors.tampered import Tampered
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.systemd.manager import NotifySocket

SIGN = "WATCHDOG=1"


def play(stage: Stage) -> None:
    redis = stage.redis()
    watchdog_seconds, block_seconds = stage.pick((4.0, 30.0), (0.4, 2.2))
    slack_seconds = stage.pick(0.0, 1.5)  # small, it is played beside many others
    # Twice as long as a quiet Redis has for its PING and the answer: then who reads is stuck.
    ping_seconds, timeout_seconds = stage.pick((3.0, 5.0), (0.2, 0.3))
    silence = ("--redis-ping-seconds", str(ping_seconds), "--redis-ping-timeout-seconds", str(timeout_seconds))
    stuck_seconds = 2 * (ping_seconds + timeout_seconds)
    notify = NotifySocket(str(stage.folder / "notify"))
    environ = {"NOTIFY_SOCKET": notify.address, "WATCHDOG_USEC": str(round(watchdog_seconds * 1e6))}
    tampered = Tampered(stage.folder / "tamper")
    daemon = stage.daemon(redis.url, *silence, environ=environ, under=tampered.under)
    (client,) = open_websockets(daemon.port, 1, "plain:1")
    stage.at_least("signs of life before", len(signs_within(notify, 2 * watchdog_seconds + slack_seconds, 2)), 2)

    tampered.block(block_seconds)
    blocked_at = time.monotonic()
    signs = signs_within(notify, block_seconds - 0.2)
    stage.at_most("a stuck loop's last sign of life after", _last(signs, blocked_at), 0.3 + slack_seconds, "s")
    stage.at_least("silence", block_seconds - _last(signs, blocked_at), watchdog_seconds, "s")
    behind = signs_within(notify, 2 * watchdog_seconds + 0.2 + slack_seconds, 2)
    stage.at_least("signs of life behind the block", len(behind), 2)
    redis.publish("plain:1", b'"behind the block"')
    pump([client], lambda: b'"behind the block"' in client.parse())

    tampered.hang()
    redis.publish("plain:1", b'"into the void"')  # who reads comes by for it, and stays
    hung_at = time.monotonic()
    signs = signs_within(notify, stuck_seconds + 3 * watchdog_seconds + slack_seconds)
    # A sign of life is owed for as long as Redis may be silent; it comes twice in each of the watchdog's times.
    most = stuck_seconds + watchdog_seconds / 2 + slack_seconds
    stage.at_most("a stuck reader's last sign of life after", _last(signs, hung_at), most, "s")
    status = [text for text in notify.taken if text.startswith("STATUS=")][-1]
    if stage.is_full and "stuck" not in status:  # it is told every five seconds
        stage.faults.append(f"systemd was told {status!r}, and not that it is stuck")
    tampered.release()
    notify.wait_for(lambda text: text == SIGN)
    pump([client], lambda: b'"into the void"' in client.parse())
    stage.exactly("clients that were dropped", int(client.ended), 0)
    notify.close()


def signs_within(notify: NotifySocket, seconds: float, enough: float = math.inf) -> Sequence[float]:
    """When the watchdog was fed, from now on for so long, or until that was often enough."""
    over_at = time.monotonic() + seconds
    notify.take()
    found: list[float] = []
    while (left := over_at - time.monotonic()) > 0 and len(found) < enough:
        found += [time.monotonic() for text in notify.take(left) if text == SIGN]
    return found


def _last(signs: Sequence[float], since: float) -> float:
    return max((at - since for at in signs), default=0.0)


ROW = Row(
    23,
    "A daemon whose loop is stuck, or that hands nothing on, is found by systemd's watchdog",
    "the loop blocked for 30 s; then the reader of Redis alone hangs while the loop turns",
    "the watchdog stops being fed (it is fed by the loop that delivers, not by a bare timer)",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
