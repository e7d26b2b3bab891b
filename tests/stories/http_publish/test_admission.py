"""Who may publish over HTTP: this machine, and no page, proxy or name that is not its own."""

from __future__ import annotations

import socket
from typing import Any

import httpx
import pytest

from broker.auth.identity import NOBODY
from broker.auth.rules import RuleBook
from broker.config.access import Rules
from broker.config.sections import Config, Publish
from broker.publishing import Publishing
from broker.request import RequestRefused
from broker.submission import Origin
from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import RawClient
from tests.actors.redis_server import RedisServer
from tests.actors.refusal import assert_refusal
from tests.stories.http_publish.conftest import Special
from tests.stories.http_publish.submitter import (
    ALERT,
    ODD,
    PATH,
    item,
    listening,
    post,
    refusal,
)


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
        "this is for whoever is on the daemon's machine, and a proxy forwards it (x-forwarded-for)",
    )


async def test_off() -> None:
    """Nothing is read of a request, and nobody asked."""
    commands: Any = None
    publishing = Publishing(commands, Config(publish=Publish(http="off")), RuleBook(Rules(), {}))
    with pytest.raises(RequestRefused) as caught:
        await publishing.publish(NOBODY, Origin(None, {}), item(), None)
    assert (caught.value.status, caught.value.detail) == (403, "publishing over HTTP is off")
    assert publishing.statistics() == {"requests": 1, "events": 0, "repeated": 0, "refused": {"403": 1}}


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
                f"this is for whoever is on the daemon's machine, and comes from {address}",
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
