"""A daemon whose file changes under it: clients stay, and whoever comes next meets the new settings."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result
from websockets.exceptions import InvalidStatus

from broker.cli import group
from tests.access.visitor import SECRET, bearer, talking, token
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer
from tests.restarts.conftest import Row

OTHER_SECRET = "another secret of the tests, longer than 32 bytes"
BAD = "the new settings cannot be used; those before stay"


def broker(daemon: DaemonProcess, *arguments: str) -> Result:
    """A command of this machine's user."""
    clean = {key: None for key in os.environ if key.startswith("BROKER_")}
    environ = {**clean, **daemon.environ, "BROKER_LISTEN_ADDRESSES": daemon.listen}
    return CliRunner().invoke(group, arguments, env=environ)


def entries(daemon: DaemonProcess, event: str) -> list[dict[str, object]]:
    """The lines of its log about one thing."""
    return [entry for entry in map(json.loads, daemon.log().splitlines()) if entry["event"] == event]


def refused(url: str, **options: object) -> int:
    """The status that a WebSocket is refused with."""
    with pytest.raises(InvalidStatus) as raised, talking(url, **options):
        pass
    return raised.value.response.status_code


def test_what_counts_from_here_on(redis_server: RedisServer, row: Row, folder: Path) -> None:
    file = folder / "broker.toml"

    def write(secret: str = SECRET, rest: str = "") -> None:
        file.write_text(f'[auth]\nsecret = "{secret}"\n{rest}')

    write()
    daemon = row.first(redis_server.url, "--config", str(file))
    daemon.expected_errors.add(BAD)
    at = ("--config", str(file))
    ann, page = bearer(token("ann")), {"Origin": "https://app.example.com"}
    with talking(daemon.ws_url, additional_headers=ann) as first:
        assert first.subscribe("feed:ann")["type"] == "subscribed"
        assert refused(daemon.ws_url, additional_headers={**ann, **page}) == 403

        write(rest='[limits]\nconnections_per_user = 2\n[listen]\nallowed_origins = ["https://app.example.com"]\n')
        done = broker(daemon, "reload", *at)
        assert (done.exit_code, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            "listen.allowed_origins: [] -> ['https://app.example.com']",
            "limits.connections_per_user: 100 -> 2",
        ]
        with talking(daemon.ws_url, additional_headers={**ann, **page}):
            assert refused(daemon.ws_url, additional_headers=ann) == 429

        # Rules, the log's level, and what waits; by a signal.
        rest = '[rules]\nuser_subscribe = ["news:*"]\n[log]\nlevel = "debug"\n[redis]\nping_seconds = 2.0\n'
        write(OTHER_SECRET, rest)
        assert entries(daemon, "connection closed") == []
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(entries(daemon, "settings read again")) == 2)
        told = entries(daemon, "settings read again")[1]
        assert told["need_restart"] == ["redis.ping_seconds"]
        assert str(told["changed"]).count("->") == 4
        assert OTHER_SECRET not in daemon.log()
        assert first.subscribe("other:ann")["code"] == "forbidden"
        assert first.subscribe("news:1")["type"] == "subscribed"
        redis_server.publish("feed:ann", b'{"type":"x","n":1}')
        assert first.hear("x")["n"] == 1
        assert refused(daemon.ws_url, additional_headers=ann) == 401
        with talking(daemon.ws_url, additional_headers=bearer(token("ann", secret=OTHER_SECRET))):
            pass
        wait_until(lambda: entries(daemon, "connection closed"))

        # What is wrong changes nothing, and says what it is.
        write(rest="[limits]\ncommands_burst = 0\n")
        done = broker(daemon, "reload", *at)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.splitlines() == [
            f"broker: {file}: limits.commands_burst: 0 is out of bounds; write at least 1",
            "broker: nothing has changed",
        ]
        assert len(entries(daemon, BAD)) == 1
        file.write_text("[auth\n")
        done = broker(daemon, "reload", *at)
        assert (done.exit_code, "is not TOML" in done.stderr) == (1, True)
        with talking(daemon.ws_url, additional_headers=bearer(token("bob", secret=OTHER_SECRET))):
            pass
        write(OTHER_SECRET, rest)
        done = broker(daemon, "reload", *at)
        assert (done.exit_code, done.stdout) == (0, "redis.ping_seconds: needs a restart\n")
        file.write_text("")  # authentication off: not while it runs
        done = broker(daemon, "reload", *at)
        assert "auth.secret: needs a restart" in done.stdout
        assert first.subscribe("other:ann")["type"] == "subscribed"  # rules are those of the file again

        # The dump, to the log.
        done = broker(daemon, "dump", *at)
        assert done.stdout.startswith("in the daemon's log: ")
        daemon.process.send_signal(signal.SIGUSR1)
        wait_until(lambda: len(entries(daemon, "dump: end")) == 2)
        (client, _) = entries(daemon, "dump: client")
        assert (client["user"], client["channels"]) == ("ann", ["feed:ann", "news:1", "other:ann"])
        assert any("Door.serve" in str(entry["what"]) for entry in entries(daemon, "dump: tasks"))
    assert httpx.get(f"{daemon.url}/health").status_code == 200
    nobody = broker(daemon, "reload", "--control-socket", str(folder / "none.sock"))
    assert str(nobody.exception) == (
        f"no daemon answers at {folder}/none.sock; name its socket with --control-socket, or its settings with --config"
    )
