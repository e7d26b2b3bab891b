"""Row 22: a function that the daemon calls for one client raises: at every place that there is, one after the other.

Beside that client, the victim, are followers over every protocol, and a service publishes all the while. Which
functions there are the daemon's code says (`hooks.py`): one that is new has to be in `places.py`.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

from tests.access.visitor import SECRET, authorization, token
from tests.actors.audience import audience, catch_up, listening
from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import CLOSE, TEXT, RawClient, head, upgrade, wait_until
from tests.actors.redis_server import RedisServer
from tests.actors.service import Service
from tests.actors.tampered import VICTIM, Tampered
from tests.faults.hooks import hooks
from tests.faults.places import ALLOWED, ANSWERED, CUT_OFF, FAREWELL, KEPT, PLACES, PLAIN, TOLD, UNTRIED, Place
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.promise.oracle import STAMPED, Truth

FLAGS = (
    *("--type", "kept.history_length=10000", "--type", "kept.history_seconds=600"),
    *("--type", "slow.slow_clients=latest"),
    *("--rules-anonymous-subscribe", "*", "--rules-user-subscribe", "*", "--rules-user-publish", "*"),
    *("--websocket-ping-seconds", "0.2", "--sse-keep-alive-seconds", "0.2", "--limits-connections-per-user", "1000"),
    *("--clients-farewell-seconds", "0.5"),
)
NO_RECORDER = "Redis does not let plain PUBLISHes be recorded"  # it would want to listen to all channels
BEFORE_IT_IS_A_CLIENT = ("request failed", "connection failed")
OF_A_CLIENT = ("client failed", "client failed while it left")
ERRORS = (*OF_A_CLIENT, *BEFORE_IT_IS_A_CLIENT)
FAULTS_MAX = 3  # each takes its seconds, and more would say no more
ADMIN = token("ops", seconds=3600, broker_admin=True)


def play(stage: Stage) -> None:
    redis = stage.redis()
    with redis.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "resetchannels", *(f"&{name}:*" for name in ALLOWED))
    tampered = Tampered(stage.folder / "tamper")
    secret = {"BROKER_AUTH_SECRET": SECRET}
    daemon = stage.daemon(
        redis.url, *FLAGS, environ=secret, under=tampered.under, expected_errors=(*ERRORS, NO_RECORDER)
    )
    truths = {channel: Truth({STAMPED: 0}) for channel in (*KEPT, PLAIN)}
    others = audience(truths, daemon.port, resumable=KEPT)
    service = Service(redis, truths, rate=stage.pick(300, 150), seed=stage.dice.getrandbits(30))
    service.start()
    places = list(PLACES) * stage.pick(10, 1)
    stage.dice.shuffle(places)
    raised = list[str]()
    within_seconds = stage.pick(5.0, 10.0)  # at small size others have the processors too
    with listening(others):
        for place in places:
            fault = ""
            with tampered.raising(place.name, times=1 if place.is_shared else None):
                try:
                    fault = tried(place, daemon, redis, within_seconds)
                except Exception as error:
                    fault = f"{type(error).__name__}: {error}"
                raised += [place.name] * (tampered.raised > 0)
            if fault:
                stage.faults.append(f"{place.name} for {place.path} {place.says!r:.80}: {fault}")
                if len(stage.faults) == FAULTS_MAX:
                    break
    service.end()
    stage.faults += catch_up(others)
    disturbed = [each for each in others if each.faults(is_end=True) or each.gaps() or each.endings]
    stage.at_least("events that others had meanwhile", service.published, 100)
    stage.exactly("others that were disturbed", len(disturbed), 0)
    for each in others:
        each.cut()
    wait_until(lambda: clients_of(daemon) == 0)
    stage.exactly("clients left", clients_of(daemon), 0)
    stage.exactly("subscriptions left", daemon.stats_as(ADMIN)["channels"]["totalSubscriptions"], 0)
    tampered.arm(FAREWELL.name)
    fault = tried(FAREWELL, daemon, redis, within_seconds)
    stage.faults += [f"{FAREWELL.name}: {fault}"] * bool(fault)
    raised += [FAREWELL.name] * (f"Sabotage: {FAREWELL.name}" in daemon.log())
    stage.exactly("times that a function raised", len(raised), len(places) + 1)
    judge_places(stage, set(raised))


def judge_places(stage: Stage, raised: set[str]) -> None:
    """Compare what raised with what the code has."""
    found = hooks()
    has_to = found - UNTRIED.keys()
    stage.exactly("hooks of the code that raised", len(found & raised), len(has_to))
    stage.at_least("functions that raised, with what is behind the hooks", len(raised), len(has_to))
    stage.faults += [f"{name} did not raise: is it in places.py?" for name in sorted(has_to - raised)]
    stage.faults += [f"{name} is in UNTRIED, and not in the code" for name in sorted(UNTRIED.keys() - found)]


def tried(place: Place, daemon: DaemonProcess, redis: RedisServer, within_seconds: float) -> str:
    """Have the function raise for a client. Returns what was not as promised."""
    known = len(errors_of(daemon))
    end = end_of_victim(place, daemon, redis, within_seconds)
    if end == place.end:
        wait_until(lambda: len(errors_of(daemon)) > known, within_seconds)
    lines = errors_of(daemon)[known:]
    if end != place.end:
        return f"{end}, not {place.end}; the log says {lines}"
    if len(lines) != 1 or lines[0]["event"] not in (BEFORE_IT_IS_A_CLIENT if place.has_no_client else OF_A_CLIENT):
        return f"in the log, instead of one line: {lines}"
    if not place.has_no_client and not lines[0]["client"].startswith(("ws_", "sse_")):
        return f"in the log, without the client's id: {lines}"
    return ""


def end_of_victim(place: Place, daemon: DaemonProcess, redis: RedisServer, within_seconds: float) -> str:
    """Connect as the victim, do what the place wants, and read to the end."""
    bearer = [authorization(token(VICTIM))] if place.is_known else []
    with RawClient.connect(daemon.port, receive_buffer=4096 if place.is_slow else 0) as victim:
        victim.sock.settimeout(within_seconds)
        path = f"{place.path}{'&' if '?' in place.path else '?'}userId={VICTIM}".encode()
        if place.path == "/ws":
            victim.send(upgrade(path, *bearer, b"Sec-WebSocket-Protocol: broker.v1"))
        elif place.body is not None:
            size = b"Content-Length: %d" % len(place.body)
            victim.send(head(b"POST %b HTTP/1.1" % path, size, b"Content-Type: application/json", *bearer) + place.body)
        else:
            victim.send(head(b"GET %b HTTP/1.1" % path, *bearer))
        try:
            status = victim.answer().status
        except EOFError:
            return CUT_OFF
        if status == 500:
            return ANSWERED
        victim.send(b"".join(place.says))
        wrong = ""
        if place is FAREWELL:
            _wait_live(victim, is_socket=True)
            wrong = _stop(daemon)
        elif place.gets is not None:
            _wait_live(victim, is_socket=place.path == "/ws")
            wrong = _publish(place, daemon, redis, bearer, within_seconds)
        with _bounded(victim, within_seconds) as over:
            end = _end_of_stream(victim) if place.path != "/ws" else _end_of_socket(victim)
            is_late = not over.is_alive()
        return wrong or (f"not ended within {within_seconds:g} s" if is_late else end)


@contextmanager
def _bounded(client: RawClient, within_seconds: float) -> Iterator[Timer]:
    """Heartbeats would keep a connection alive for ever that is not ended, or is not told what it waits for."""
    over = Timer(within_seconds, client.finish)
    over.start()
    try:
        yield over
    finally:
        over.cancel()


def _publish(
    place: Place, daemon: DaemonProcess, redis: RedisServer, bearer: list[bytes], within_seconds: float
) -> str:
    """Publish what the place wants. Returns what somebody else of the victim's user did not get of it."""
    assert place.gets is not None
    channel, payloads = place.gets
    if not place.is_shared:
        redis.publish(channel, *payloads)
        if place.is_slow:
            wait_until(lambda: daemon.stats_as(ADMIN)["delivery"]["slow"]["now"])
        return ""
    with RawClient.websocket(daemon.port, b"/ws", *bearer) as other, _bounded(other, within_seconds):
        redis.publish(channel, *payloads)
        try:
            other.read_until(b'"to-user"')
        except EOFError:
            return "somebody else of the user was not told"
    return ""


def _stop(daemon: DaemonProcess) -> str:
    """Stop the daemon. Returns what others were not told, or that it did not end well."""
    with (
        RawClient.websocket(daemon.port) as socket,
        RawClient.stream(daemon.port, f"/api/stream?channel={PLAIN}") as it,
    ):
        daemon.process.send_signal(signal.SIGTERM)
        frames, last = socket.frames(), it.read_to_end()
    kinds = [each.json()["type"] for each in frames if each.opcode == TEXT]
    if "disconnected" not in kinds or frames[-1].opcode != CLOSE or frames[-1].code != 1012:
        return f"another WebSocket was not told that the daemon stops: {frames}"
    if b'"server_shutdown"' not in last or not last.endswith(b"0\r\n\r\n"):
        return f"a stream was not told that the daemon stops: {last!r}"
    status = daemon.process.wait(30)
    return f"the daemon ended with status {status}" if status else ""


def _wait_live(victim: RawClient, *, is_socket: bool) -> None:
    if not is_socket:
        victim.read_until(b'"connected"')
        return
    while (got := victim.frame()).opcode != TEXT or got.json()["type"] != "subscribed":
        pass


def _end_of_socket(victim: RawClient) -> str:
    try:
        last = victim.frames()[-1:]
    except EOFError:
        return CUT_OFF
    if last and last[0].opcode == CLOSE:
        return f"closed with {last[0].code}" if last[0].code != 1000 else CUT_OFF
    return CUT_OFF


def _end_of_stream(victim: RawClient) -> str:
    data = victim.read_to_end()
    if not data.endswith(b"0\r\n\r\n"):
        return CUT_OFF
    return TOLD if b'event: error\ndata: {"type":"error","error":"internal error' in data else "ended without a word"


def errors_of(daemon: DaemonProcess) -> list[dict[str, Any]]:
    return [entry for entry in map(json.loads, daemon.log().splitlines()) if entry["event"] in ERRORS]


def clients_of(daemon: DaemonProcess) -> int:
    stats = daemon.stats_as(ADMIN)
    return int(stats["websocket"]["totalConnections"] + stats["sse"]["totalConnections"])


ROW = Row(
    22,
    "A handler that fails ends its own connection, with 1011, and nobody else's",
    "an exception raised from every hook and callback, while others receive",
    "that connection ends with 1011 (500, or an error event and the end of the stream); others see nothing",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
