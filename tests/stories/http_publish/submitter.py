"""Who publishes over HTTP, as a service does, and who listens to what came of it in Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from attrs import define

from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer

CHANNEL = "job_progress:42"
PATH = "/api/publish"
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
        """The events that were published so far, in order, without their stamps."""
        return [message.partition(b" ")[2] if message[:1] == b"\x01" else message for message in self.heard_stamped()]

    def heard_stamped(self) -> list[bytes]:
        """The same as they are in Redis."""
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


def counts(daemon: DaemonProcess) -> Counter[str]:
    found = daemon.stats()["publishing"]
    assert list(found) == ["requests", "events", "repeated", "refused"]
    return Counter({**found.pop("refused"), **found})


def memories(server: RedisServer) -> list[bytes]:
    with server.client() as client:
        return sorted(client.keys("*idempotency*"))
