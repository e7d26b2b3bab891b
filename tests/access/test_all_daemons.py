"""What one daemon is asked and all of them do: end connections, revoke tokens, reach a user."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import httpx
import pytest
import redis

from tests.access.conftest import Guard
from tests.access.visitor import bearer, streaming, talking, token
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer

ADMIN = token("root", broker_admin=True, seconds=3600)
EVENT = {"type": "note", "timestamp": "2026-01-01T00:00:00.000Z"}


def ask(daemon: DaemonProcess, path: str, body: Any) -> Any:
    answer = httpx.post(f"{daemon.url}/api/{path}", content=json.dumps(body), headers=bearer(ADMIN))
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def pair(guard: Guard) -> tuple[DaemonProcess, DaemonProcess]:
    return guard(), guard()


def test_an_event_for_a_user_reaches_every_connection_of_theirs(pair: tuple[DaemonProcess, DaemonProcess]) -> None:
    one, other = pair
    ann = bearer(token("ann|1:x"))
    stream = f"{other.url}/api/stream?channel=note:1"
    with (
        talking(one.ws_url, additional_headers=ann) as first,
        talking(other.ws_url, additional_headers=ann, subprotocols=["broker.v1"]) as second,
        talking(other.ws_url, additional_headers=bearer(token("bob"))) as somebody,
        streaming(stream, bearer(token("ann|1:x", subscribe=["note:*"]))) as source,
    ):
        events = source.iter_sse()
        next(events)
        assert ask(one, "publish", [{"user": "ann|1:x", "event": EVENT}]) == {"published": 1}
        assert first.hear("note") == EVENT
        assert second.hear("event") == {"channel": None, "position": None, "event": EVENT}
        assert next(events).json() == EVENT
        assert ask(one, "publish", {"user": "bob", "event": {**EVENT, "last": True}}) == {"published": 1}
        assert somebody.hear("note") == {**EVENT, "last": True}
        assert [each["type"] for each in first.told] == ["connected", "note"]
    for wrong in ({"user": "a\nb"}, {"user": 1}, {"user": "a", "channel": "note:1"}, {}):
        answer = httpx.post(
            f"{one.url}/api/publish", content=json.dumps({**wrong, "event": EVENT}), headers=bearer(ADMIN)
        )
        assert answer.status_code == 400, answer.text


def test_clients_are_disconnected_by_user_id_or_channel(pair: tuple[DaemonProcess, DaemonProcess]) -> None:
    one, other = pair
    with (
        talking(one.ws_url, additional_headers=bearer(token("ann"))) as ann,
        talking(other.ws_url, additional_headers=bearer(token("bob"))) as bob,
        talking(other.ws_url, additional_headers=bearer(token("cid"))) as cid,
        talking(one.ws_url, additional_headers=bearer(token("dan"))) as dan,
        streaming(f"{other.url}/api/stream?channel=job:ann", bearer(token("ann"))) as stream,
    ):
        cid.subscribe("job:cid")
        assert ask(other, "realtime/disconnect", {"user": "ann"}) == {"daemons": 2}
        assert ann.ending() == 4006
        assert [event.event for event in stream.iter_sse()] == ["message", "disconnected"]
        ask(one, "realtime/disconnect", {"client": bob.told[0]["clientId"]})
        assert bob.ending() == 4006
        ask(one, "realtime/disconnect", {"channel": "job:cid"})
        assert cid.ending() == 4006
        assert dan.subscribe("job:dan")["success"] is True


def test_a_revoked_token_ends_everywhere_within_a_second_and_comes_back_nowhere(
    pair: tuple[DaemonProcess, DaemonProcess], guard: Guard
) -> None:
    one, other = pair
    bad, good = token("ann", jti="t1"), token("ann", jti="t2")
    with (
        talking(one.ws_url, additional_headers=bearer(bad)) as first,
        talking(other.ws_url, additional_headers=bearer(bad)) as second,
        talking(other.ws_url, additional_headers=bearer(good)) as third,
    ):
        asked_at = time.monotonic()
        assert ask(one, "realtime/revoke", {"tokenId": "t1"}) == {"daemons": 2}
        assert (first.ending(), second.ending()) == (4403, 4403)
        assert time.monotonic() - asked_at < 1.0
        assert third.subscribe("job:ann")["success"] is True
        # All of ann's tokens that were made by now; who signs in again has another.
        ask(other, "realtime/revoke", {"user": "ann"})
        assert third.ending() == 4403
    late = guard()
    for daemon in (one, other, late):
        for text in (bad, good):
            answer = httpx.get(f"{daemon.url}/api/stream?channel=job:ann", headers=bearer(text))
            assert (answer.status_code, answer.json()["detail"]) == (401, "the token was revoked; get a new one")
        fresh = token("ann", iat=time.time() + 1)
        with talking(daemon.ws_url, additional_headers=bearer(fresh)) as again:
            assert again.subscribe("job:ann")["success"] is True


def test_what_is_revoked_while_a_daemon_has_no_ear_is_found_when_redis_is_back(
    guarded: DaemonProcess, redis_server: RedisServer
) -> None:
    until = time.time() + 100
    with redis.Redis.from_url(redis_server.url) as server:
        # As another daemon says it, but for the PUBLISH, which is lost with the connection.
        server.zadd("broker:revocations", {f"token:{time.time()!r}:t9": until})
        with talking(guarded.ws_url, additional_headers=bearer(token("ann", jti="t9"))) as talker:
            server.client_kill_filter(_type="pubsub")
            assert talker.ending() == 4403


def test_orders_that_make_no_sense_change_nothing(guarded: DaemonProcess, redis_server: RedisServer) -> None:
    with (
        talking(guarded.ws_url, additional_headers=bearer(token("ann"))) as talker,
        redis.Redis.from_url(redis_server.url) as server,
    ):
        server.zadd("broker:revocations", {"what:is:this": time.time() + 100, "x": time.time() + 100})
        for order in (
            '{"do":"revoke","member":"x"}',
            "[]",
            '{"do":1}',
            '{"do":"dance"}',
            "{" * 5000,
            '{"do":"revoke"}',
        ):
            server.publish("broker:control", order)
        for order in ('{"user":1,"event":{}}', '{"user":"ann"}', "1"):
            server.publish("broker:users", order)
        server.publish("broker:users", json.dumps({"user": "ann", "event": EVENT}))
        assert talker.hear("note") == EVENT
    assert guarded.stats_as(ADMIN)["control"]["bad"] == 6


def test_who_was_revoked_while_its_body_trickled_in_does_not_get_in(guarded: DaemonProcess) -> None:
    body = json.dumps({"creativeId": "1", "content": "x"}).encode()
    text = token("ann", jti="slow", subscribe=["creative_evaluation:*"])
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as slow:
        slow.sendall(
            b"POST /api/stream/evaluate-creative HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %b\r\n"
            b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (text.encode(), len(body))
        )
        # It is known who asks before the body is read.
        assert slow.recv(1000).startswith(b"HTTP/1.1 100 ")
        ask(guarded, "realtime/revoke", {"tokenId": "slow"})
        slow.sendall(body)
        assert slow.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_nobody_without_a_right_fills_memory_with_a_body(guarded: DaemonProcess) -> None:
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as stranger:
        stranger.sendall(b"POST /api/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        assert stranger.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_a_revocation_told_between_two_ears_is_found_at_once(guarded: DaemonProcess, redis_server: RedisServer) -> None:
    """The daemon may have read what is revoked before it heard again what others say."""
    with (
        redis.Redis.from_url(redis_server.url) as server,
        talking(guarded.ws_url, additional_headers=bearer(token("ann", jti="t9"))) as talker,
    ):
        talker.subscribe("job:ann")
        for turn in range(3):
            server.client_kill_filter(_type="pubsub")
            if turn == 2:
                server.zadd("broker:revocations", {f"token:{time.time()!r}:t9": time.time() + 100})
        killed_at = time.monotonic()
        assert talker.ending() == 4403
        assert time.monotonic() - killed_at < 5.0
