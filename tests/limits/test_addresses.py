"""Limits by IP address, on real daemons: what is answered, to whom, and for how long."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import trustme

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import RawClient, head, text, upgrade, wait_until
from tests.actors.redis_server import RedisServer
from tests.actors.refusal import assert_refusal

StartDaemon = Callable[..., DaemonProcess]
HEALTH = head(b"GET /health HTTP/1.1")
LIMITED = "--limits-loopback=limited"
AT_ONCE = 32


def over(limit: str, seconds: int) -> dict[str, str]:
    return {
        "error": "Too Many Requests",
        "detail": f"your address has reached limits.{limit}",
        "hint": f"Try again in {seconds} s, and keep connections open instead of opening new ones.",
    }


def test_so_many_connections_of_one_address(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(redis_server.url, LIMITED, "--limits-connections-per-ip=3")
    with ExitStack() as stack:
        asker = stack.enter_context(RawClient.connect(daemon.port))
        assert asker.ask(HEALTH).status == 200
        inside = [stack.enter_context(RawClient.websocket(daemon.port)) for _ in range(2)]
        for _ in range(3):
            with RawClient.connect(daemon.port) as client:
                answer = assert_refusal(client.answer(), 429)
                assert (answer.json(), answer.headers["retry-after"]) == (over("connections_per_ip", 5), "5")
        # Who takes an answer and does not leave takes one of few places; the others are closed without a word.
        crowd = [stack.enter_context(RawClient.connect(daemon.port)) for _ in range(AT_ONCE + 20)]
        words = [client.read_to_end() for client in crowd]
        assert AT_ONCE - 3 <= sum(map(bool, words)) < len(crowd)
        assert all(word == b"" or word.startswith(b"HTTP/1.1 429 ") for word in words)
        inside[0].send(text({"type": "ping"}))
        assert inside[0].frame().json()["type"] == "pong"
        inside.pop().sock.close()

        def health() -> bool:
            with RawClient.connect(daemon.port) as client:
                try:
                    return client.ask(HEALTH).status == 200
                except (EOFError, OSError):  # nobody told it yet that one has left
                    return False

        wait_until(health)
        counts = asker.ask(head(b"GET /api/realtime/stats HTTP/1.1")).json()["connections"]
        assert counts["refusedByLimit"]["connections_per_ip"] >= 3 + len(crowd)
        assert (counts["open"] <= 3, counts["failed"]) == (True, 0)
    warned = [line for line in map(json.loads, daemon.log().splitlines()) if line["level"] == "warning"]
    assert {(line["event"], line["limit"], line["address"]) for line in warned} == {
        ("an address is over its limit", "connections_per_ip", "127.0.0.1")
    }
    assert len(warned) <= 5


def test_so_many_new_connections_a_second(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(
        redis_server.url, LIMITED, "--limits-connects-per-second-per-ip=0.1", "--limits-connects-burst-per-ip=2"
    )
    with RawClient.connect(daemon.port) as kept:
        assert kept.ask(HEALTH).status == 200
        with RawClient.websocket(daemon.port):
            pass
        with RawClient.connect(daemon.port) as client:
            answer = assert_refusal(client.answer(), 429)
            seconds = int(answer.headers["retry-after"])
            assert 8 <= seconds <= 10
            assert answer.json() == over("connects_per_second_per_ip", seconds)
        for _ in range(20):
            assert kept.ask(HEALTH).status == 200
        counts = kept.ask(head(b"GET /api/realtime/stats HTTP/1.1")).json()["connections"]
    assert counts["refusedByLimit"] == {"connects_per_second_per_ip": 1}


def test_this_machine_is_exempt(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(
        redis_server.url,
        "--limits-connections-per-ip=1",
        "--limits-connects-per-second-per-ip=0.1",
        "--limits-connects-burst-per-ip=1",
    )
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(RawClient.websocket(daemon.port))
    assert daemon.stats()["connections"]["refusedByLimit"] == {}


def test_where_there_is_tls_the_connection_is_closed_without_a_handshake(
    redis_server: RedisServer, start_daemon: StartDaemon, tmp_path: Path
) -> None:
    certificate = tmp_path / "server.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    daemon = start_daemon(
        redis_server.url, LIMITED, "--limits-connections-per-ip=1", f"--listen-tls-certificate={certificate}"
    )
    with RawClient.connect(daemon.port), RawClient.connect(daemon.port) as client:
        assert client.read_to_end() == b""


def forwarded(address: str, path: bytes = b"/health", *lines: bytes) -> bytes:
    return head(b"GET %b HTTP/1.1" % path, b"X-Forwarded-For: " + address.encode(), *lines)


def test_behind_a_proxy_each_request_counts_for_its_client(
    redis_server: RedisServer, start_daemon: StartDaemon
) -> None:
    daemon = start_daemon(
        redis_server.url, "--listen-trusted-proxies=127.0.0.0/8", "--limits-connections-per-ip=1", "--log-requests=on"
    )
    with RawClient.connect(daemon.port) as first, RawClient.connect(daemon.port) as proxy:
        first.send(upgrade(b"/ws", b"X-Forwarded-For: 203.0.113.9, 198.51.100.7"))
        first.expect_upgrade()
        # One connection of the proxy carries the requests of many.
        for number in range(8, 14):
            assert proxy.ask(forwarded(f"198.51.100.{number}")).status == 200
        answer = assert_refusal(proxy.ask(forwarded("198.51.100.7")), 429)
        assert answer.json() == over("connections_per_ip", 5)
        with RawClient.connect(daemon.port) as stream, RawClient.connect(daemon.port) as other:
            stream.send(forwarded("[2001:db8::7]:4711", b"/api/stream?channel=a:1"))
            assert stream.answer().status == 200
            assert other.ask(forwarded("2001:db8::8")).status == 429
    wait_until(lambda: daemon.stats()["connections"]["open"] == 1)
    with RawClient.connect(daemon.port) as proxy:
        assert proxy.ask(forwarded("198.51.100.7")).status == 200
        assert proxy.ask(forwarded("2001:db8::8")).status == 200
        assert proxy.ask(HEALTH).status == 200
    assert daemon.stats()["connections"]["refusedByLimit"] == {"connections_per_ip": 2}
    wait_until(lambda: "/api/realtime/stats" in daemon.log())
    lines = [json.loads(line) for line in daemon.log().splitlines()]
    asked = [(line["client"], line["outcome"]) for line in lines if line["event"] == "request"]
    assert [each for each in asked if each[0] == "198.51.100.7" and each[1] in ("200", "429")] == [
        ("198.51.100.7", "429"),
        ("198.51.100.7", "200"),
    ]
    assert [outcome for client, outcome in asked if client == "127.0.0.1"][-1] == "200"


def test_what_strangers_say_of_themselves_is_not_heard(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(redis_server.url, "--listen-trusted-proxies=192.0.2.1", "--log-requests=on")
    lines = (b"Forwarded: for=198.51.100.7;proto=https", b"X-Forwarded-Proto: https")
    with RawClient.connect(daemon.port) as client:
        assert client.ask(forwarded("198.51.100.7", b"/health", *lines)).status == 200
    wait_until(lambda: '"request"' in daemon.log())
    (line,) = [line for line in map(json.loads, daemon.log().splitlines()) if line["event"] == "request"]
    assert (line["client"], line["outcome"]) == ("127.0.0.1", "200")
