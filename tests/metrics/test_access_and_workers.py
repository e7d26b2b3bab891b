"""Who may read the metrics, and how those of several workers become one text."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable

import pytest

from broker.auth.apikey import line_of, new_key
from broker.metrics.metrics import merged
from broker.post.siblings import Siblings
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.metrics.scraped import families_of, samples_of, scraped, value

ADMIN, PUBLISHER = new_key("prometheus"), new_key("service")


def answer_of(daemon: DaemonProcess, token: str | None = None) -> int:
    try:
        scraped(daemon, token)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def test_with_authentication_they_are_for_who_administrates(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]
) -> None:
    daemon = start_daemon(
        redis_server.url,
        "--auth-admin-keys",
        line_of(ADMIN),
        "--auth-publish-keys",
        line_of(PUBLISHER),
    )
    assert [answer_of(daemon, token) for token in (None, "wrong", PUBLISHER, ADMIN)] == [401, 401, 403, 200]
    assert value(samples_of(scraped(daemon, ADMIN)), "broker_tokens_refused_total", reason="malformed") == 1


@pytest.mark.parametrize(("http", "status"), [("open", 200), ("off", 403)])
def test_they_can_be_for_everybody_or_nobody(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess], http: str, status: int
) -> None:
    keys = ("--auth-admin-keys", line_of(ADMIN))
    daemon = start_daemon(redis_server.url, *keys, "--metrics-http", http)
    assert answer_of(daemon) == status
    assert answer_of(daemon, ADMIN) == status


ONE = b"""\
# HELP a_total What "a" counts, {x} too.
# TYPE a_total counter
a_total 1.0
# HELP b_seconds How long b takes.
# TYPE b_seconds histogram
b_seconds_bucket{le="0.1"} 2.0
b_seconds_bucket{le="+Inf"} 3.0
b_seconds_count 3.0
b_seconds_sum 1.5
# HELP c By kind.
# TYPE c gauge
c{kind="x}y"} 4.0
c{kind="z"} 5.0
"""
OTHER = ONE.replace(b'c{kind="z"} 5.0\n', b"").replace(b"a_total 1.0", b"a_total 7.0")


def test_the_samples_of_each_worker_are_told_apart() -> None:
    text = merged({1: OTHER, 0: ONE}).decode()
    found = samples_of(text)
    assert value(found, "a_total", worker="0") == 1
    assert value(found, "a_total", worker="1") == 7
    assert value(found, "b_seconds_bucket", worker="1", le="+Inf") == 3
    assert value(found, "c", worker="0", kind="x}y") == 4
    assert value(found, "c", worker="0", kind="z") == 5
    assert len(found) == 2 * 5 + 3
    assert {name: family.type for name, family in families_of(text).items()} == {
        "a_total": "counter",
        "b_seconds": "histogram",
        "c": "gauge",
    }
    assert text.splitlines()[:4] == [
        '# HELP a_total What "a" counts, {x} too.',
        "# TYPE a_total counter",
        'a_total{worker="0"} 1.0',
        'a_total{worker="1"} 7.0',
    ]


async def test_one_process_has_no_siblings() -> None:
    assert await Siblings().ask("/metrics/self") == []
