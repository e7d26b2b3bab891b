"""Row 16: whatever a client does while its connection is being closed, by whomever, at every point of the close."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from operator import itemgetter

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import (
    CLOSE,
    CONTINUATION,
    PING,
    TEXT,
    RawClient,
    close_frame,
    frame,
    head,
    text,
)
from tests.actors.redis_server import RedisServer
from tests.faults.healthy import Healthy
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.faults.waits import seconds_until

# What races the close. None resets the connection.
ARRIVALS: dict[str, bytes | None] = {
    "ping": frame(PING, b"late"),
    "data": text({"type": "subscribe", "channel": "race:2"}) + text({"type": "ping"}),
    "bad frame": frame(5, b"late"),
    "reset": None,
    "oversized message": frame(TEXT, b"*" * 70000),
    "second close": close_frame(1001) + frame(CONTINUATION, b"x"),
}
# What the daemon closes for; the first in each turn is the client's own close.
CLIENT_CLOSES = (close_frame(1000),)
DAEMON_CLOSES = (frame(3), frame(TEXT, b"\xff"), frame(TEXT, b"*" * 65537))
OPENING = text({"type": "subscribe", "channel": "race:1"})
ANSWERED = (1000, 1002, 1007, 1009)
# The healthy ones are answered for by a thread beside a busy one.
PING_SECONDS, SILENCE_SECONDS = 0.5, 2.0
LEFT_SECONDS = 10.0
FAREWELL = ("--clients-farewell-seconds", "0.5")
SHUTDOWN_SECONDS = 5.0
CROWD = 200


def play(stage: Stage) -> None:
    redis = stage.redis()
    rounds = stage.pick(200, 20)
    daemon = stage.daemon(redis.url)
    raced = 0
    with Healthy(redis, daemon.port) as healthy:
        for closes in CLIENT_CLOSES, DAEMON_CLOSES:
            for late in ARRIVALS.values():
                raced += race_a_close(stage, daemon.port, closes, late, rounds)
        raced += end_streams(daemon.port, rounds)
        left = seconds_until(lambda: has_only_healthy_ones(daemon))
    # All kinds at once, in the order of dice.
    kinds = list(ARRIVALS.values()) * rounds
    stage.dice.shuffle(kinds)
    for at in range(0, len(kinds), CROWD):
        raced += race_a_shutdown(stage, redis, kinds[at : at + CROWD])
    raced += race_heartbeats(stage, redis, kinds)
    stage.exactly("closes raced", raced, 25 * rounds)
    stage.at_most("nobody left but the healthy ones, after", left, LEFT_SECONDS, "s")
    stage.exactly("exceptions logged", stage.errors_logged(), 0)
    healthy.measure(stage)


def has_only_healthy_ones(daemon: DaemonProcess) -> bool:
    stats = daemon.own_stats()
    are_gone = stats["websocket"]["totalConnections"] == 2
    return are_gone and not any(name.startswith("race") for name in stats["channels"]["channels"])


def race_a_close(stage: Stage, port: int, closes: tuple[bytes, ...], late: bytes | None, rounds: int) -> int:
    """The close and what races it, cut at every place, and sent in one piece, in two, or with a pause between."""
    for number in range(rounds):
        closing = closes[number % len(closes)]
        with RawClient.websocket(port, greeted=bool(number % 3)) as client:
            both = OPENING + closing + (late or b"")
            cut = stage.dice.randrange(len(both) if number % 2 else min(len(both), len(OPENING) + 30))
            client.try_send(both[:cut])
            if number % 15 == 0:
                client.frame()
            if late is None:
                client.reset()
                continue
            client.try_send(both[cut:])
            if number % 7 == 0:
                client.reset()
                continue
            last = client.frames()[-1]
            if last.opcode != CLOSE or last.code not in ANSWERED:
                stage.faults.append(f"closed with {last}")
    return rounds


def end_streams(port: int, rounds: int) -> int:
    """Event streams that end for too many bytes, and are reset, fed or left alone meanwhile."""
    for number in range(rounds):
        with RawClient.connect(port) as client:
            client.send(head(b"GET /api/stream?channel=race:3 HTTP/1.1"))
            client.try_send(b"*" * 140_000)
            if number % 3 == 0:
                client.reset()
                continue
            if number % 3 == 1:
                client.try_send(b"*" * 1000)
            client.read_to_end()
    return rounds


def race_a_shutdown(stage: Stage, redis: RedisServer, kinds: Sequence[bytes | None]) -> int:
    """The daemon says goodbye to everybody; everybody does something else. It is gone in time, with status 0."""
    daemon = stage.daemon(redis.url, *FAREWELL)
    clients = [RawClient.websocket(daemon.port) for _ in kinds]
    daemon.process.terminate()
    for number, (client, late) in enumerate(zip(clients, kinds, strict=True)):
        if number % 2:
            client.sock.recv(1)
        race(client, late, number)
    if (status := daemon.process.wait(SHUTDOWN_SECONDS)) != 0:
        stage.faults.append(f"the daemon ended with {status}")
    for client in clients:
        client.sock.close()
    return len(kinds)


def race_heartbeats(stage: Stage, redis: RedisServer, kinds: Sequence[bytes | None]) -> int:
    """Clients who never answer pings are closed for it, and do something just before, then, or just afterwards."""
    daemon = stage.daemon(
        redis.url, *FAREWELL,
        "--websocket-ping-seconds", str(PING_SECONDS), "--websocket-silence-seconds", str(SILENCE_SECONDS),
    )  # fmt: skip
    with Healthy(redis, daemon.port) as healthy:
        for at in range(0, len(kinds), CROWD):
            race_the_end_of_silence(stage, daemon, kinds[at : at + CROWD])
        left = seconds_until(lambda: has_only_healthy_ones(daemon))
    stage.at_most("all who fell silent gone after", left, LEFT_SECONDS, "s")
    # The others left or were wrong before it.
    stage.at_least(
        "ended for their silence", daemon.own_stats()["delivery"]["endings"].get("silent", 0), len(kinds) / 10
    )
    if ended := sum(follower.endings for follower in healthy.followers):
        stage.faults.append(f"{ended} healthy connections ended beside those that fell silent")
    return len(kinds)


def race_the_end_of_silence(stage: Stage, daemon: DaemonProcess, kinds: Sequence[bytes | None]) -> None:
    clients: list[tuple[float, int, RawClient]] = []
    for number in range(len(kinds)):
        client = RawClient.websocket(daemon.port)
        at = time.monotonic() + SILENCE_SECONDS + stage.dice.uniform(-0.05, 0.1)
        clients.append((at, number, client))
    for at, number, client in sorted(clients, key=itemgetter(0)):
        if (left := at - time.monotonic()) > 0:
            time.sleep(left)  # the moment is what is tried
        race(client, kinds[number], number)
    for _, _, client in clients:
        client.sock.close()


def race(client: RawClient, late: bytes | None, number: int) -> None:
    """Every third sends all of it, the others a part that grows."""
    if late is None:
        client.reset()
    else:
        client.try_send(late[: number % len(late) + 1] if number % 3 else late)


ROW = Row(
    16,
    "Whatever arrives while a connection closes stays within that connection",
    "ping, data, bad frame, reset, oversized message and second close at every point of a close (the client's, the "
    "daemon's, a shutdown's, that of an expired heartbeat), 200 rounds each",
    "no exception leaves the connection's own scope; healthy clients beside notice nothing",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
