"""Out of descriptors on a port with TLS: the door rests, says so once a second, and goes on."""

from __future__ import annotations

import json
import resource
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import trustme

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import RawClient, descriptors_of, head, wait_until
from tests.actors.redis_server import RedisServer

HEALTH = head(b"GET /health HTTP/1.1")
# Fewer than the answers of 503 that the door has at once.
FREE = 12
WARNINGS = {
    "as many connections as allowed; answering 503",
    "out of file descriptors or memory; the door rests",
}


def test_100_clients_and_12_descriptors(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess], tmp_path: Path
) -> None:
    authority = trustme.CA()
    certificate = tmp_path / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    daemon = start_daemon(redis_server.url, f"--listen-tls-certificate={certificate}")

    def connect() -> RawClient:
        return RawClient(context.wrap_socket(RawClient.connect(daemon.port).sock, server_hostname="localhost"))

    began = time.monotonic()
    with connect() as inside:
        assert inside.ask(HEALTH).status == 200
        limit = descriptors_of(daemon.process.pid) + FREE
        before = resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (limit, before[1]))
        with ExitStack() as stack:
            for _ in range(100):
                stack.enter_context(RawClient.connect(daemon.port))
            wait_until(lambda: descriptors_of(daemon.process.pid) == limit)
            wait_until(lambda: "the door rests" in daemon.log())
            assert inside.ask(HEALTH).status == 200
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, before)
        with connect() as client:
            assert client.ask(HEALTH).status == 200
    warned = [line for line in map(json.loads, daemon.log().splitlines()) if line["level"] == "warning"]
    assert {line["event"] for line in warned} == WARNINGS
    assert len(warned) <= len(WARNINGS) * (time.monotonic() - began + 1)
