"""Row 15: clients that are there no more, and have closed nothing: dropped in time, and their place is somebody else's.

One never answers its pings, one is behind a wire that loses everything, and two, a WebSocket and a stream, are on
another machine whose cable is pulled out.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from threading import Event, Thread

from tests.access.visitor import SECRET, authorization, token
from tests.actors.daemon_process import DaemonProcess
from tests.actors.far_machine import FarMachine, NoFarMachine
from tests.actors.raw_client import PING, PONG, RawClient, frame, head, upgrade
from tests.actors.redis_server import free_port
from tests.faults.row import Row
from tests.faults.stage import Stage

ADMIN = token("ops", seconds=3600, broker_admin=True)
BEARER = authorization(token("ann", seconds=3600))
STREAM = head(b"GET /api/stream?channel=plain:1 HTTP/1.1", BEARER)
LIMIT = "--limits-connections-per-user"
FAREWELL_SECONDS = 0.5


def play(stage: Stage) -> None:
    # At full size the daemon's defaults.
    # Small, it is played beside many others: who answers has to have the time for it.
    ping, silence, keep_alive, dead = stage.pick((30.0, 60.0, 15.0, 90.0), (0.3, 2.0, 0.3, 1.5))
    slack_seconds = stage.pick(0.5, 3.0)
    flags = (
        *("--websocket-ping-seconds", str(ping), "--websocket-silence-seconds", str(silence)),
        *("--sse-keep-alive-seconds", str(keep_alive), "--listen-dead-seconds", str(dead)),
        *stage.pick((), ("--clients-patience-seconds", "1")),  # less than that
        *("--clients-farewell-seconds", str(FAREWELL_SECONDS), "--rules-user-subscribe", "*"),
    )
    with ExitStack() as stack:
        far: FarMachine | None = FarMachine()
        port = free_port()
        try:
            assert far is not None
            stack.enter_context(far)
            flags += ("--listen", f"{far.near_address}:{port}")
        except NoFarMachine as why:
            far, stage.note = None, f"without the cable that is pulled out: {why}"
        dying = 4 if far is not None else 2
        redis = stage.redis()
        secret = {"BROKER_AUTH_SECRET": SECRET}
        daemon = stage.daemon(redis.url, *flags, LIMIT, str(dying + 1), environ=secret)
        proxy = stage.proxy(daemon.port)

        lively = stack.enter_context(socket_on(RawClient.connect(daemon.port)))
        quiet = stack.enter_context(socket_on(RawClient.connect(daemon.port)))  # it never answers
        stack.enter_context(socket_on(RawClient.connect(proxy.port)))
        if far is not None:
            stack.enter_context(socket_on(RawClient(far.connect(port))))
            stream = stack.enter_context(RawClient(far.connect(port)))
            stream.send(STREAM)
            stream.read_until(b'"connected"')
        with RawClient.connect(daemon.port) as refused:
            stage.exactly("answer to one more, while they count", refused.ask(upgrade(b"/ws", BEARER)).status, 429)
        over, failures = Event(), list[Exception]()
        answering = Thread(target=answer_pings, args=(lively, over, failures), daemon=True)
        answering.start()
        proxy.lose()
        if far is not None:
            far.pull_out()
        cut_at = time.monotonic()
        gone_at = {"websocket": math.inf, "sse": math.inf}
        deadline = cut_at + ping + silence + keep_alive + dead + 10
        while not all(map(math.isfinite, gone_at.values())) and time.monotonic() < deadline:
            for kind, left in (("websocket", 1), ("sse", 0)):
                if math.isinf(gone_at[kind]) and connections(daemon, kind) == left:
                    gone_at[kind] = time.monotonic()
            time.sleep(stage.pick(0.2, 0.05))
        most = ping + silence + FAREWELL_SECONDS + slack_seconds  # nobody takes its goodbye
        stage.at_most("WebSockets gone after", gone_at["websocket"] - cut_at, most, "s")
        told = quiet.frames()[-1].payload if math.isfinite(gone_at["websocket"]) else b""
        stage.exactly("close code of who never answers", int.from_bytes(told[:2], "big"), 1001)
        if told[2:] != b"no pong and no message in time":
            stage.faults.append(f"it was told {told!r}")
        if far is not None:
            # The kernel looks whenever it sends once more, so up to a second late; and then it is asked for here.
            stage.at_most(
                "the stream gone after", gone_at["sse"] - cut_at, keep_alive + dead + 1.5 + slack_seconds, "s"
            )
        endings = daemon.stats_as(ADMIN)["delivery"]["endings"]
        stage.exactly("dropped", sum(endings.get(name, 0) for name in ("silent", "vanished")), dying)
        taken = [stack.enter_context(socket_on(RawClient.connect(daemon.port))) for _ in range(dying)]
        stage.exactly("places that others could take", len(taken), dying)
        over.set()
        lively.send(frame(PING, b"over"))  # whose answer ends the wait for the daemon's next ping
        answering.join()
        stage.exactly("clients dropped that answered", len(failures), 0)


def socket_on(client: RawClient) -> RawClient:
    """A WebSocket that has been greeted."""
    client.send(upgrade(b"/ws", BEARER))
    client.expect_upgrade()
    assert client.frame().json()["type"] == "connected"
    return client


def answer_pings(client: RawClient, over: Event, failures: list[Exception]) -> None:
    client.sock.settimeout(120)
    try:
        while not over.is_set():
            got = client.frame()
            if got.opcode == PING:
                client.send(frame(PONG, got.payload))
    except Exception as error:
        failures.append(error)


def connections(daemon: DaemonProcess, kind: str) -> int:
    return int(daemon.stats_as(ADMIN)[kind]["totalConnections"])


ROW = Row(
    15,
    "Who is gone without a word is found, and its place is free again",
    "a client that never pongs; a wire that loses everything; a link taken down; the default settings, but for "
    "clients.farewell_seconds, which is 0.5",
    "dropped within ping interval + timeout, slot freed",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
