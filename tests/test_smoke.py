"""The whole way, once: a message from Redis to both transports, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Callable

import httpx
import httpx_sse
import pytest
import websockets.sync.client

from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer


@pytest.mark.parametrize("is_forked", [False, True])
def test_a_published_message_reaches_both_transports_byte_for_byte(
    redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess], is_forked: bool
) -> None:
    daemon = start_daemon(redis_server.url, is_forked=is_forked)
    payload = '{"type": "job_progress",  "jobId":"42", "note":"\u00e9\U0001f680"}'
    with websockets.sync.client.connect(daemon.ws_url) as ws, httpx.Client(trust_env=False) as http:
        assert json.loads(ws.recv(5))["type"] == "connected"
        ws.send('{"type":"subscribe","channel":{"type":"job_progress","id":"42"}}')
        assert json.loads(ws.recv(5))["name"] == "job_progress:42"
        with httpx_sse.connect_sse(http, "GET", f"{daemon.url}/api/stream?channel=job_progress:42") as source:
            events = source.iter_sse()
            assert json.loads(next(events).data)["type"] == "connected"
            redis_server.publish("job_progress:42", payload.encode())
            assert next(events).data == payload
        assert ws.recv(5) == payload
