"""Row 16: whatever a client does while its connection is being closed, by whomever, at every point of the close.

Not every round falls into the close: some come just before, some behind it. Each client looks at its own side of the
wire, and those that did are counted. The figure is that of the kind of arrival that has fewest.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
# Who closes, and what the client sends for it.
CLOSES = {
    "the client's": (close_frame(1000),),
    "the daemon's": (frame(3), frame(TEXT, b"\xff"), frame(TEXT, b"*" * 65537)),
}
# What is in the goodbyes that are raced.
REASONS = (b"server shutting down", b"no pong and no message in time")
CLOSED, CLOSE_WAIT = 7, 8  # states of TCP_INFO: reset by the other side, and half closed by it
OPENING = text({"type": "subscribe", "channel": "race:1"})
ANSWERED = (1000, 1002, 1007, 1009)
# The healthy ones are answered for by a thread beside a busy one.
PING_SECONDS, SILENCE_SECONDS = 0.5, 2.0
LEFT_SECONDS = 10.0
FAREWELL_SECONDS = 0.5
FAREWELL = ("--clients-farewell-seconds", str(FAREWELL_SECONDS))
CROWD = 200


def play(stage: Stage) -> None:
    redis = stage.redis()
    rounds = stage.pick(200, 20)
    daemon = stage.daemon(redis.url)
    with Healthy(redis, daemon.port) as healthy:
        for who, closes in CLOSES.items():
            fell = {name: race_a_close(stage, daemon.port, closes, late, rounds) for name, late in ARRIVALS.items()}
            tell(stage, who, fell, rounds * 0.9)
        tell(stage, "an event stream's", end_streams(daemon.port, rounds), rounds * 0.1)
        left = seconds_until(lambda: has_only_healthy_ones(daemon))
    # All kinds at once, in the order of dice.
    names = list(ARRIVALS) * rounds
    stage.dice.shuffle(names)
    fell = Counter(dict.fromkeys(ARRIVALS, 0))
    for at in range(0, len(names), CROWD):
        race_a_shutdown(stage, redis, names[at : at + CROWD], fell)
    tell(stage, "a shutdown's", fell, rounds * stage.pick(0.8, 0.4))
    race_heartbeats(stage, redis, names)
    stage.at_most("nobody left but the healthy ones, after", left, LEFT_SECONDS, "s")
    stage.exactly("exceptions logged", stage.errors_logged(), 0)
    healthy.measure(stage)


def tell(stage: Stage, whose: str, fell: Mapping[str, int], least: float) -> None:
    """How many rounds of a kind fell into a close: those of the kind that has fewest."""
    stage.at_least(f"rounds that fell into {whose} close, of each kind", min(fell.values()), int(least))


def has_only_healthy_ones(daemon: DaemonProcess) -> bool:
    stats = daemon.own_stats()
    are_gone = stats["websocket"]["totalConnections"] == 2
    return are_gone and not any(name.startswith("race") for name in stats["channels"]["channels"])


def race_a_close(stage: Stage, port: int, closes: tuple[bytes, ...], late: bytes | None, rounds: int) -> int:
    """The close and what races it, cut at every place, and sent in one piece, in two, or with a pause between.

    Returns how many sent the whole of both to a daemon that had not yet closed its socket.
    """
    fell = 0
    # Half of those that reset the connection do so before the close is whole, and are so many more.
    for number in range(rounds if late is not None else 2 * rounds):
        closing = closes[number % len(closes)]
        with RawClient.websocket(port, greeted=bool(number % 3)) as client:
            both = OPENING + closing + (late or b"")
            if late is None and number % 2:
                cut = len(both)
            else:
                cut = stage.dice.randrange(len(both) if number % 2 else min(len(both), len(OPENING) + 30))
            client.try_send(both[:cut])
            if number % 15 == 0:
                client.frame()
            if late is None:
                fell += cut == len(both) and state_of(client) != CLOSED
                client.reset()
                continue
            client.try_send(both[cut:])
            fell += state_of(client) != CLOSED
            if number % 7 == 0:
                client.reset()
                continue
            last = client.frames()[-1]
            if last.opcode != CLOSE or last.code not in ANSWERED:
                stage.faults.append(f"closed with {last}")
    return fell


def end_streams(port: int, rounds: int) -> dict[str, int]:
    """Event streams that end for too many bytes, and are reset, fed or left alone meanwhile.

    Every second one waits for the daemon's half of the close. Returns how many raced it, by what they did.
    """
    fell = {"reset": 0, "fed": 0}
    for number in range(rounds):
        with RawClient.connect(port) as client:
            client.send(head(b"GET /api/stream?channel=race:3 HTTP/1.1"))
            client.try_send(b"*" * 140_000)
            if number % 2:
                client.read_to_end()
            has_begun = state_of(client) == CLOSE_WAIT
            if number % 3 == 0:
                fell["reset"] += has_begun
                client.reset()
                continue
            if number % 3 == 1:
                client.try_send(b"*" * 1000)
                fell["fed"] += has_begun and state_of(client) != CLOSED
            client.read_to_end()
    return fell


def race_a_shutdown(stage: Stage, redis: RedisServer, names: Sequence[str], fell: Counter[str]) -> None:
    """The daemon says goodbye to everybody; everybody does something else. It is gone in time, with status 0."""
    daemon = stage.daemon(redis.url, *FAREWELL)
    clients = [RawClient.websocket(daemon.port) for _ in names]
    daemon.process.terminate()
    for number, (client, name) in enumerate(zip(clients, names, strict=True)):
        if number % 2:
            client.sock.recv(1)
        # It waits for the client's half before it closes its own, which is the end.
        fell[name] += race(client, name, number, over_at=0.0)
    # At small size others have the processors too.
    if (status := daemon.process.wait(stage.pick(5.0, 20.0))) != 0:
        stage.faults.append(f"the daemon ended with {status}")
    for client in clients:
        client.sock.close()


def race_heartbeats(stage: Stage, redis: RedisServer, names: Sequence[str]) -> None:
    """Clients who never answer pings are closed for it, and do something just before, then, or just afterwards."""
    daemon = stage.daemon(
        redis.url, *FAREWELL,
        "--websocket-ping-seconds", str(PING_SECONDS), "--websocket-silence-seconds", str(SILENCE_SECONDS),
    )  # fmt: skip
    fell = Counter(dict.fromkeys(ARRIVALS, 0))
    with Healthy(redis, daemon.port) as healthy:
        for at in range(0, len(names), CROWD):
            race_the_end_of_silence(stage, daemon, names[at : at + CROWD], fell)
        left = seconds_until(lambda: has_only_healthy_ones(daemon))
    tell(stage, "a silent client's", fell, len(names) / len(ARRIVALS) * stage.pick(0.3, 0.1))
    stage.at_most("all who fell silent gone after", left, LEFT_SECONDS, "s")
    # The others left or were wrong before it.
    stage.at_least(
        "ended for their silence", daemon.own_stats()["delivery"]["endings"].get("silent", 0), len(names) / 10
    )
    if ended := sum(follower.endings for follower in healthy.followers):
        stage.faults.append(f"{ended} healthy connections ended beside those that fell silent")


def race_the_end_of_silence(stage: Stage, daemon: DaemonProcess, names: Sequence[str], fell: Counter[str]) -> None:
    clients: list[tuple[float, float, int, RawClient]] = []
    for number in range(len(names)):
        client = RawClient.websocket(daemon.port)
        silent_at = time.monotonic() + SILENCE_SECONDS
        clients.append((silent_at + stage.dice.uniform(-0.05, 0.1), silent_at, number, client))
    for at, silent_at, number, client in sorted(clients, key=itemgetter(0)):
        if (left := at - time.monotonic()) > 0:
            time.sleep(left)  # the moment is what is tried
        fell[names[number]] += race(client, names[number], number, over_at=silent_at + FAREWELL_SECONDS)
    for _, _, _, client in clients:
        client.sock.close()


def race(client: RawClient, name: str, number: int, *, over_at: float) -> bool:
    """Every third sends all of it, the others a part that grows.

    Args:
        over_at: until then a daemon that has closed its half still reads.

    Returns:
        Whether it fell into the close: the goodbye had come, and the daemon still read.
    """
    late, before = ARRIVALS[name], state_of(client)
    has_begun = before == CLOSE_WAIT or has_goodbye(client)
    if late is None:
        client.reset()
        is_over = False
    else:
        client.try_send(late[: number % len(late) + 1] if number % 3 else late)
        is_over = state_of(client) == CLOSED
    is_over = is_over or before == CLOSED or (before == CLOSE_WAIT and time.monotonic() >= over_at)
    return has_begun and not is_over


def state_of(client: RawClient) -> int:
    """The kernel's state of the connection, as this side has it."""
    return client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def has_goodbye(client: RawClient) -> bool:
    """Whether it is there to be read. Takes nothing."""
    try:
        there = client.sock.recv(1 << 16, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return False
    return any(reason in there for reason in REASONS)


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
