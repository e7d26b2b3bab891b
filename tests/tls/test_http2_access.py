"""Who somebody is over HTTP/2: by token, by the address of the TLS peer; and what is left when a stream is reset."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from tests.access.visitor import SECRET, bearer, token
from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import descriptors_of, wait_until
from tests.actors.redis_server import RedisServer
from tests.stories.http_publish.conftest import free_port
from tests.stories.http_publish.test_admission import own_address
from tests.tls.certificates import Authority
from tests.tls.http2_client import Http2Client

STREAM = "/api/stream?channel=job:ann"


def test_a_token_counts(
    start_tls_daemon: Callable[..., DaemonProcess], authority: Authority, tls_redis: RedisServer
) -> None:
    daemon = start_tls_daemon({"AUTH_SECRET": SECRET})
    with Http2Client.connect(daemon.port, authority.client_context("h2")) as client:
        refused = client.get(STREAM)
        assert (refused.status, refused.headers["www-authenticate"]) == (401, 'Bearer realm="broker"')
        assert client.get(STREAM, ("authorization", f"Bearer {token(secret='x' * 40)}")).status == 401
        id = client.ask(STREAM, ("authorization", bearer(token("ann"))["Authorization"]))
        client.pump(lambda: b'"connected"' in client.streams[id].data)
        with tls_redis.client() as redis:
            redis.publish("job:ann", '{"type":"alert"}')
        client.pump(lambda: client.streams[id].events() == [{"type": "alert"}])


def test_the_address_is_that_of_the_tls_peer(
    tls_redis: RedisServer, start_daemon: Callable[..., DaemonProcess], authority: Authority
) -> None:
    address, port = own_address(), free_port()
    environ = authority.issue().environ
    start_daemon(tls_redis.url, "--listen", f"0.0.0.0:{port}", "--auth-mode", "off", environ=environ)
    context = authority.client_context()
    context.check_hostname = False  # the certificate names loopback only
    body = json.dumps({"channel": "alerts:a", "event": {"type": "note"}})
    with httpx.Client(http2=True, verify=context, trust_env=False) as web:
        far = web.post(f"https://{address}:{port}/api/publish", content=body)
        assert (far.http_version, far.status_code, far.json()["detail"]) == (
            "HTTP/2",
            403,
            f"this is for whoever is on the daemon's machine, and comes from {address}",
        )
        near = web.post(f"https://127.0.0.1:{port}/api/publish", content=body)
        assert (near.http_version, near.status_code) == ("HTTP/2", 200)


def test_a_reset_stream_leaves_nothing(tls_daemon: DaemonProcess, tls_authority: Authority) -> None:
    with Http2Client.connect(tls_daemon.port, tls_authority.client_context("h2")) as client:

        def counted() -> Any:
            stats = json.loads(bytes(client.get("/api/realtime/stats").data))
            # The stream that asks is one of them.
            return stats["tls"]["http2Streams"], stats["sse"]["totalConnections"]

        assert counted() == (1, 0)
        descriptors = descriptors_of(tls_daemon.process.pid)
        ids = client.subscribe("bench:a", "bench:b", "bench:c")
        assert counted() == (4, 3)
        for id in ids:
            client.h2.reset_stream(id, ErrorCodes.CANCEL)
        client.flush()
        wait_until(lambda: counted() == (1, 0))
        wait_until(lambda: descriptors_of(tls_daemon.process.pid) <= descriptors)


def test_one_stream_too_many_is_refused_and_the_others_go_on(
    tls_daemon: DaemonProcess, tls_authority: Authority
) -> None:
    with Http2Client.connect(tls_daemon.port, tls_authority.client_context("h2")) as client:
        ids = client.subscribe(*(f"bench:{number}" for number in range(100)))
        client.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 200  # else this client would not ask
        client.h2.remote_settings.acknowledge()
        one_more = client.ask("/health")
        client.pump(lambda: client.is_closed or client.goaway is not None or client.streams[one_more].reset is not None)
        seen = client.streams[one_more]
        assert (seen.status, seen.reset, client.goaway) == (0, ErrorCodes.REFUSED_STREAM, None)
        client.h2.reset_stream(ids[0], ErrorCodes.CANCEL)
        client.flush()
        wait_until(lambda: client.get("/health").status == 200)
