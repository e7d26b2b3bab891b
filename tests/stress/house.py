"""The house: one Redis and several daemons that share it, for all scenarios.

The daemons have a window (`tests.soak.probed`), ask for tokens where a channel's type is `closed` or a user's, and let
everybody else in. Redis answers only what is on its disk, so that what was published is there after a kill.
"""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import trio
from attrs import define, field

from broker.publisher import TrioPublisher
from tests.access.visitor import SECRET, bearer, token
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.conftest import errors_of

ADMIN = bearer(token("root", broker_admin=True, publish=["*"], seconds=36_000))
PERSISTENCE = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
SHORT_LENGTH = 20
CONNECTIONS_PER_USER = 20
MESSAGE_MAX_BYTES = 65_536
SETTLED_SECONDS = 15.0
SETTINGS = f"""\
[rules]
anonymous_subscribe = ["long:*", "short:*", "dropping:*", "newest:*", "passing:*", "recent:*", "job_progress:*"]
anonymous_publish = ["long:*"]
[limits]
connections_per_user = {CONNECTIONS_PER_USER}
commands_per_second = {{number}}
[types.long]
history_length = 10000
history_seconds = 600
[types.short]
history_length = {SHORT_LENGTH}
history_seconds = 600
[types.recent]
history_length = 100
history_seconds = 600
replay = 3
[types.dropping]
history_length = 25
history_seconds = 600
slow_clients = "drop_oldest"
[types.newest]
history_length = 100
history_seconds = 600
slow_clients = "latest"
[types.passing]
history_length = 0
[types.closed]
history_length = 100
history_seconds = 600
[clients]
outbox_max_bytes = 131072
catch_up_bytes = 16384
[channels]
message_max_bytes = {MESSAGE_MAX_BYTES}
[history]
check_seconds = 1
lease_seconds = 1
[daemon]
node_lease_seconds = 2
drain_seconds = 4
reconnect_seconds = 0.5
[evaluations]
grace_seconds = 1
[redis]
unsubscribe_after_seconds = 0.2
backoff_min_seconds = 0.05
backoff_max_seconds = 0.3
ping_seconds = 1
ping_timeout_seconds = 3
"""

T = TypeVar("T")


async def aside(call: Callable[..., T], *arguments: object) -> T:
    """Something that blocks, in a thread."""
    return await trio.to_thread.run_sync(partial(call, *arguments))


@define(eq=False)
class House:
    """Made by `open_house`. `http` is a client that all scenarios share."""

    folder: Path
    redis_server: RedisServer
    daemons: list[DaemonProcess]
    publisher: TrioPublisher
    http: httpx.AsyncClient
    _reloads: int = 0
    _nodes: dict[int, str] = field(factory=dict)

    async def stats(self, daemon: DaemonProcess) -> Any:
        """Those of one daemon alone."""
        pid = daemon.process.pid
        url = f"{daemon.url}/api/realtime/stats"
        if pid not in self._nodes:
            answer = await self.http.get(url, headers=ADMIN)
            self._nodes[pid] = answer.json()["nodes"][0]["id"]
        headers = {**ADMIN, "Connection": "close"}
        answer = await self.http.get(url, params={"node": self._nodes[pid], "clients": "0"}, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def hang_up(self) -> None:
        """Close the connections that `http` keeps open."""
        await self.http.aclose()
        self.http = _http()

    async def settled(self) -> None:
        """Wait until every daemon hears Redis, knows all others, and one of them records."""
        why = "nobody was asked"
        with trio.move_on_after(SETTLED_SECONDS):
            while why:
                try:
                    found = [await self.stats(daemon) for daemon in self.daemons]
                    nodes = [await self.nodes_at(daemon) for daemon in self.daemons]
                    recorders = sum(each["history"]["isRecorder"] for each in found)
                    is_healthy = all(each["status"] == "healthy" for each in found)
                    is_one = all(len(each) == len(self.daemons) for each in nodes)
                    why = "" if is_healthy and is_one and recorders == 1 else f"{recorders} record, {nodes}"
                except httpx.HTTPError as error:
                    why = repr(error)
                await trio.sleep(0.05)
        assert not why, f"the daemons did not settle within {SETTLED_SECONDS:g} s: {why}"

    async def nodes_at(self, daemon: DaemonProcess) -> list[str]:
        answer = await self.http.get(f"{daemon.url}/api/realtime/stats", params={"clients": "0"}, headers=ADMIN)
        return [f"{each['id']} {each['state']}" for each in answer.json()["nodes"]]

    async def recorder(self) -> DaemonProcess:
        for daemon in self.daemons:
            if (await self.stats(daemon))["history"]["isRecorder"]:
                return daemon
        raise AssertionError("nobody records")

    async def stop(self, daemon: DaemonProcess, number: int = signal.SIGTERM) -> int:
        """Returns the exit status."""
        return await aside(daemon.stop, number)

    async def start(self, daemon: DaemonProcess) -> None:
        """Again, on the port that it had."""
        if hasattr(daemon, "port"):
            daemon.listen = f"127.0.0.1:{daemon.port}"
        await aside(daemon.start)

    def reload(self, daemon: DaemonProcess) -> None:
        """With settings that are a little different each time."""
        self._reloads += 1
        self.write_settings()
        daemon.process.send_signal(signal.SIGHUP)

    def write_settings(self) -> None:
        # At once: another daemon may be reading it, and an empty file is one with every default.
        new = self.settings.with_suffix(".new")
        new.write_text(SETTINGS.format(number=5000 + self._reloads % 2))
        new.replace(self.settings)

    @property
    def settings(self) -> Path:
        return self.folder / "broker.toml"

    def complaints(self) -> list[str]:
        """What daemons logged as errors."""
        return [f"in the log: {json.dumps(entry)}" for daemon in self.daemons for entry in errors_of(daemon)[:20]]


@asynccontextmanager
async def open_house(folder: Path, count: int) -> AsyncIterator[House]:
    """Redis and `count` daemons, settled. In the end they are stopped."""
    server = RedisServer(folder, PERSISTENCE)
    publisher = TrioPublisher(server.url, timeout_seconds=10.0, pause_seconds=0.05, threads_max=8)
    house = House(folder, server, [], publisher, _http())
    house.write_settings()
    for number in range(count):
        flags = ("--log-format", "json", "--config", str(house.settings), "--daemon-node", f"d{number}")
        daemon = DaemonProcess(
            server.url,
            folder / f"daemon-{number}.log",
            flags,
            {"BROKER_AUTH_SECRET": SECRET, "XDG_RUNTIME_DIR": str(folder)},
            window=folder / f"window-{number}.json",
        )
        house.daemons.append(daemon)
    async with publisher:
        try:
            await aside(server.start)
            async with trio.open_nursery() as nursery:
                for daemon in house.daemons:
                    nursery.start_soon(house.start, daemon)
            await house.settled()
            yield house
        finally:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    for daemon in house.daemons:
                        if hasattr(daemon, "port"):
                            nursery.start_soon(house.stop, daemon)
                await aside(server.kill)
                await house.http.aclose()


def _http() -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(timeout=20.0, trust_env=False, limits=limits, verify=False)
