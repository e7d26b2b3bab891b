"""A request with an Idempotency-Key publishes once, whatever happens in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import frames, open_websockets, pump, wait_until
from tests.actors.redis_server import RedisServer
from tests.stories.http_publish.conftest import Special
from tests.stories.http_publish.submitter import (
    ALERT,
    item,
    listening,
    many,
    memories,
    post,
    refusal,
)

StartDaemon = Callable[..., DaemonProcess]
QUICK = ("--redis-ping-timeout-seconds", "0.5", "--redis-connect-seconds", "1", "--redis-backoff-max-seconds", "0.1")


def test_a_retry_with_its_key_publishes_nothing(
    server: RedisServer, daemon: DaemonProcess, other: DaemonProcess
) -> None:
    with listening(server) as ear:
        first = post(daemon, many(3), idempotency_key="one")
        assert (first.json(), "idempotency-replayed" in first.headers) == ({"published": 3}, False)
        for asked in (daemon, other):
            again = post(asked, many(3), idempotency_key="one")
            assert (again.json(), again.headers["idempotency-replayed"]) == ({"published": 3}, "true")
            assert refusal(post(asked, many(4), idempotency_key="one")) == (
                422,
                "this Idempotency-Key was used for another request",
            )
        assert post(other, many(1), idempotency_key="two").json() == {"published": 1}
        assert ear.heard() == [b'{"n":0}', b'{"n":1}', b'{"n":2}', b'{"n":0}']
    with server.client() as client:
        (some, _) = memories(server)
        assert 290_000 < client.pttl(some) <= 300_000
    assert refusal(post(daemon, item(), idempotency_key="a b"))[0] == 400


def test_twenty_at_once_with_one_key_publish_once(
    server: RedisServer, daemon: DaemonProcess, other: DaemonProcess
) -> None:
    with listening(server) as ear, ThreadPoolExecutor(20) as pool:
        daemons = [daemon, other] * 10
        found = list(pool.map(lambda asked: post(asked, many(50), idempotency_key="same"), daemons))
        assert [response.json() for response in found] == [{"published": 50}] * 20
        assert sum("idempotency-replayed" not in response.headers for response in found) == 1
        assert ear.heard() == [b'{"n":%d}' % number for number in range(50)]


def test_redis_away_or_frozen_is_a_503_and_the_retry_publishes_once(
    redis_server: RedisServer, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(redis_server.url, *QUICK)
    assert post(daemon, item(b'{"n":0}')).json() == {"published": 1}
    redis_server.kill()
    keyed, bare = {"idempotency_key": "k"}, dict[str, str]()
    for headers in (keyed, bare):
        response = post(daemon, item(), **headers)
        status, detail = refusal(response)
        assert (status, response.headers["retry-after"]) == (503, "1")
        assert detail.startswith("Redis did not confirm: Redis cannot be reached: "), detail
    redis_server.start()
    with listening(redis_server) as ear:
        for _ in range(3):
            assert post(daemon, item(), **keyed).json() == {"published": 1}
        # Nor did the one without a key wait somewhere.
        assert ear.heard() == [b'{"n":1}']
        # Now it takes the command, and nobody hears the answer.
        redis_server.freeze()
        assert refusal(post(daemon, item(b'{"n":2}'), idempotency_key="other")) == (
            503,
            "Redis did not confirm: Redis did not answer within 0.5 s",
        )
        redis_server.thaw()
        wait_until(lambda: len(memories(redis_server)) == 2)
        again = post(daemon, item(b'{"n":2}'), idempotency_key="other")
        assert (again.json(), again.headers["idempotency-replayed"]) == ({"published": 1}, "true")
        assert ear.heard() == [b'{"n":2}']


def test_a_redis_that_takes_no_writes_publishes_nothing_that_it_cannot_remember(
    server: RedisServer, daemon: DaemonProcess
) -> None:
    """Full, a replica, a broken disk: a retry would publish again."""
    with listening(server) as ear, server.client() as client:
        client.config_set("maxmemory", "1")
        status, detail = refusal(post(daemon, many(2), idempotency_key="k"))
        assert status == 503
        assert detail.startswith("Redis did not confirm: Redis refused a script: OOM command not allowed"), detail
        assert post(daemon, item(b'{"bare":1}')).json() == {"published": 1}
        client.config_set("maxmemory", "0")
        for _ in range(2):
            assert post(daemon, many(2), idempotency_key="k").json() == {"published": 2}
        assert ear.heard() == [b'{"bare":1}', b'{"n":0}', b'{"n":1}']


def test_the_prefix_is_in_front_of_channels_and_keys_and_a_key_is_forgotten_in_its_time(
    server: RedisServer, special: Special
) -> None:
    (ws,) = open_websockets(special.daemon.port, 1, "alerts:1")
    mark = len(ws.raw)
    with listening(server) as ear:
        post(special.daemon, ALERT)
        began = time.monotonic()
        assert "idempotency-replayed" not in post(special.daemon, ALERT, idempotency_key="k").headers
        (key,) = [key for key in memories(server) if key.startswith(b"app:")]
        assert key.startswith(b"app:broker:idempotency:")
        assert "idempotency-replayed" in post(special.daemon, ALERT, idempotency_key="k").headers
        # A repeat does not make it live longer.
        wait_until(lambda: key not in memories(server))
        assert 0.9 < time.monotonic() - began < 2
        assert "idempotency-replayed" not in post(special.daemon, ALERT, idempotency_key="k").headers
        assert ear.heard() == [b'{"n":1}'] * 3
    pump([ws], lambda: len(ws.raw) - mark >= len(frames([b'{"n":1}'] * 3)))
    assert ws.raw[mark:] == frames([b'{"n":1}'] * 3)
