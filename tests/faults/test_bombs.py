"""Row 17: little that would become much: nothing is negotiated or kept that has no bound."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from attrs import frozen

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    TEXT,
    RawClient,
    descriptors_of,
    frame,
    head,
    resident_bytes,
    upgrade,
)
from tests.bench.usage import cpu_seconds
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.faults.waits import seconds_until
from tests.tls.certificates import Authority
from tests.tls.http2_client import Http2Client
from tests.tls.http2_floods import FLOODS

KIB, MIB = 1024, 1024 * 1024
OFFERS = (
    b"permessage-deflate",
    b"permessage-deflate; client_max_window_bits; server_no_context_takeover",
    b"x-webkit-deflate-frame, permessage-bzip2, permessage-deflate",
)
GET, POST, HEALTH = b"GET /health HTTP/1.1", b"POST /api/publish HTTP/1.1", head(b"GET /health HTTP/1.1")
REFUSALS = (1009, 1002, 431, 413)
DEFLATED = zlib.compress(bytes(10 * MIB), 9)


@frozen
class Bomb:
    """What is sent on one connection.

    Args:
        handshake: whether a WebSocket is opened first.
        ends: the HTTP status or close code that it is answered with; None for what is held, as more may come.
    """

    sent: bytes
    handshake: bool
    ends: int | None


BOMBS = {
    "a message of 2^63 - 1 bytes": Bomb(frame(TEXT, b"*" * 65537, length=2**63 - 1), True, 1009),
    "a binary one": Bomb(frame(BINARY, b"*" * 65537, length=2**63 - 1), True, 1009),
    # This has a bit too many to be a length (RFC 6455, 5.2).
    "a message of 2^63 bytes": Bomb(frame(TEXT, b"*", length=2**63), True, 1002),
    "a fragment of 2^62 bytes": Bomb(frame(TEXT, fin=False) + frame(0, b"*" * 65537, length=2**62), True, 1009),
    "a deflated message": Bomb(frame(TEXT, DEFLATED[:60_000], rsv=4), True, 1002),
    "an unfinished message": Bomb(frame(TEXT, b"*" * 65535, fin=False), True, None),
    "a head of 64 KiB": Bomb(head(GET, b"A: " + b"a" * 65536), False, 431),
    "a head of 64 KiB in 5000 lines": Bomb(head(GET, *[b"A%d: bbbb" % number for number in range(5000)]), False, 431),
    "a target of 64 KiB": Bomb(head(b"GET /" + b"a" * 65536 + b" HTTP/1.1"), False, 431),
    "a handshake of 64 KiB": Bomb(upgrade(b"/ws", b"Cookie: " + b"a" * 65536), False, 431),
    "an unfinished head": Bomb(head(GET, b"A: " + b"a" * 16_000)[:-2], False, None),
    "a body of 2^63 bytes": Bomb(head(POST, b"Content-Length: %d" % 2**63), False, 413),
    "chunks that say nothing": Bomb(
        head(POST, b"Transfer-Encoding: chunked") + b"1;%b\r\n[\r\n" % (b"a" * 16_000) * 700, False, 413
    ),
    "a deflated body": Bomb(
        head(POST, b"Content-Encoding: deflate", b"Content-Length: %d" % len(DEFLATED)) + DEFLATED, False, 400
    ),
}  # fmt: skip


def play(stage: Stage) -> None:
    # Not forked: what it holds is measured, and a fork counts what it shares as its own.
    daemon = stage.daemon(stage.redis().url, under=("env",))
    at_once = stage.pick(20, 5)
    empty = frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * stage.pick(1_000_000, 100_000)
    bombs = {**BOMBS, "empty fragments": Bomb(empty, True, 1009)}
    negotiated = sum(offer_deflate(stage, daemon.port, offer) for offer in OFFERS)
    stage.exactly("extensions negotiated", negotiated, 0)
    worst = 0.0
    for name, bomb in bombs.items():
        # What is only made at the first of its kind is no growth.
        drop(stage, daemon, name, bomb, 1)
        worst = max(worst, drop(stage, daemon, name, bomb, at_once))
    refusable = sum(bomb.ends in REFUSALS for bomb in bombs.values())
    due = refusable * (1 + at_once)
    seconds_until(lambda: refused_by(daemon) >= due)  # it counts who has gone
    stage.exactly("bombs refused, as the daemon counts them", refused_by(daemon), due)
    stage.at_most("memory growth of a connection, at its peak", worst / MIB, 2, "MiB")
    flood(stage)


def refused_by(daemon: DaemonProcess) -> int:
    """The clients and requests that it ended for what is in `REFUSALS`."""
    stats = daemon.stats()
    endings, limits = stats["delivery"]["endings"], stats["limits"]
    ended = endings.get("frame_too_big", 0) + endings.get("protocol_error", 0)
    return int(ended + limits["head_max_bytes"] + limits["body_max_bytes"])


def offer_deflate(stage: Stage, port: int, offer: bytes) -> bool:
    with RawClient.connect(port) as client:
        client.send(upgrade(b"/ws", b"Sec-WebSocket-Extensions: " + offer))
        return "sec-websocket-extensions" in client.expect_upgrade().headers


def drop(stage: Stage, daemon: DaemonProcess, name: str, bomb: Bomb, at_once: int) -> float:
    """All at once on so many connections. Returns by how much the daemon had grown at most, for each of them."""
    pid = daemon.process.pid
    clients = [RawClient.websocket(daemon.port) if bomb.handshake else RawClient.connect(daemon.port)
               for _ in range(at_once)]  # fmt: skip
    before = forget_peak(pid)
    for client in clients:
        client.try_send(bomb.sent)
    for client in clients:
        ended = ending_of(client, bomb) if bomb.ends is not None else None
        if ended != bomb.ends:
            stage.faults.append(f"{name} ends with {ended}, not {bomb.ends}")
    with RawClient.connect(daemon.port) as other:
        if other.ask(HEALTH).status != 200:  # behind everything that was sent before
            stage.faults.append(f"unhealthy after {name}")
    grown = peak_bytes(pid) - before
    for client in clients:
        client.sock.close()
    return grown / at_once


def ending_of(client: RawClient, bomb: Bomb) -> int | None:
    if not bomb.handshake:
        return client.answer().status
    last = client.frame()
    return last.code if last.opcode == CLOSE else None


def forget_peak(pid: int) -> int:
    """Make the kernel note the peak anew. Returns the resident bytes."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return resident_bytes(pid)


def peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * KIB


def flood(stage: Stage) -> None:
    """HTTP/2: what carries nothing has a budget, and over it the connection ends, alone."""
    authority = Authority(stage.folder)
    daemon = stage.daemon(stage.redis().url, environ=authority.issue().environ)
    context = authority.client_context("h2")
    pid = daemon.process.pid
    worst_bytes = worst_seconds = 0.0
    unended = 0
    with Http2Client.connect(daemon.port, context) as healthy:
        healthy.get("/health")
        descriptors = descriptors_of(pid)
        for pieces_of in FLOODS.values():
            with Http2Client.connect(daemon.port, context) as hostile:
                hostile.get("/health")
                before, seconds = forget_peak(pid), cpu_seconds(pid)
                unended += not is_ended_by(hostile, pieces_of(hostile))
                worst_bytes = max(worst_bytes, peak_bytes(pid) - before)
                worst_seconds = max(worst_seconds, cpu_seconds(pid) - seconds)
            if healthy.get("/health").status != 200:
                stage.faults.append("another connection is not served")
        back = seconds_until(lambda: descriptors_of(pid) <= descriptors)
        ended = json.loads(bytes(healthy.get("/api/realtime/stats").data))["tls"]["http2EndedForFlood"]
    stage.at_least("HTTP/2 floods ended for being too much, as the daemon counts them", ended, 10)
    stage.exactly("not ended", unended, 0)
    stage.at_most("their descriptors free after", back, 10, "s")
    stage.at_most("memory growth of a flooding connection, at its peak", worst_bytes / MIB, 2, "MiB")
    stage.at_most("processor time of a flood", worst_seconds, stage.pick(1.0, 3.0), "s")


def is_ended_by(client: Http2Client, pieces: Iterator[bytes]) -> bool:
    while not client.is_closed and (some := b"".join(islice(pieces, 100))):
        client.send(some)
    client.sock.settimeout(5)
    try:
        while client.sock.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except OSError:  # reset, or an end that TLS does not like
        pass
    return True


ROW = Row(
    17,
    "What could grow without bound is not negotiated, and not kept",
    "deflate offered; lengths of 2^63; a million empty fragments; heads of 64 KiB; bodies; floods of HTTP/2 frames; 20 "
    "connections of each at once",
    "no extension negotiated; each is answered 1009, 431 or what fits; memory grows by less than 2 MiB a connection",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
