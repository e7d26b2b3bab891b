"""A Redis that lets the daemon do less than publishing needs."""

from __future__ import annotations

from collections.abc import Callable

from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.stories.http_publish.submitter import item, listening, many, post, refusal

StartDaemon = Callable[..., DaemonProcess]
UNRECORDED = "Redis does not let plain PUBLISHes be recorded"


def limited_url(server: RedisServer, *rules: str) -> str:
    with server.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "limited", "on", ">hunter2", "~*", "+@all", "resetchannels", "&allowed:*", *rules
        )
    return server.url.replace("redis://", "redis://limited:hunter2@")


def test_what_redis_does_not_allow_is_told(server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(limited_url(server))
    daemon.expected_errors.add(UNRECORDED)
    body = b"[%b]" % b",".join([item(channel="allowed:1"), item(channel="forbidden:1"), item(channel="allowed:2")])
    with listening(server) as ear:
        assert refusal(post(daemon, body)) == (
            502,
            "Redis took 2 of 3 events: NOPERM No permissions to access a channel",
        )
        status, detail = refusal(post(daemon, body, idempotency_key="some"))
        assert status == 502
        assert detail.startswith("Redis took 2 of 3 events: "), detail
        assert "No permissions to access a channel" in detail or "ACL failure" in detail
        # The same answer again, word for word, and no event.
        assert refusal(post(daemon, body, idempotency_key="some")) == (status, detail)
        # Of which Redis took nothing is not remembered.
        assert refusal(post(daemon, item(channel="forbidden:1"), idempotency_key="none"))[0] == 502
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "limited", "&forbidden:*")
        assert post(daemon, item(b'{"n":9}', "forbidden:1"), idempotency_key="none").json() == {"published": 1}
        assert ear.heard() == [b'{"n":1}'] * 4 + [b'{"n":9}']
    assert "hunter2" not in daemon.log()


def test_without_scripts_events_are_published_plain_but_for_those_with_a_key(
    redis_server: RedisServer, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(limited_url(redis_server, "-eval", "-evalsha", "&*"))
    daemon.expected_errors.add(UNRECORDED)
    with listening(redis_server) as ear:
        assert post(daemon, many(2)).json() == {"published": 2}
        status, detail = refusal(post(daemon, many(1), idempotency_key="k"))
        assert status == 502
        assert detail.startswith("Redis cannot remember an Idempotency-Key: Redis refused a script: NOPERM "), detail
        assert ear.heard_stamped() == [b'{"n":0}', b'{"n":1}']


def test_what_the_script_alone_may_not_do_is_published_plain(
    redis_server: RedisServer, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(limited_url(redis_server, "-xadd", "&*"))
    body = b"[%b]" % b",".join([item(b'{"n":1}'), item(b'{"n":2}', "note:1"), item(b'{"n":3}')])
    with listening(redis_server) as ear:
        assert post(daemon, body).json() == {"published": 3}
        # The recorder, which may not either, hands them on as not kept.
        heard = [message for message in ear.heard_stamped() if not message.startswith(b"\x01u ")]
    assert sorted(heard) == [b'{"n":1}', b'{"n":2}', b'{"n":3}']
    # Each channel has its order.
    assert heard.index(b'{"n":1}') < heard.index(b'{"n":3}')
