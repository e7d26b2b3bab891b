"""What tokens, rules and API keys allow: over WebSocket, SSE and HTTP, and how it is explained."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from broker.auth.apikey import line_of, new_key
from tests.access.conftest import Guard
from tests.access.visitor import bearer, streaming, talking, token
from tests.actors.daemon_process import DaemonProcess

EVENT = {"type": "note", "timestamp": "2026-01-01T00:00:00.000Z", "n": 1}


def post(daemon: DaemonProcess, path: str, body: Any, text: str | None) -> httpx.Response:
    return httpx.post(f"{daemon.url}/api/{path}", content=json.dumps(body), headers=bearer(text))


def explain(daemon: DaemonProcess, text: str | None, action: str, channel: str) -> Any:
    query = {"action": action, "channel": channel}
    return httpx.get(f"{daemon.url}/api/realtime/explain", params=query, headers=bearer(text)).json()


def test_claims_say_where_a_user_may_subscribe(guarded: DaemonProcess) -> None:
    text = token("ann", subscribe=["job_progress:*", "alerts:{sub}"])
    allowed = {"job_progress:1": True, "job_progress:1:ann": True, "job_progress:1:bob": False, "alerts:ann": True}
    allowed |= {"alerts:bob": False, "note:ann": False, "broker:control": False, "broker:users": False}
    with talking(guarded.ws_url, additional_headers=bearer(text)) as talker:
        found = {name: talker.subscribe(name)["type"] == "subscribed" for name in allowed}
        assert found == allowed
        # An id that is said to be a user's is that user's, whatever the name looks like.
        assert talker.subscribe({"type": "job_progress", "userId": "bob"})["code"] == "forbidden"
    for name, is_allowed in allowed.items():
        with streaming(f"{guarded.url}/api/stream?channel={name}", bearer(text)) as source:
            assert source.response.status_code == (200 if is_allowed else 403), name
        assert explain(guarded, text, "subscribe", name)["allowed"] is is_allowed


def test_rules_of_the_settings_hold_where_a_token_says_nothing(guard: Guard) -> None:
    daemon = guard("--rules-user-subscribe", "job:*", "--rules-anonymous-subscribe", "public:*")
    with talking(daemon.ws_url, additional_headers=bearer(token("ann"))) as user, talking(daemon.ws_url) as nobody:
        assert user.subscribe("job:1")["type"] == "subscribed"
        assert user.subscribe("public:1")["code"] == "forbidden"
        assert nobody.subscribe("public:1")["type"] == "subscribed"
        answer = nobody.subscribe("job:1")
        assert (answer["code"], answer["message"]) == (
            "forbidden",
            "job:1 is not for you: the setting rules.anonymous_subscribe has no pattern for it (public:*)",
        )
    assert explain(daemon, None, "subscribe", "job:1") == {
        "allowed": False,
        "action": "subscribe",
        "channel": "job:1",
        "rule": "rules.anonymous_subscribe",
        "why": "the setting rules.anonymous_subscribe has no pattern for it (public:*)",
        "owner": None,
        "identity": {"kind": "anonymous", "name": None, "userId": None, "expiresAt": None},
    }


def test_publishing_over_a_websocket_is_off_unless_a_rule_allows_it(guarded: DaemonProcess) -> None:
    with talking(guarded.ws_url, additional_headers=bearer(token("ann", subscribe=["room:*"]))) as listener:
        listener.subscribe("room:1")
        with talking(guarded.ws_url, additional_headers=bearer(token("ann"))) as quiet:
            answer = quiet.ask("publish", "published", channel="room:1", event=EVENT)
            assert answer["code"] == "forbidden"
        with talking(guarded.ws_url, additional_headers=bearer(token("bob", publish=["room:*"]))) as talker:
            for n in range(200):
                talker.say("publish", channel="room:1", event={**EVENT, "n": n})
                if n % 50 == 49:
                    for _ in range(50):
                        assert talker.hear("published", "error") | {"timestamp": ""} == {
                            "type": "published",
                            "channel": "room",
                            "id": "1",
                            "userId": None,
                            "name": "room:1",
                            "success": True,
                            "timestamp": "",
                        }
            assert [listener.hear("note")["n"] for _ in range(200)] == list(range(200))
            assert talker.ask("publish", "published", channel="room:1", event="text")["code"] == "bad_event"
            assert talker.ask("publish", "published", channel="room::", event=EVENT)["code"] == "bad_channel"
            assert talker.ask("publish", "published", channel="broker:users", event=EVENT)["code"] == "forbidden"


def test_without_authentication_nobody_publishes_over_a_websocket_but_by_a_rule(
    daemon: DaemonProcess, start_daemon: Any
) -> None:
    with talking(daemon.ws_url) as talker:
        assert talker.ask("publish", "published", channel="room:1", event=EVENT)["code"] == "forbidden"
    free = start_daemon(daemon.redis_url, "--rules-anonymous-publish", "room:*")
    with talking(free.ws_url) as talker:
        talker.subscribe("room:1")
        assert talker.ask("publish", "published", channel="room:1", event=EVENT)["type"] in ("published", "note")


def test_publishing_over_http_needs_a_right(guard: Guard) -> None:
    service, operator = new_key("render"), new_key("ops")
    daemon = guard(
        "--auth-publish-keys", line_of(service), "--auth-admin-keys", line_of(operator), "--rules-key-publish", "job:*"
    )
    item = {"channel": "job:1", "event": EVENT}
    writer = token("ann", publish=["job:*"])
    statuses = {
        text: post(daemon, "publish", item, text).status_code
        for text in (None, token("ann"), writer, service, operator, service[:-1] + "x")
    }
    assert list(statuses.values()) == [401, 403, 200, 200, 200, 401]
    other = {"channel": "alerts:ann", "event": EVENT}
    assert post(daemon, "publish", other, service).json()["detail"] == (
        "$.channel: the setting rules.key_publish has no pattern for it (job:*)"
    )
    assert post(daemon, "publish", other, operator).status_code == 200
    assert post(daemon, "publish", [item, {"channel": "broker:control", "event": {}}], operator).status_code == 403
    assert service not in daemon.log() and operator not in daemon.log()


@pytest.mark.parametrize("call", ["disconnect", "revoke"])
def test_the_admin_calls_need_the_right(guard: Guard, call: str) -> None:
    service, operator = new_key("render"), new_key("ops")
    daemon = guard("--auth-publish-keys", line_of(service), "--auth-admin-keys", line_of(operator))
    admin = token("root", broker_admin=True)
    asked = (None, token("ann"), service, token("ann", broker_admin="true"), admin, operator)
    assert [post(daemon, f"realtime/{call}", {"user": "zoe"}, text).status_code for text in asked] == [
        401,
        403,
        403,
        401,
        200,
        200,
    ]
    stats = [httpx.get(f"{daemon.url}/api/realtime/stats", headers=bearer(text)).status_code for text in asked]
    assert stats == [401, 403, 403, 401, 200, 200]
    assert httpx.get(f"{daemon.url}/health").status_code == 200
    for wrong in ({}, {"user": 1}, {"user": "a", "client": "b"}, {"users": "a"}, [], {"user": "a\nb"}, {"user": ""}):
        assert post(daemon, f"realtime/{call}", wrong, admin).status_code == 400, wrong


def test_evaluations_go_by_the_rules_too(guarded: DaemonProcess) -> None:
    url = f"{guarded.url}/api/stream/evaluate-creative?creativeId=1&content=x"
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers=bearer(token("ann"))).status_code == 403
    with streaming(url, bearer(token("ann", subscribe=["creative_evaluation:*"]))) as source:
        assert next(source.iter_sse()).json()["type"] == "connected"


def test_a_rule_for_users_reaches_nobody_else(guard: Guard) -> None:
    """Whatever letters the others' ids have."""
    daemon = guard(environ={"BROKER_RULES_USER_PUBLISH": "*,*:*:{sub},user:*,note:*"})
    mine, text = {"user": "7", "event": EVENT}, token("7")
    assert post(daemon, "publish", mine, text).status_code == 200
    for other in ("bob", "google:7", "a:b:7", "a:b:c:7", "7:7"):
        assert post(daemon, "publish", {"user": other, "event": EVENT}, text).status_code == 403, other
        assert post(daemon, "publish", {"user": other, "event": EVENT}, token("svc", publish=["user:*"])).is_success
    assert explain(daemon, text, "publish", "user:bob")["allowed"] is False
    # What only looks like somebody's would be everybody's.
    looks_owned = {"channel": {"type": "note", "userId": "7"}, "event": EVENT}
    assert post(daemon, "publish", looks_owned, text).status_code == 403
    assert post(daemon, "publish", {"channel": {"type": "alerts", "userId": "7"}, "event": EVENT}, text).is_success


def test_each_publisher_has_idempotency_keys_of_its_own(guarded: DaemonProcess) -> None:
    body = json.dumps({"channel": "job:1", "event": EVENT})
    for user in ("ann", "bob", "ann"):
        headers = {**bearer(token(user, publish=["job:*"])), "Idempotency-Key": "k"}
        answer = httpx.post(f"{guarded.url}/api/publish", content=body, headers=headers)
        assert answer.status_code == 200
    assert answer.headers["Idempotency-Replayed"] == "true"
    stats = guarded.stats_as(token("root", broker_admin=True))
    assert (stats["publishing"]["events"], stats["publishing"]["repeated"]) == (2, 1)
