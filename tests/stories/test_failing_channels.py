"""A channel that cannot be handed on: its listeners end, come back to their place, and nobody else hears of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.actors.daemon_process import DaemonProcess
from tests.actors.followers import Follower, V1Follower, WebSocketFollower, follow, open_followers
from tests.actors.peers import Peer, open_streams, open_websockets, pump
from tests.actors.redis_server import RedisServer
from tests.actors.tampered import VICTIM, Tampered
from tests.conftest import errors_of
from tests.promise.oracle import STAMPED, Truth
from tests.promise.publishing import StampingPublisher

FAILING, OTHER = f"kept:{VICTIM}", "kept:1"
FLAGS = ("--log-format", "json", "--type", "kept.history_length=1000", "--type", "kept.history_seconds=600")
CLOSE_1011 = b"\x03\xf3internal error"
LOGGED = "a channel failed"


def test_who_listens_to_a_channel_that_fails_is_ended_and_comes_back_to_its_place(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    tampered = Tampered(tmp_path / "tamper")
    daemon = DaemonProcess(
        redis_server.url, tmp_path / "daemon.log", FLAGS, {}, under=tampered.under, expected_errors={LOGGED}
    )
    daemon.start()
    try:
        truths = {channel: Truth({STAMPED: 0}) for channel in (FAILING, OTHER)}
        kinds: Sequence[type[Follower]] = (V1Follower, WebSocketFollower)
        failing = [kind((FAILING,), truths, daemon.port) for kind in kinds]
        others = [kind((OTHER,), truths, daemon.port) for kind in kinds]
        followers = [*failing, *others]
        open_followers(followers)
        watching: list[Peer] = [*open_websockets(daemon.port, 1, FAILING), *open_streams(daemon.port, 1, FAILING)]
        publisher = StampingPublisher.at(redis_server, seed=1)

        def publish() -> None:
            for channel, truth in truths.items():
                truth.published[STAMPED] += 1
                number = truth.published[STAMPED]
                publisher.publish(channel, [b'{"c":"%b","by":"stamped","n":%d}' % (channel.encode(), number)])

        publish()
        # By stamped messages, and by history for who comes back meanwhile.
        with tampered.raising("broker.wireformat:WireFormat.encoded"):
            publish()
            follow(followers, lambda: all(each.endings > 1 for each in failing if isinstance(each, V1Follower)))
            pump(watching, lambda: all(each.ended for each in watching))
        publish()
        follow(followers, lambda: not any(each.faults(is_end=True) for each in followers))
        publisher.close()
        assert not any(each.endings or each.gaps() for each in others)
        assert not any(each.gaps() for each in failing if isinstance(each, V1Follower))
        socket, stream = watching
        assert socket.raw.endswith(CLOSE_1011) and b"internal error" in stream.raw
        assert errors_of(daemon) == []
        assert '"clients": 4' in daemon.log()
        for each in followers:
            each.port = None
            each.cut()
    finally:
        daemon.stop()
