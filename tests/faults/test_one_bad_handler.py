"""Row 22: a function that the daemon calls for one client raises: at every place that there is, one after the other.

Beside that client, the victim, are followers over every protocol, and a service publishes all the while.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from threading import Timer
from typing import Any

from tests.access.visitor import SECRET, authorization, token
from tests.actors.audience import audience, catch_up, listening
from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import CLOSE, TEXT, RawClient, head, upgrade, wait_until
from tests.actors.redis_server import RedisServer
from tests.actors.service import Service
from tests.actors.tampered import VICTIM, Tampered
from tests.faults.places import ALLOWED, ANSWERED, CUT_OFF, KEPT, PLACES, PLAIN, TOLD, Place
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
ERRORS = ("client failed", "client failed while it left", *BEFORE_IT_IS_A_CLIENT)
FAULTS_MAX = 3  # each takes its seconds, and more would say no more
ADMIN = token("ops", seconds=3600, broker_admin=True)
_END_SECONDS = 5.0


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
    raised = 0
    with listening(others):
        for place in places:
            fault = ""
            with tampered.raising(place.name):
                try:
                    fault = tried(place, daemon, redis)
                except Exception as error:
                    fault = f"{type(error).__name__}: {error}"
                raised += tampered.raised > 0
            if fault:
                stage.faults.append(f"{place.name} for {place.path} {place.says!r:.80}: {fault}")
                if len(stage.faults) == FAULTS_MAX:
                    break
    service.end()
    stage.faults += catch_up(others)
    disturbed = [each for each in others if each.faults(is_end=True) or each.gaps() or each.endings]
    stage.exactly("times that a function raised", raised, len(places))
    stage.exactly("functions", len(set(places)), len(PLACES))
    stage.at_least("events that others had meanwhile", service.published, 100)
    stage.exactly("others that were disturbed", len(disturbed), 0)
    for each in others:
        each.cut()
    wait_until(lambda: clients_of(daemon) == 0)
    stage.exactly("clients left", clients_of(daemon), 0)
    stage.exactly("subscriptions left", daemon.stats_as(ADMIN)["channels"]["totalSubscriptions"], 0)


def tried(place: Place, daemon: DaemonProcess, redis: RedisServer) -> str:
    """Have the function raise for a client. Returns what was not as promised."""
    known = len(errors_of(daemon))
    end = end_of_victim(place, daemon, redis)
    wait_until(lambda: len(errors_of(daemon)) > known, _END_SECONDS)
    lines = errors_of(daemon)[known:]
    if end != place.end:
        return f"{end}, not {place.end}; the log says {lines}"
    if len(lines) != 1 or not (lines[0].get("client") or lines[0]["event"] in BEFORE_IT_IS_A_CLIENT):
        return f"in the log, instead of a line with the client's id: {lines}"
    return ""


def end_of_victim(place: Place, daemon: DaemonProcess, redis: RedisServer) -> str:
    """Connect as the victim, do what the place wants, and read to the end."""
    bearer = [authorization(token(VICTIM))] if place.is_known else []
    with RawClient.connect(daemon.port, receive_buffer=4096 if place.is_slow else 0) as victim:
        victim.sock.settimeout(_END_SECONDS)
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
        if place.path == "/ws":
            victim.send(b"".join(place.says))
        if place.gets is not None:
            channel, payloads = place.gets
            _wait_live(victim, is_socket=place.path == "/ws")
            redis.publish(channel, *payloads)
            if place.is_slow:
                wait_until(lambda: daemon.stats_as(ADMIN)["delivery"]["slow"]["now"])
        # Heartbeats would keep a connection that is not ended alive for ever.
        over = Timer(_END_SECONDS, victim.finish)
        over.start()
        end = _end_of_stream(victim) if place.path != "/ws" else _end_of_socket(victim)
        is_late = not over.is_alive()
        over.cancel()
        return f"not ended within {_END_SECONDS:g} s" if is_late else end


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
