"""How many connections a user may have, and how much one client may say."""

from __future__ import annotations

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.access.conftest import Guard
from tests.access.visitor import bearer, streaming, talking, token

ADMIN = token("root", broker_admin=True, seconds=3600)


def test_connections_of_a_user(guard: Guard) -> None:
    daemon = guard("--limits-connections-per-user", "2", "--limits-streams-per-user", "1")
    ann, stream = bearer(token("ann")), f"{daemon.url}/api/stream?channel=job:ann"
    with talking(daemon.ws_url, additional_headers=ann), talking(daemon.ws_url) as late:
        with streaming(stream, ann) as source:
            events = source.iter_sse()
            next(events)
            answer = httpx.get(stream, headers=ann)
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "5")
            assert "limits.connections_per_user" in answer.json()["detail"]
            with pytest.raises(InvalidStatus) as refused, talking(daemon.ws_url, additional_headers=ann):
                pass
            assert refused.value.response.status_code == 429
            late.say("authenticate", token=token("ann"))
            assert late.ending() == 4429
            with talking(daemon.ws_url, additional_headers=bearer(token("bob"))):
                pass
    hit = daemon.stats_as(ADMIN)["limits"]
    assert (hit["connections_per_user"], hit.get("streams_per_user", 0)) == (3, 0)


def test_streams_of_a_user(guard: Guard) -> None:
    daemon = guard("--limits-streams-per-user", "1")
    ann, stream = bearer(token("ann")), f"{daemon.url}/api/stream?channel=job:ann"
    with streaming(stream, ann) as source:
        events = source.iter_sse()
        next(events)
        answer = httpx.get(stream, headers=ann)
        assert (answer.status_code, "limits.streams_per_user" in answer.json()["detail"]) == (429, True)
        with talking(daemon.ws_url, additional_headers=ann):
            pass
    assert daemon.stats_as(ADMIN)["limits"]["streams_per_user"] == 1


def test_messages_and_pings_of_a_client(guard: Guard) -> None:
    daemon = guard("--limits-commands-per-second", "1", "--limits-commands-burst", "20")
    with talking(daemon.ws_url, additional_headers=bearer(token("ann"))) as talker:
        for _ in range(20):
            assert talker.ask("ping", "pong")["type"] == "pong"
        talker.say("ping")
        assert talker.ending() == 4008
    with talking(daemon.ws_url, additional_headers=bearer(token("ann"))) as talker:
        for _ in range(25):
            talker._connection.ping()
        assert talker.ending() == 4008
    assert daemon.stats_as(ADMIN)["limits"]["commands_per_second"] == 2


def test_tokens_that_do_not_count_and_too_many_that_do(guard: Guard) -> None:
    daemon = guard("--rules-anonymous-subscribe", "public:*")
    with talking(daemon.ws_url) as guesser:
        for _ in range(5):
            assert guesser.ask("authenticate", "authenticated", token="x")["code"] == "bad_token"
        assert guesser.ending() == 4401
    with talking(daemon.ws_url) as renewer:
        for _ in range(10):
            assert renewer.ask("authenticate", "authenticated", token=token("ann"))["type"] == "authenticated"
        renewer.say("authenticate", token=token("ann"))
        assert renewer.ending() == 4008
