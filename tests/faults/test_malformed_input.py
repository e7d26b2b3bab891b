"""Row 7: bytes that are wrong in every way, and healthy clients beside."""

from __future__ import annotations

from collections.abc import Callable

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import RawClient, descriptors_of, resident_bytes, upgrade
from tests.faults.healthy import Healthy
from tests.faults.malformed import GOODBYE, HANDSHAKES, REQUESTS, Malformer, answers_to, wrong_frames
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.faults.waits import seconds_until

AT_ONCE = 16
FRAMES_OF_ONE = 20
MIB = 1 << 20


def play(stage: Stage) -> None:
    # Not forked: what it holds is measured, and a fork counts what it shares as its own.
    redis = stage.redis()
    daemon = stage.daemon(redis.url, under=("env",))
    malformer = Malformer(stage.dice)
    handshakes, requests, frames = stage.pick((100_000, 20_000, 1_000_000), (800, 400, 8000))
    with Healthy(redis, daemon.port) as healthy:
        # What is only made at the first of its kind is no growth.
        send_heads(stage, daemon, malformer, HANDSHAKES + REQUESTS, 500)
        send_frames(stage, daemon, malformer, 2000)
        base, memory = descriptors_of(daemon.process.pid), resident_bytes(daemon.process.pid)
        sent_handshakes, to_handshakes = send_heads(stage, daemon, malformer, HANDSHAKES, handshakes)
        sent_requests, to_requests = send_heads(stage, daemon, malformer, REQUESTS, requests)
        sent_frames, to_frames = send_frames(stage, daemon, malformer, frames)
        grown = resident_bytes(daemon.process.pid) - memory
        left = seconds_until(
            lambda: daemon.stats()["websocket"]["totalConnections"] == 2 and descriptors_of(daemon.process.pid) <= base
        )
    stage.exactly("mutated handshakes", sent_handshakes, handshakes)
    stage.exactly("other mutated requests", sent_requests, requests)
    stage.exactly("mutated frames", sent_frames, frames)
    # A tenth resets its connection, and some have no end that could be answered.
    stage.at_least("answers to handshakes", to_handshakes, handshakes / 2)
    stage.at_least("answers to other requests", to_requests, requests / 2)
    # The rest came behind one that ended its connection, or had no answer.
    stage.at_least("answers to frames", to_frames, frames / 4)
    stage.at_most("nobody left but the healthy ones, after", left, 10, "s")
    stage.exactly("exceptions logged", stage.errors_logged(), 0)
    stage.exactly("daemons ended", daemon.process.poll() is not None, 0)
    stage.at_most("memory growth", grown / MIB, 20, "MiB")
    healthy.measure(stage)


def send_heads(
    stage: Stage, daemon: DaemonProcess, malformer: Malformer, sound: tuple[bytes, ...], count: int
) -> tuple[int, int]:
    """Each on a connection of its own, as nearly each is its connection's last; `AT_ONCE` of them.

    Returns how many were sent, and how many were answered.
    """
    number = answered = 0
    for begin in range(0, count, AT_ONCE):
        clients: list[tuple[RawClient, bytes]] = []
        for _ in range(min(AT_ONCE, count - begin)):
            sent = malformer.head(sound)
            client = RawClient.connect(daemon.port)
            clients.append((client, sent))
            number += 1
            if stage.dice.random() < 0.3:
                cut = stage.dice.randrange(len(sent) + 1)
                client.try_send(sent[:cut])
                client.try_send(sent[cut:])
            else:
                client.try_send(sent)
            if stage.dice.random() < 0.1:
                client.reset()
            else:
                client.finish()
        for client, sent in clients:
            with client:
                if client.sock.fileno() >= 0:
                    answers, wrong = answers_to(client, sent)
                    answered += answers > 0
                    stage.faults += wrong
    return number, answered


def send_frames(stage: Stage, daemon: DaemonProcess, malformer: Malformer, count: int) -> tuple[int, int]:
    """`FRAMES_OF_ONE` on a connection, with its handshake in one write. Returns how many were sent, and came back."""
    opening = upgrade()
    number = answers = 0
    for begin in range(0, count, AT_ONCE * FRAMES_OF_ONE):
        clients: list[RawClient] = []
        for at in range(begin, min(begin + AT_ONCE * FRAMES_OF_ONE, count), FRAMES_OF_ONE):
            client = RawClient.connect(daemon.port)
            some = min(FRAMES_OF_ONE, count - at)
            client.try_send(opening + malformer.frames(some) + GOODBYE)
            number += some
            if stage.dice.random() < 0.1:
                client.reset()
            else:
                client.finish()
                clients.append(client)
        for client in clients:
            with client:
                client.expect_upgrade()
                frames = client.frames()
                answers += len(frames)
                stage.faults += wrong_frames(frames)
    return number, answers


ROW = Row(
    7,
    "Malformed input ends one connection, never the process",
    "1 000 000 mutated frames, 100 000 mutated handshakes and 20 000 other mutated requests, seeded; healthy clients "
    "beside",
    "the process lives, no unhandled exception is logged, the healthy clients lose nothing, memory grows by less than "
    "20 MiB",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
