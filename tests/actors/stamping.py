"""A service that publishes with history, as the publishers do: each event by the script that stamps it."""

from __future__ import annotations

import random

from attrs import define

from broker.history.keys import Keys
from broker.history.scripts import PUBLISH
from tests.actors.redis_server import RedisServer


@define(eq=False)
class Stamping:
    """Publishes on one channel. `bounds`: where Redis has none of a daemon's, events kept and milliseconds."""

    server: RedisServer
    channel: str
    bounds: str = "1000 60000"

    def publish(self, *payloads: bytes) -> None:
        """In one pipelined round trip. Blocks."""
        keys = Keys("")
        names = (keys.types, keys.top(self.channel), keys.events(self.channel))
        kind = self.channel.partition(":")[0]
        with self.server.client() as client, client.pipeline(transaction=False) as pipe:
            for payload in payloads:
                tag = random.getrandbits(30) or 1
                pipe.eval(PUBLISH.text, 3, *names, self.channel, kind, self.bounds, payload, tag, 60000, 60000)
            pipe.execute()

    def positions(self) -> list[str]:
        """Of the events that are kept, in their order. Blocks."""
        keys = Keys("")
        with self.server.client() as client:
            epoch = client.get(keys.top(self.channel)).split()[0].decode()  # type: ignore[union-attr]
            entries = client.xrange(keys.events(self.channel))
        return [f"{epoch}:{id.decode().replace('-', ':')}" for id, _ in entries]  # type: ignore[union-attr]
