"""A bystander: healthy subscribers beside whatever a test does to the daemon, who must lose nothing.

A publisher numbers its messages, 200 a second; one WebSocket and one SSE client hold that they
arrive complete and in order.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import urlopen

import websockets.sync.client

from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer

CHANNEL = "bystander:1"
_PAUSE_SECONDS = 0.005
_WAIT_SECONDS = 20.0


@contextmanager
def watch(daemon: DaemonProcess, redis_server: RedisServer) -> Iterator[None]:
    """Subscribe and publish while the body runs; fails at its end where anything was lost, doubled or reordered."""
    over = threading.Event()
    published: list[str] = []
    heard: dict[str, list[str]] = {"websocket": [], "sse": []}
    with (
        websockets.sync.client.connect(daemon.ws_url, open_timeout=_WAIT_SECONDS) as socket,
        urlopen(f"{daemon.url}/api/stream?channel={CHANNEL}", timeout=_WAIT_SECONDS) as stream,
    ):
        socket.recv(_WAIT_SECONDS)
        socket.send(f'{{"type":"subscribe","channel":"{CHANNEL}"}}')
        socket.recv(_WAIT_SECONDS)
        stream.readline(), stream.readline()  # the greeting: both are live

        def publish() -> None:
            with redis_server.client() as client:
                number = 0
                while not over.wait(_PAUSE_SECONDS):
                    published.append(str(number))
                    client.publish(CHANNEL, str(number))
                    number += 1
                client.publish(CHANNEL, '"end"')

        def hear_socket() -> None:
            while (message := socket.recv(_WAIT_SECONDS)) != '"end"':
                if not (isinstance(message, str) and message.startswith("{")):
                    heard["websocket"].append(str(message))

        def hear_stream() -> None:
            while (line := stream.readline().decode().rstrip("\n")) != 'data: "end"':
                if line.startswith("data: "):
                    heard["sse"].append(line.removeprefix("data: "))
                elif not line and stream.isclosed():
                    return

        threads = [threading.Thread(target=target, daemon=True) for target in (publish, hear_socket, hear_stream)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join(_WAIT_SECONDS)
    assert heard == {"websocket": published, "sse": published}
