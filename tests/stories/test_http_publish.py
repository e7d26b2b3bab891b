"""Publishing over HTTP, as services do: what subscribers receive, what a retry does, and who is turned away."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from attrs import define

from broker.config.sections import Config, Publish
from broker.request import RequestRefused
from broker.submission import Origin
from broker.web.publishing import Publishing
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import frames, open_streams, open_websockets, pump, stream, wait_until
from tests.actors.raw_client import RawClient, head
from tests.actors.redis_server import RedisServer, free_port
from tests.actors.refusal import assert_refusal
from tests.conftest import errors_of

StartDaemon = Callable[..., DaemonProcess]
CHANNEL = "job_progress:42"
PATH = "/api/publish"
QUICK = ("--redis-ping-timeout-seconds", "0.5", "--redis-connect-seconds", "1", "--redis-backoff-max-seconds", "0.1")
# No body but this one closes on itself, and no serializer writes it so.
ODD = '{ "type":"x" ,\t"text":"é\\u00e9\u2028\U0001f680","n":[1.50e+3, -0],\n"n":1 }'.encode()


def item(event: bytes = b'{"n":1}', channel: str = CHANNEL) -> bytes:
    return b'{"channel": "%b", "event": %b}' % (channel.encode(), event)


ALERT = item(channel="alerts:1")


def many(count: int) -> bytes:
    return b"[" + b",".join(item(b'{"n":%d}' % number) for number in range(count)) + b"]"


def post(daemon: DaemonProcess, body: bytes, **headers: str) -> httpx.Response:
    # No certificates are read for a request without TLS.
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{daemon.url}{PATH}", content=body, headers=named, trust_env=False, verify=False, timeout=20)


def refusal(response: httpx.Response) -> tuple[int, str]:
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert list(body) == ["error", "detail", "hint"]
    assert all(body.values()), body
    return response.status_code, body["detail"]


@define(eq=False)
class Ear:
    """Who listens to Redis itself, so that no daemon's troubles are seen for what was published."""

    _pubsub: Any
    _server: RedisServer

    def heard(self) -> list[bytes]:
        """Everything published so far, in order."""
        self._server.publish("ear:end", b"end")
        found = []
        while True:
            message = self._pubsub.get_message(timeout=5)
            assert message is not None
            if message["type"] == "pmessage":
                if message["data"] == b"end":
                    return found
                found.append(message["data"])


@contextmanager
def listening(server: RedisServer) -> Iterator[Ear]:
    with server.client() as client, client.pubsub() as pubsub:
        pubsub.psubscribe("*")
        assert pubsub.get_message(timeout=5)["type"] == "psubscribe"
        yield Ear(pubsub, server)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for every test that does it no harm."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def pair(
    server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[DaemonProcess, DaemonProcess]]:
    """Two daemons with the defaults. At the end they have logged no error."""
    folder = tmp_path_factory.mktemp("daemons")
    pair = tuple(DaemonProcess(server.url, folder / f"{name}.log", ("--log-format", "json")) for name in "ab")
    for daemon in pair:
        daemon.start()
    yield pair[0], pair[1]
    for daemon in pair:
        daemon.stop()
    assert [errors_of(daemon) for daemon in pair] == [[], []]


@pytest.fixture
def daemon(pair: tuple[DaemonProcess, DaemonProcess], server: RedisServer) -> DaemonProcess:
    """One of the two, on a Redis that remembers nothing."""
    with server.client() as client:
        client.flushall()
    return pair[0]


@pytest.fixture
def other(pair: tuple[DaemonProcess, DaemonProcess]) -> DaemonProcess:
    return pair[1]


def counts(daemon: DaemonProcess) -> Counter[str]:
    found = daemon.stats()["publishing"]
    assert list(found) == ["requests", "events", "repeated", "refused"]
    return Counter({**found.pop("refused"), **found})


def memories(server: RedisServer) -> list[bytes]:
    with server.client() as client:
        return sorted(client.keys("*idempotency*"))


def test_curl_publishes_and_subscribers_have_the_same_bytes(daemon: DaemonProcess) -> None:
    (ws,) = open_websockets(daemon.port, 1, CHANNEL)
    (sse,) = open_streams(daemon.port, 1, CHANNEL)
    mark, begun = len(ws.raw), len(sse.parse())
    command = ["curl", "-s", "-w", " %{http_code}", f"{daemon.url}{PATH}", "--data-binary"]
    done = subprocess.run([*command, item(ODD)], capture_output=True, check=True)
    assert done.stdout == b'{"published":1} 200'
    listed = b"[%b]" % b",\n".join([item(b'{"n":1}'), item(b'{"n":2}', "other:1"), item(b'{ "n" : 3 }')])
    done = subprocess.run([*command, listed], capture_output=True, check=True)
    assert done.stdout == b'{"published":3} 200'
    expected = frames([ODD, b'{"n":1}', b'{ "n" : 3 }'])
    first, second = ODD.split(b"\n")
    streamed = b"data: %b\ndata: %b\n\n" % (first, second) + stream([b'{"n":1}', b'{ "n" : 3 }'])
    pump([ws, sse], lambda: len(ws.raw) - mark >= len(expected) and len(sse.parse()) - begun >= len(streamed))
    assert ws.raw[mark:] == expected
    assert sse.parse()[begun:] == streamed


def test_a_thousand_at_once_and_not_one_more(daemon: DaemonProcess) -> None:
    (ws,) = open_websockets(daemon.port, 1, CHANNEL)
    mark = len(ws.raw)
    expected = frames([b'{"n":%d}' % number for number in range(1000)])
    assert post(daemon, many(1000)).json() == {"published": 1000}
    pump([ws], lambda: len(ws.raw) - mark >= len(expected))
    assert refusal(post(daemon, many(1001))) == (413, "1001 events; at most 1000")
    # The last of a hundred bad ones spoils the rest.
    spoilt = many(100)[:-1] + b"," + item(b"7") + b"]"
    assert refusal(post(daemon, spoilt)) == (400, "$[100].event: not a JSON object")
    assert post(daemon, item(b'{"last":1}')).json() == {"published": 1}
    expected += frames([b'{"last":1}'])
    pump([ws], lambda: len(ws.raw) - mark >= len(expected))
    assert ws.raw[mark:] == expected


def test_a_mebibyte_and_not_a_byte_more(daemon: DaemonProcess) -> None:
    (ws,) = open_websockets(daemon.port, 1, CHANNEL)
    mark = len(ws.raw)
    room = (1 << 20) - len(item(b'{"x":""}'))
    event = b'{"x":"%b"}' % (b"x" * room)
    assert post(daemon, item(event)).json() == {"published": 1}
    pump([ws], lambda: len(ws.raw) - mark >= len(frames([event])))
    assert ws.raw[mark:] == frames([event])
    assert refusal(post(daemon, item(event) + b" ")) == (413, "the request body is larger than 1048576 bytes")


def test_the_counts_are_in_the_stats(daemon: DaemonProcess) -> None:
    before = counts(daemon)
    post(daemon, many(3))
    for _ in range(3):
        post(daemon, many(5), idempotency_key="k")
    post(daemon, b"[]")
    post(daemon, b"\xff")
    post(daemon, many(1001))
    post(daemon, item(), origin="http://evil.example")
    post(daemon, item(), idempotency_key="k")
    assert counts(daemon) - before == Counter(
        {"requests": 9, "events": 8, "repeated": 2, "400": 2, "413": 1, "403": 1, "422": 1}
    )


def test_a_body_that_is_no_text_is_refused_and_not_a_failure(daemon: DaemonProcess) -> None:
    """A daemon that logs an error fails the test."""
    assert refusal(post(daemon, b'{"channel":"\xff","event":{}}'))[0] == 400
    assert refusal(post(daemon, b'{"channel":"a","event":{"a":"\xff"}}'))[0] == 400
    assert refusal(post(daemon, b"[" * 500_000))[0] == 400
    assert refusal(post(daemon, b""))[0] == 400
    # Whatever it says it is: there are no forms here.
    assert refusal(post(daemon, b"a=b", content_type="application/x-www-form-urlencoded"))[0] == 400
    assert refusal(post(daemon, b"--x", content_type="multipart/form-data; boundary=x"))[0] == 400
    assert post(daemon, item(), content_type="text/plain").json() == {"published": 1}


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


def limited_url(server: RedisServer, *rules: str) -> str:
    with server.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "limited", "on", ">hunter2", "~*", "+@all", "resetchannels", "&allowed:*", *rules
        )
    return server.url.replace("redis://", "redis://limited:hunter2@")


def test_what_redis_does_not_allow_is_told(server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(limited_url(server))
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


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "PROPFIND"])
def test_other_methods_are_not_allowed(daemon: DaemonProcess, method: str) -> None:
    response = httpx.request(method, f"{daemon.url}{PATH}", content=item(), trust_env=False)
    assert response.status_code == 405
    assert sorted(response.headers["allow"].split(", ")) == ["OPTIONS", "POST"]
    assert (response.content == b"") == (method == "HEAD")


def test_a_host_that_is_not_this_machine(daemon: DaemonProcess) -> None:
    """DNS rebinding: the page's own host is our address."""
    host = f"evil.example:{daemon.port}"
    refused = (403, f"the Host header {host!r} does not name this machine")
    assert refusal(post(daemon, item(), host=host, origin=f"http://{host}")) == refused
    assert post(daemon, item(), host=f"localhost:{daemon.port}").json() == {"published": 1}
    with RawClient.connect(daemon.port) as client:
        # HTTP/1.0 may leave the host out; a whole URL in its place does not count.
        client.send(b"POST http://localhost/api/publish HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(item()) + item())
        assert_refusal(client.answer(), 403)


def test_a_proxy_that_says_so(daemon: DaemonProcess) -> None:
    assert refusal(post(daemon, item(), x_forwarded_for="127.0.0.1")) == (
        403,
        "publishing over HTTP is for this machine only, and a proxy forwards this (x-forwarded-for)",
    )


async def test_off() -> None:
    """Nothing is read of a request, and nobody asked."""
    commands: Any = None
    publishing = Publishing(commands, Config(publish=Publish(http="off")))
    with pytest.raises(RequestRefused) as caught:
        await publishing.publish(Origin(None, None, {}), item(), None)
    assert (caught.value.status, caught.value.detail) == (403, "publishing over HTTP is off")
    assert publishing.statistics() == {"requests": 1, "events": 0, "repeated": 0, "refused": {"403": 1}}


def test_a_second_request_behind_a_body_is_one_of_its_own(daemon: DaemonProcess) -> None:
    """What the body holds is never read as a request, however it is framed."""
    smuggled = head(b"POST /api/publish HTTP/1.1", b"Content-Length: %d" % len(item())) + item()
    inner = json.dumps({"a": smuggled.decode()}).encode()
    body = item(inner)
    length = head(b"POST /api/publish HTTP/1.1", b"Content-Length: %d" % len(body)) + body
    chunked = head(b"POST /api/publish HTTP/1.1", b"Transfer-Encoding: chunked")
    chunked += b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    (ws,) = open_websockets(daemon.port, 1, CHANNEL)
    mark, before = len(ws.raw), counts(daemon)
    with RawClient.connect(daemon.port) as client:
        client.send(length + chunked + smuggled)
        assert [client.answer().json() for _ in range(3)] == [{"published": 1}] * 3
    expected = frames([inner, inner, b'{"n":1}'])
    pump([ws], lambda: len(ws.raw) - mark >= len(expected))
    assert ws.raw[mark:] == expected
    assert counts(daemon) - before == Counter({"requests": 3, "events": 3})


def test_a_client_that_leaves_half_way_publishes_nothing(server: RedisServer, daemon: DaemonProcess) -> None:
    with listening(server) as ear:
        client = RawClient.connect(daemon.port)
        client.send(head(b"POST /api/publish HTTP/1.1", b"Content-Length: 1000") + item())
        client.reset()
        assert post(daemon, item(b'{"n":2}')).json() == {"published": 1}
        assert ear.heard() == [b'{"n":2}']


@define(eq=False)
class Special:
    """A daemon with everything set that publishing knows, and an address of each sort."""

    daemon: DaemonProcess
    open_port: int
    unix_path: Path


@pytest.fixture(scope="module")
def special(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Special]:
    folder, port = tmp_path_factory.mktemp("special"), free_port()
    (folder / "broker.toml").write_text('[channels]\nundeclared = "refuse"\n[types.job_progress]\nvalidate = "event"\n')
    flags = [
        *("--log-format", "json", "--config", str(folder / "broker.toml"), "--redis-channel-prefix", "app:"),
        *("--publish-idempotency-seconds", "1", "--listen-cors-origins", "https://app.example"),
        *("--listen", f"0.0.0.0:{port}", "--listen", f"unix:{folder / 's'}"),
    ]
    daemon = DaemonProcess(server.url, folder / "daemon.log", tuple(flags))
    daemon.start()
    yield Special(daemon, port, folder / "s")
    daemon.stop()
    assert errors_of(daemon) == []


def test_pages_and_their_preflights(server: RedisServer, special: Special) -> None:
    daemon = special.daemon

    def preflight(origin: str) -> httpx.Response:
        headers = {"origin": origin, "access-control-request-method": "POST"}
        return httpx.options(f"{daemon.url}{PATH}", headers=headers, trust_env=False)

    allowed = preflight("https://app.example")
    assert (allowed.status_code, allowed.content) == (200, b"")
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert sorted(allowed.headers["access-control-allow-methods"].split(", ")) == ["OPTIONS", "POST"]
    assert "access-control-allow-origin" not in preflight("https://evil.example").headers
    response = post(daemon, ALERT, origin="https://app.example")
    assert (response.json(), response.headers["access-control-allow-origin"]) == (
        {"published": 1},
        "https://app.example",
    )
    # What needs no preflight: a form of a page elsewhere, or of one in a sandbox.
    with listening(server) as ear:
        for origin in ("https://evil.example", "null"):
            sent = post(daemon, ALERT, origin=origin, content_type="text/plain")
            assert refusal(sent) == (403, f"pages of {origin!a} may not publish")
            assert "access-control-allow-origin" not in sent.headers
        assert ear.heard() == []


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


def own_address() -> str:
    """An address of this machine that others reach."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


def test_from_an_address_that_is_not_loopback(server: RedisServer, special: Special) -> None:
    address, port = own_address(), special.open_port
    with listening(server) as ear:
        for headers in ({}, {"host": "localhost"}, {"x-forwarded-for": "127.0.0.1"}):
            response = httpx.post(f"http://{address}:{port}{PATH}", content=ALERT, headers=headers, trust_env=False)
            assert refusal(response) == (
                403,
                f"publishing over HTTP is for loopback only, and this comes from {address} to {address}",
            )
        assert ear.heard() == []
        response = httpx.post(f"http://127.0.0.1:{port}{PATH}", content=ALERT, trust_env=False)
        assert response.json() == {"published": 1}
        assert ear.heard() == [b'{"n":1}']


def test_over_a_unix_socket(server: RedisServer, special: Special) -> None:
    odd = item(ODD, "alerts:1")
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(special.unix_path))) as http, listening(server) as ear:
        assert http.post(f"http://broker{PATH}", content=odd).json() == {"published": 1}
        assert refusal(http.post(f"http://broker{PATH}", content=odd, headers={"via": "1.1 x"}))[0] == 403
        assert ear.heard() == [ODD]


def test_undeclared_types_and_checked_ones(special: Special) -> None:
    assert refusal(post(special.daemon, item(channel="other:1"))) == (
        400,
        "$.channel: channel type other is not served here",
    )
    assert refusal(post(special.daemon, item())) == (400, "$.event: not_an_event: type is missing")
    assert post(special.daemon, ALERT).json() == {"published": 1}
