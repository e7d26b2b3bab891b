"""Row 7: bytes that are wrong in every way, and healthy clients beside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import CLOSE, RawClient, descriptors_of, resident_bytes, upgrade
from tests.faults.healthy import Healthy
from tests.faults.malformed import GOODBYE, HANDSHAKES, REQUESTS, Malformer, answers_to, wrong_frames
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.faults.waits import seconds_until

AT_ONCE = 8
FRAMES_OF_ONE = 10
MIB = 1 << 20
# By what the daemon calls it, the code that it closes with for a wrong frame, and how often it has to at the least, for
# each thousand connections that had one.
CLOSES = {"protocol_error": (1002, 500), "bad_text": (1007, 60), "frame_too_big": (1009, 3)}


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
        base, memory, before = descriptors_of(daemon.process.pid), resident_bytes(daemon.process.pid), daemon.stats()
        to_handshakes = send_heads(stage, daemon, malformer, HANDSHAKES, handshakes)
        to_requests = send_heads(stage, daemon, malformer, REQUESTS, requests)
        to_frames, codes = send_frames(stage, daemon, malformer, frames)
        grown = resident_bytes(daemon.process.pid) - memory
        left = seconds_until(
            lambda: daemon.stats()["websocket"]["totalConnections"] == 2 and descriptors_of(daemon.process.pid) <= base
        )
    after = daemon.stats()
    with_frames = frames // FRAMES_OF_ONE
    taken = after["connections"]["accepted"] - before["connections"]["accepted"]
    stage.at_least("connections that the daemon took", taken, handshakes + requests + with_frames)
    # A tenth resets its connection, and some have no end that could be answered.
    stage.at_least("answers to handshakes", to_handshakes, handshakes / 2)
    stage.at_least("answers to other requests", to_requests, requests / 2)
    # The rest came behind one that ended its connection, or had no answer.
    stage.at_least("answers to frames", to_frames, frames * 0.4)
    ended = {
        name: after["delivery"]["endings"].get(name, 0) - before["delivery"]["endings"].get(name, 0) for name in CLOSES
    }
    stage.at_least("connections that the daemon ended for a wrong frame", sum(ended.values()), 0.6 * with_frames)
    for code, in_thousand in CLOSES.values():
        stage.at_least(f"closed with {code}, as clients had it", codes[code], in_thousand * with_frames // 1000)
    stage.at_most("nobody left but the healthy ones, after", left, 10, "s")
    stage.exactly("exceptions logged", stage.errors_logged(), 0)
    stage.exactly("daemons ended", daemon.process.poll() is not None, 0)
    stage.at_most("memory growth", grown / MIB, 20, "MiB")
    healthy.measure(stage)


def send_heads(stage: Stage, daemon: DaemonProcess, malformer: Malformer, sound: tuple[bytes, ...], count: int) -> int:
    """Each on a connection of its own, as nearly each is its connection's last. Returns how many were answered."""
    answered = 0
    waiting: list[tuple[RawClient, bytes]] = []
    for begin in range(0, count, AT_ONCE):
        clients: list[tuple[RawClient, bytes]] = []
        for _ in range(min(AT_ONCE, count - begin)):
            sent = malformer.head(sound)
            client = RawClient.connect(daemon.port)
            if stage.dice.random() < 0.3:
                cut = stage.dice.randrange(len(sent) + 1)
                client.try_send(sent[:cut])
                client.try_send(sent[cut:])
            else:
                client.try_send(sent)
            if is_left_to_answer(stage, client):
                clients.append((client, sent))
        # While the daemon works on these, those before are read: neither waits for the other.
        answered += read_answers(stage, waiting)
        waiting = clients
    return answered + read_answers(stage, waiting)


def is_left_to_answer(stage: Stage, client: RawClient) -> bool:
    """A tenth is reset; the others close their half."""
    if stage.dice.random() < 0.1:
        client.reset()
        return False
    client.finish()
    return True


def read_answers(stage: Stage, clients: Sequence[tuple[RawClient, bytes]]) -> int:
    answered = 0
    for client, sent in clients:
        with client:
            answers, wrong = answers_to(client, sent)
            answered += answers > 0
            stage.faults += wrong
    return answered


def send_frames(stage: Stage, daemon: DaemonProcess, malformer: Malformer, count: int) -> tuple[int, Counter[int]]:
    """`FRAMES_OF_ONE` on a connection, one of them wrong as a frame, with the handshake in one write.

    Returns how many came back, and the codes that the daemon closed with of its own.
    """
    opening = upgrade()
    answers = 0
    codes: Counter[int] = Counter()
    waiting: list[RawClient] = []
    for begin in range(0, count, AT_ONCE * FRAMES_OF_ONE):
        clients: list[RawClient] = []
        for at in range(begin, min(begin + AT_ONCE * FRAMES_OF_ONE, count), FRAMES_OF_ONE):
            client = RawClient.connect(daemon.port)
            client.try_send(opening + malformer.frames(min(FRAMES_OF_ONE, count - at)) + GOODBYE)
            if is_left_to_answer(stage, client):
                clients.append(client)
        answers += read_frames(stage, waiting, codes)
        waiting = clients
    return answers + read_frames(stage, waiting, codes), codes


def read_frames(stage: Stage, clients: Sequence[RawClient], codes: Counter[int]) -> int:
    count = 0
    for client in clients:
        with client:
            client.expect_upgrade()
            frames = client.frames()
            count += len(frames)
            stage.faults += wrong_frames(frames)
            last = frames[-1]
            # A client's own close comes back as it was, mostly without a reason; the daemon says why it closes.
            if last.opcode == CLOSE and last.code is not None and len(last.payload) > 2:
                codes[last.code] += 1
    return count


ROW = Row(
    7,
    "Malformed input ends one connection, never the process",
    "1 000 000 frames on 100 000 connections: one in ten is wrong as a frame, the others hold mutated commands, and "
    "what stands behind the wrong one is mostly not read; 100 000 mutated handshakes and 20 000 other mutated "
    "requests; seeded; healthy clients beside",
    "wrong frames are closed with 1002, 1007 or 1009; the process lives, no unhandled exception is logged, the healthy "
    "clients lose nothing, memory grows by less than 20 MiB",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
