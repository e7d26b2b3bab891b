"""What is there with nobody there: the hubs, tasks, descriptors and subscriptions of all daemons of a house.

Counts are sums over the daemons, as who records may change. Before each look every daemon has one visitor of each kind,
so that one which has just been started has what comes with its first client.
"""

from __future__ import annotations

import json
import re
import signal
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import trio
from attrs import frozen

import broker
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import SsePeer, WebSocketPeer, pump, wait_until
from tests.stress.house import ADMIN, House, aside

SETTLED_SECONDS = 10.0
AGAIN_SECONDS = 0.2
OF_VISITORS = ("clients", "channels", "subscriptions", "queued bytes", "connections")
OF_CLIENTS = (
    "client clientele hub outbox outboxpool sealedoutbox session sse stream visit websocket topic/topic topic/trail"
)
"""Where the classes are of which there is one for each client, channel or subscription."""
STAYING = {"Tally", "Books", "Outage"}
"""Counts of a channel type in a wire format stay, as counters do, and what is told of the last outages."""
_SHOWN = 12


@frozen
class Remains:
    """One look.

    Args:
        figures: by what they count.
        tasks: by name.
        objects: of the classes of `OF_CLIENTS`, by name.
        subscriptions: subscribers in Redis, by channel; patterns together as "patterns".
    """

    figures: Mapping[str, int]
    tasks: Counter[str]
    objects: Counter[str]
    subscriptions: Counter[str]


async def look(house: House, before: Remains | None = None, seconds: float = SETTLED_SECONDS) -> Remains:
    """Look until nobody is there and nothing changes or, with `before`, all is as it was; at most for `seconds`."""
    for daemon in house.daemons:
        await _visit(house, daemon)
    await house.hang_up()
    found = await _look(house)
    with trio.move_on_after(seconds):
        while True:
            last = found
            await trio.sleep(AGAIN_SECONDS)
            found = await _look(house)
            if not leaks(before or last, found) and not any(found.figures[name] for name in OF_VISITORS):
                break
    return found


def leaks(before: Remains, after: Remains) -> list[str]:
    """What is not as it was, a sentence each."""
    found = [
        f"{name}: {before.figures[name]} before, {after.figures[name]} after"
        for name in before.figures
        if before.figures[name] != after.figures[name]
    ]
    for kind, was, now in (
        ("task", before.tasks, after.tasks),
        ("object", before.objects, after.objects),
        ("subscription", before.subscriptions, after.subscriptions),
    ):
        names = [name for name in sorted({*was, *now}) if was[name] != now[name]]
        found += [f"{kind} {name}: {was[name]} before, {now[name]} after" for name in names[:_SHOWN]]
    return found


async def _look(house: House) -> Remains:
    told = [await aside(_told, daemon) for daemon in house.daemons]
    stats = [await house.stats(daemon) for daemon in house.daemons]
    subscriptions = await aside(_subscriptions, house)
    tasks: Counter[str] = sum((Counter(each["tasks"]) for each in told), Counter())
    objects: Counter[str] = sum((Counter(each["objects"]) for each in told), Counter())
    figures = {
        "clients": sum(each["websocket"]["totalConnections"] + each["sse"]["totalConnections"] for each in stats),
        "channels": sum(each["channels"]["activeChannels"] for each in stats),
        "subscriptions": sum(each["channels"]["totalSubscriptions"] for each in stats),
        "queued bytes": sum(each["outboxes"]["queuedBytes"] for each in stats),
        # Without the one that asks.
        "connections": sum(each["connections"]["open"] - 1 for each in stats),
        "tasks": sum(tasks.values()),
        "descriptors": sum(each["descriptors"] for each in told),
        "channels in Redis": sum(1 for name in subscriptions if name != "patterns"),
        "subscriptions in Redis": sum(subscriptions.values()),
    }
    ours = Counter({name: count for name, count in objects.items() if name in _classes() - STAYING})
    return Remains(figures, tasks, ours, subscriptions)


async def _visit(house: House, daemon: DaemonProcess) -> None:
    """One of each kind, who leave again."""
    for path in ("/api/realtime/stats", "/metrics", "/api/realtime/clients", "/nowhere"):
        await house.http.get(daemon.url + path, headers=ADMIN)
    stream, websocket = SsePeer(daemon.port, "long:visit"), WebSocketPeer(daemon.port)
    websocket.subscribe("long:visit")
    await aside(pump, [stream, websocket], lambda: stream.is_open and websocket.events("subscribed"))
    for peer in (stream, websocket):
        peer.close()


def _told(daemon: DaemonProcess) -> Any:
    window = daemon.window
    assert window is not None
    window.unlink(missing_ok=True)
    daemon.process.send_signal(signal.SIGUSR2)
    wait_until(window.exists)
    return json.loads(window.read_text())


def _subscriptions(house: House) -> Counter[str]:
    with house.redis_server.client() as client:
        names = [name.decode() for name in client.execute_command("PUBSUB", "CHANNELS")]
        counts = client.execute_command("PUBSUB", "NUMSUB", *names)
        patterns = client.execute_command("PUBSUB", "NUMPAT")
    # Those of a daemon that was started again have another random part.
    found: Counter[str] = Counter()
    for name, count in zip(names, counts[1::2], strict=True):
        found[re.sub(r"(broker:node:[^:]+).*", r"\1", name)] += count
    found["patterns"] = patterns
    return found


@cache
def _classes() -> frozenset[str]:
    assert broker.__file__ is not None
    texts = [(Path(broker.__file__).parent / f"{name}.py").read_text() for name in OF_CLIENTS.split()]
    return frozenset(name for text in texts for name in re.findall(r"^class (\w+)", text, re.MULTILINE))
