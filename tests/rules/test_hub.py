"""The hub: who gets what, when somebody has joined, and what is asked of Redis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import Factory, define, evolve
from structlog.testing import capture_logs

from broker.hub import Hub, UpstreamStatistics
from broker.position import Start
from broker.topic.topic import Terms, Topic
from broker.wireformat import WireFormat


def _joined(payloads: Sequence[bytes]) -> bytes:
    return b"|".join(payloads)


def _format(name: str, start: bytes, end: bytes, *more: Any) -> WireFormat:
    return WireFormat(
        name,
        lambda payloads, channel: start + _joined(payloads) + end,
        lambda channel, run: start + _joined(run.payloads) + end,
        lambda channel, gap: b"gap:" + gap.reason.encode(),
        *more,
    )


PLAIN = _format("plain", b"<", b">")
OTHER = _format("other", b"[", b"]")
FINITE = _format(
    "finite",
    b"(",
    b")",
    lambda payloads: payloads.index(b"last") if b"last" in payloads else None,
    lambda payload: b"end:" + payload,
)


@define(eq=False)
class FakeUpstream:
    """Channels are live when the test says so."""

    live: set[bytes] = Factory(set)
    asked: list[str] = Factory(list)

    def want(self, name: bytes) -> bool:
        self.asked.append(f"want {name.decode()}")
        return name in self.live

    def release(self, name: bytes) -> None:
        self.asked.append(f"release {name.decode()}")

    def statistics(self) -> UpstreamStatistics:
        raise NotImplementedError


@define(eq=False)
class FakeClient:
    """Outlet and subscriber in one; `heard` is everything in its order."""

    heard: list[object] = Factory(list)
    backlog_bytes: int = 0

    @property
    def outlet(self) -> FakeClient:
        return self

    def deliver(self, data: bytes, events: int, now: float) -> None:
        self.heard.append((data, events))

    def offer(self, data: bytes, events: int, now: float, most: int) -> bool:
        self.deliver(data, events, now)
        return True

    def joined(self, names: tuple[bytes, ...], starts: Mapping[bytes, Start]) -> None:
        self.heard.append(("joined", *names))

    def refused(self, name: bytes, why: str) -> None:
        self.heard.append(("refused", name, why))

    def stream_ended(self, name: bytes) -> None:
        self.heard.append(("ended", name))

    def failed(self) -> None:
        self.heard.append("failed")


def hub_on(upstream: Any, on_end: Callable[[bytes], None] = lambda name: None) -> Hub:
    """A hub whose channels have no history, and end who is too slow."""
    terms = Terms(lambda: 0.0, 1000, 1000, on_end)
    return Hub(upstream, lambda name: Topic(name, "disconnect", terms), terms.books)


def hub_with(*live: bytes) -> tuple[Hub, FakeUpstream]:
    upstream = FakeUpstream(set(live))
    return hub_on(upstream), upstream


def test_a_batch_is_encoded_once_for_each_format_and_shared() -> None:
    hub, _ = hub_with(b"a")
    one, two, other = FakeClient(), FakeClient(), FakeClient()
    assert hub.join(one, (b"a",), PLAIN, {}, 0.0)
    assert hub.join(two, (b"a",), PLAIN, {}, 0.0)
    assert hub.join(other, (b"a",), OTHER, {}, 0.0)
    hub.dispatch({b"a": [b"1", b"2"], b"nobody": [b"3"]}, 0.0)
    assert one.heard == two.heard == [("joined", b"a"), (b"<1|2>", 2)]
    assert other.heard[1:] == [(b"[1|2]", 2)]
    assert one.heard[1][0] is two.heard[1][0]  # type: ignore[index]
    statistics = hub.statistics()
    assert (statistics.channels, statistics.subscriptions) == (1, 3)
    assert (statistics.messages, statistics.deliveries, statistics.bytes) == (2, 6, 15)


def test_a_channel_that_fails_ends_who_listens_to_it_and_nobody_else() -> None:
    def fail(payloads: Sequence[bytes], name: bytes) -> bytes:
        raise RuntimeError("an encoder")

    hub, _ = hub_with(b"a", b"b")
    one, same, other = FakeClient(), FakeClient(), FakeClient()
    assert hub.join(one, (b"a",), evolve(OTHER, encode=fail), {}, 0.0)
    assert hub.join(same, (b"a",), PLAIN, {}, 0.0)
    assert hub.join(other, (b"b",), PLAIN, {}, 0.0)
    with capture_logs() as logged:
        hub.dispatch({b"a": [b"1"], b"b": [b"2"]}, 0.0)
    assert [one.heard[-1], same.heard[-1], other.heard[-1]] == ["failed", "failed", (b"<2>", 1)]
    assert [(entry["event"], entry["channel"], entry["clients"]) for entry in logged] == [("a channel failed", "a", 2)]


def test_nothing_comes_before_joined_and_nothing_is_missed_after() -> None:
    hub, _ = hub_with()
    client = FakeClient()
    assert hub.join(client, (b"a",), PLAIN, {}, 0.0) is False
    hub.dispatch({b"a": [b"early"]}, 0.0)
    hub.opened(b"a", 0.0)
    hub.dispatch({b"a": [b"1"]}, 0.0)
    assert client.heard == [("joined", b"a"), (b"<1>", 1)]


def test_several_channels_are_joined_as_one() -> None:
    hub, _ = hub_with(b"a")
    client = FakeClient()
    assert hub.join(client, (b"a", b"b", b"c"), PLAIN, {}, 0.0) is False
    hub.opened(b"c", 0.0)
    hub.dispatch({b"a": [b"early"], b"c": [b"early"]}, 0.0)
    assert client.heard == []
    hub.opened(b"b", 0.0)
    hub.dispatch({b"a": [b"1"], b"c": [b"2"]}, 0.0)
    assert client.heard == [("joined", b"a", b"b", b"c"), (b"<1>", 1), (b"<2>", 1)]


def test_a_loss_half_way_begins_the_joining_anew() -> None:
    hub, upstream = hub_with(b"a")
    client = FakeClient()
    hub.join(client, (b"a", b"b"), PLAIN, {}, 0.0)
    upstream.live.clear()
    hub.lost()
    hub.opened(b"b", 0.0)
    assert client.heard == []
    hub.opened(b"a", 0.0)
    assert client.heard == [("joined", b"a", b"b")]


def test_who_has_joined_is_told_of_a_loss_and_goes_on() -> None:
    hub, _ = hub_with(b"a")
    client = FakeClient()
    hub.join(client, (b"a",), PLAIN, {}, 0.0)
    hub.lost()
    hub.opened(b"a", 0.0)
    hub.dispatch({b"a": [b"1"]}, 0.0)
    assert client.heard == [("joined", b"a"), (b"gap:redis_away", 0), (b"<1>", 1)]


def test_a_channel_is_released_with_its_last_subscriber() -> None:
    hub, upstream = hub_with(b"a")
    one, two = FakeClient(), FakeClient()
    hub.join(one, (b"a",), PLAIN, {}, 0.0)
    hub.join(two, (b"a",), OTHER, {}, 0.0)
    hub.leave(one, b"a")
    hub.leave(one, b"a")
    assert "release a" not in upstream.asked
    hub.leave(two, b"a")
    assert upstream.asked[-1] == "release a"
    assert upstream.asked.count("release a") == 1
    assert hub.names() == []
    hub.dispatch({b"a": [b"1"]}, 0.0)
    assert len(one.heard) == len(two.heard) == 1


def test_leaving_while_joining_releases_all_channels_of_the_joining() -> None:
    hub, upstream = hub_with()
    leaving, staying = FakeClient(), FakeClient()
    hub.join(leaving, (b"a", b"b"), PLAIN, {}, 0.0)
    hub.join(staying, (b"b",), PLAIN, {}, 0.0)
    hub.leave(leaving, b"a")
    hub.leave(leaving, b"b")
    assert [line for line in upstream.asked if line.startswith("release")] == ["release a"]
    hub.opened(b"a", 0.0)
    hub.opened(b"b", 0.0)
    assert leaving.heard == []
    assert staying.heard == [("joined", b"b")]


def test_a_refused_channel_is_told_to_everyone_on_it_and_forgotten() -> None:
    hub, upstream = hub_with(b"a", b"b")
    here, coming, both = FakeClient(), FakeClient(), FakeClient()
    hub.join(here, (b"a",), PLAIN, {}, 0.0)
    hub.join(both, (b"a", b"b"), PLAIN, {}, 0.0)
    upstream.live.clear()
    hub.lost()
    hub.join(coming, (b"a",), PLAIN, {}, 0.0)
    hub.refused(b"a", "no rights")
    for client in (here, coming, both):
        assert client.heard[-1] == ("refused", b"a", "no rights")
    assert hub.names() == ["b"]
    assert upstream.asked[-1] == "release a"
    assert hub.subscriptions == 1
    hub.leave(here, b"a")
    hub.leave(both, b"a")
    hub.leave(both, b"b")
    assert (hub.names(), hub.subscriptions) == ([], 0)


def test_refusing_one_of_several_ends_the_whole_joining() -> None:
    hub, upstream = hub_with()
    client = FakeClient()
    hub.join(client, (b"a", b"b"), PLAIN, {}, 0.0)
    hub.refused(b"b", "no rights")
    assert client.heard == [("refused", b"b", "no rights")]
    assert hub.names() == []
    assert sorted(line for line in upstream.asked if line.startswith("release")) == ["release a", "release b"]
    hub.opened(b"a", 0.0)
    hub.refused(b"a", "nobody there")
    assert len(client.heard) == 1


def test_a_stream_with_an_end_stops_there_and_others_go_on() -> None:
    ended: list[bytes] = []
    upstream = FakeUpstream({b"a"})
    hub = hub_on(upstream, ended.append)
    finite, plain = FakeClient(), FakeClient()
    hub.join(finite, (b"a",), FINITE, {}, 0.0)
    hub.join(plain, (b"a",), PLAIN, {}, 0.0)
    hub.dispatch({b"a": [b"1", b"last", b"after"]}, 0.0)
    assert finite.heard == [("joined", b"a"), (b"(1|last)end:last", 2), ("ended", b"a")]
    assert plain.heard == [("joined", b"a"), (b"<1|last|after>", 3)]
    assert ended == [b"a"]
    assert hub.statistics().deliveries == 5


def test_a_stream_that_has_not_ended_is_as_any_other() -> None:
    hub, _ = hub_with(b"a")
    client = FakeClient()
    hub.join(client, (b"a",), FINITE, {}, 0.0)
    hub.dispatch({b"a": [b"1"]}, 0.0)
    assert client.heard[1:] == [(b"(1)", 1)]


def test_names_of_a_channel_are_in_the_order_of_their_coming() -> None:
    hub, _ = hub_with()
    client = FakeClient()
    for name in (b"c", b"a", b"b"):
        hub.join(client, (name,), PLAIN, {}, 0.0)
    assert hub.names() == ["c", "a", "b"]
