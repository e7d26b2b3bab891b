"""Where it is measured: a Redis of its own and a daemon on it, with types that keep history.

bench   no history; not declared
kept    1000 events, for bursts and resumes
long    50 000 events: no client here is so slow that it needs more
state   100 events, and a new subscriber gets the newest, as the built-in types for progress and metrics
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import evolve, frozen

from broker.history.scripts import PUBLISH
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer

KEPT = "kept"
LONG = "long"
STATE = "state"

_FILE = "broker.toml"
_SETTINGS = """\
[types.kept]
history_length = 1000
history_seconds = 3600.0

[types.long]
history_length = 50000
history_seconds = 3600.0
slow_clients = "catch_up"

[types.state]
history_length = 100
history_seconds = 3600.0
replay = 1
"""


@frozen
class Place:
    """Both run. `folder` has the settings and the logs."""

    folder: Path
    redis: RedisServer
    daemon: DaemonProcess
    redis_pid: int
    redis_version: str

    @property
    def daemon_pid(self) -> int:
        return self.daemon.process.pid


@contextmanager
def opened(folder: Path) -> Iterator[Place]:
    """Both are started, and stopped in the end."""
    redis = RedisServer(folder)
    redis.start()
    (folder / _FILE).write_text(_SETTINGS)
    daemon = _daemon(folder, redis, "daemon.log")
    try:
        daemon.start()
        daemon.stats()  # the web app is loaded from here on
        with redis.client() as client:
            server = client.info("server")
            client.script_load(PUBLISH.text)
        version = server.get("valkey_version") or server["redis_version"]
        yield Place(folder, redis, daemon, server["process_id"], version)
        daemon.stop()
    finally:
        redis.kill()


@contextmanager
def another_daemon(place: Place, secret: str = "") -> Iterator[Place]:
    """The same place with a daemon that has served nobody; with a secret it asks for tokens."""
    daemon = _daemon(place.folder, place.redis, "another.log")
    daemon.environ = {"BROKER_AUTH_SECRET": secret} if secret else {}
    daemon.start()
    if not secret:
        daemon.stats()
    yield evolve(place, daemon=daemon)
    daemon.stop()


def _daemon(folder: Path, redis: RedisServer, log: str) -> DaemonProcess:
    return DaemonProcess(redis.url, folder / log, ("--config", str(folder / _FILE)))
