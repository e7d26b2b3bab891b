"""/metrics of a daemon that has something to tell."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.metrics.metriclist import METRICS
from broker.timestamp import timestamp
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import SsePeer, close_all, open_websockets, pump, wait_until
from tests.actors.redis_server import RedisServer
from tests.metrics.scraped import Samples, families_of, samples_of, scraped, value

LABELS = {
    "ending",
    "kind",
    "le",
    "limit",
    "policy",
    "reason",
    "status",
    "transport",
    "version",
}


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DaemonProcess, RedisServer]]:
    folder = tmp_path_factory.mktemp("metrics")
    server = RedisServer(folder)
    server.start()
    daemon = DaemonProcess(server.url, folder / "daemon.log", ("--log-format", "json", "--redis-ping-seconds", "0.2"))
    daemon.start()
    yield daemon, server
    close_all()
    daemon.stop()
    server.kill()


def now(daemon: DaemonProcess) -> Samples:
    return samples_of(scraped(daemon))


def test_every_metric_of_the_list_is_there_with_its_kind_and_nothing_else(
    busy: tuple[DaemonProcess, RedisServer],
) -> None:
    found = families_of(scraped(busy[0]))
    without_tls = [each for each in METRICS if "tls" not in each.name and "http2" not in each.name]
    # Known once Redis has answered a PING.
    assert {name: family.type for name, family in found.items() if name != "broker_redis_lag_seconds"} == {
        each.name: each.kind for each in without_tls if each.name != "broker_redis_lag_seconds"
    }
    assert {name: family.documentation for name, family in found.items()} == {
        each.name: each.meaning for each in without_tls if each.name in found
    }


def test_what_happens_is_counted(busy: tuple[DaemonProcess, RedisServer]) -> None:
    daemon, server = busy
    before = now(daemon)

    def grown(name: str, **labels: str) -> float:
        return value(now(daemon), name, **labels) - value(before, name, **labels)

    websockets = open_websockets(daemon.port, 2, "metric:secret_channel")
    stream = SsePeer(daemon.port, "metric:secret_channel", "metric:other")
    pump([stream], lambda: stream.is_open)
    assert grown("broker_clients", transport="websocket") == 2
    assert grown("broker_clients", transport="sse") == 1
    assert (grown("broker_subscriptions"), grown("broker_channels")) == (4, 2)
    assert value(now(daemon), "broker_subscriptions") == daemon.stats()["channels"]["totalSubscriptions"]
    # One by one, with a clock that is right: each may be looked at for its age.
    for number in range(3):
        event = {"type": "x", "number": number, "timestamp": timestamp(time.time())}
        server.publish("metric:secret_channel", json.dumps(event).encode())
        time.sleep(0.06)
    server.publish("metric:secret_channel", b"not JSON")
    pump([*websockets, stream], lambda: all(b'"number": 2' in peer.raw for peer in (*websockets, stream)))
    wait_until(lambda: grown("broker_redis_messages_refused_total", reason="not_json") == 1.0)
    assert grown("broker_events_total") == 3
    assert grown("broker_deliveries_total", transport="websocket") == 6
    assert grown("broker_deliveries_total", transport="sse") == 3
    size = len(json.dumps({"type": "x", "number": 0, "timestamp": timestamp(0.0)}))
    assert grown("broker_delivered_bytes_total", transport="websocket") == 6 * (size + 2)
    assert grown("broker_event_age_seconds_count") == 3
    assert 0 <= grown("broker_event_age_seconds_sum") < 3
    assert grown("broker_encode_seconds_count") == 3
    assert grown("broker_dispatch_seconds_count") >= 4
    wait_until(lambda: grown("broker_loop_lag_seconds_count") >= 2)
    wait_until(lambda: grown("broker_redis_answer_seconds_count") >= 1)
    assert 0 < value(now(daemon), "broker_redis_lag_seconds") < 1
    websockets[0].send_close()
    websockets[1].close()
    stream.close()
    wait_until(lambda: grown("broker_clients", transport="websocket") == 0)
    wait_until(lambda: grown("broker_clients", transport="sse") == 0)
    assert grown("broker_endings_total", ending="left") >= 1
    assert (grown("broker_subscriptions"), grown("broker_slow_clients")) == (0, 0)
    assert daemon.log().count('"level":"error"') == 0


def test_nothing_in_it_comes_from_a_client_a_channel_or_a_user(busy: tuple[DaemonProcess, RedisServer]) -> None:
    daemon, _ = busy
    open_websockets(daemon.port, 1, "metric:secret_channel:secret_user")
    text = scraped(daemon)
    assert "secret" not in text
    assert "127.0.0.1" not in text
    assert {label for _, labels in samples_of(text) for label, _ in labels} <= LABELS


def test_publishing_and_refusals_are_counted(busy: tuple[DaemonProcess, RedisServer]) -> None:
    daemon, _ = busy
    before = now(daemon)
    body = json.dumps({"channel": "metric:1", "event": {"type": "x"}}).encode()
    urllib.request.urlopen(daemon.url + "/api/publish", body, timeout=5).close()
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(daemon.url + "/api/publish", b"{", timeout=5)
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(daemon.url + "/api/stream?channel=a%20b", timeout=5)
    after = now(daemon)

    def grown(name: str, **labels: str) -> float:
        key = name, frozenset(labels.items())
        return after[key] - before.get(key, 0.0)

    assert (grown("broker_publish_requests_total"), grown("broker_published_events_total")) == (2, 1)
    assert grown("broker_publish_refused_total", status="400") == 1
    assert grown("broker_requests_refused_total", status="400") == 1


def test_redis_that_goes_is_told_with_its_seconds(busy: tuple[DaemonProcess, RedisServer]) -> None:
    daemon, server = busy
    before = now(daemon)
    assert value(before, "broker_redis_connected") == 1
    # So that the link has something to lose.
    (client,) = open_websockets(daemon.port, 1, "metric:away")
    server.kill()
    wait_until(lambda: value(now(daemon), "broker_redis_connected") == 0)
    away = value(now(daemon), "broker_redis_away_seconds_total")
    wait_until(lambda: value(now(daemon), "broker_redis_away_seconds_total") > away)
    server.start()
    wait_until(lambda: value(now(daemon), "broker_redis_connected") == 1)
    after = now(daemon)
    assert value(after, "broker_redis_outages_total") - value(before, "broker_redis_outages_total") == 1
    grown = value(after, "broker_redis_away_seconds_total") - value(before, "broker_redis_away_seconds_total")
    assert 0.05 < grown < 10
    wait_until(lambda: value(now(daemon), "broker_gaps_total", reason="redis_away") >= 1)
    client.close()


def test_the_process_is_as_the_kernel_says(busy: tuple[DaemonProcess, RedisServer]) -> None:
    daemon, _ = busy
    pid = daemon.process.pid
    found = now(daemon)
    assert 0.1 < value(found, "process_cpu_seconds_total") < 100
    statm = Path(f"/proc/{pid}/statm").read_text().split()
    resident = int(statm[1]) * os.sysconf("SC_PAGE_SIZE")
    assert abs(value(found, "process_resident_memory_bytes") - resident) < 4 * 1024 * 1024
    # The scrape's own connection is one of them, or just gone.
    assert abs(value(found, "process_open_fds") - len(list(Path(f"/proc/{pid}/fd").iterdir()))) <= 2
    assert 0 <= time.time() - value(found, "process_start_time_seconds") < 120
    wait_until(lambda: value(now(daemon), "broker_tasks") > 5)
