"""`python -m tests.echo PORT`: the daemon's own WebSocket conversation, with an echo in place of the commands.

For RFC 6455 conformance suites: every path, through the real door, on 127.0.0.1. Text and binary
messages up to 16 MiB come back as they went. Port 0 is any free one. Prints `echoes on 127.0.0.1:PORT`
when it listens; runs until SIGTERM or SIGINT.
"""

from __future__ import annotations

import os
import signal
import sys

import trio
from attrs import define, field

from broker.auth.identity import NOBODY
from broker.client import Client
from broker.config.access import ListenTls
from broker.config.sections import MIB, Clients, Listen, WebSocket
from broker.door import Door
from broker.frames import text_frame
from broker.handshake import handshake
from broker.listening import open_listeners
from broker.reception import Reception, Route
from broker.request import Request
from broker.visit import Visit
from broker.websocket import WebSocketConversation

# A suite may send several of the largest messages before it reads the first.
CLIENTS = Clients(outbox_max_bytes=128 * MIB, outbox_max_age_seconds=60.0)
WEBSOCKET = WebSocket(message_max_bytes=16 * MIB)


@define(eq=False)
class Echo:
    """The talk of a client that is sent back what it says."""

    _client: Client
    channel_names: list[str] = field(factory=list)

    def opened(self) -> bytes:
        return b""

    def text(self, text: str) -> None:
        self._send(text_frame(text.encode()))

    def binary(self, data: bytes) -> None:
        self._send(b"\x82" + text_frame(data)[1:])

    def tell(self, event: bytes) -> None:
        """Nobody tells it anything."""

    def heartbeat(self) -> None:
        """An echo says nothing by itself."""

    def farewell(self) -> bytes:
        return b""

    def closed(self) -> None:
        """There is nothing to leave."""

    def _send(self, frame: bytes) -> None:
        self._client.outbox.send(frame, trio.current_time())


async def serve_echo(visit: Visit, request: Request) -> bool:
    """One echoing client, from its handshake to its end."""
    answer = handshake(request)
    client = Client(f"echo_{os.urandom(8).hex()}", "websocket", NOBODY, visit.socket, CLIENTS)
    await client.run(lambda client: WebSocketConversation(client, WEBSOCKET, Echo(client), answer, visit.hand_over()))
    return False


async def main(port: int) -> None:
    """Serve until a signal."""
    bounds = Listen(addresses=(f"127.0.0.1:{port}",))
    door = Door(bounds, Reception((Route("", serve_echo),)), 1000)
    with open_listeners(bounds, ListenTls(), "the command line") as (listener,):
        async with trio.open_nursery() as nursery:
            await nursery.start(door.serve, listener, nursery)
            print(f"echoes on {listener.name}", flush=True)
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                await anext(aiter(signals))
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]))
