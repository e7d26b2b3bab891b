"""Who is too slow: what each policy leaves out, and how it is told."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import Factory, define

from broker.gap import TRIMMED, Gap
from broker.position import Start
from broker.run import Run
from broker.topic.topic import Terms, Topic
from broker.wireformat import WireFormat

LINES = WireFormat(
    "lines",
    lambda payloads, name: b"".join(b"%b\n" % payload for payload in payloads),
    lambda name, run: b"".join(b"%b %b\n" % pair for pair in zip(run.positions, run.payloads, strict=True)),
    lambda name, gap: b"gap %b %b..%b %d\n" % (gap.reason.encode(), gap.begin or b"", gap.end or b"", gap.count or 0),
)


@define(eq=False)
class Client:
    """Takes what it is given while it has room."""

    heard: list[str] = Factory(list)
    has_room: bool = True
    rooms: list[bool] = Factory(list)  # for the next offers
    most: list[int] = Factory(list)
    backlog_bytes: int = 0

    @property
    def outlet(self) -> Client:
        return self

    def deliver(self, data: bytes, events: int, now: float) -> None:
        self.heard += data.decode().splitlines()

    def offer(self, data: bytes, events: int, now: float, most: int) -> bool:
        self.most.append(most)
        has_room = self.rooms.pop(0) if self.rooms else self.has_room
        if has_room:
            self.deliver(data, events, now)
        return has_room

    def joined(self, names: tuple[bytes, ...], starts: Mapping[bytes, Start]) -> None:
        raise AssertionError

    def refused(self, name: bytes, why: str) -> None:
        raise AssertionError

    def stream_ended(self, name: bytes) -> None:
        raise AssertionError

    def failed(self) -> None:
        raise AssertionError


def topic_with(policy: str, *clients: Client) -> Topic:
    topic = Topic(b"a", policy, Terms(lambda: 0.0, 500, 10, lambda name: None))
    for client in clients:
        topic.enter(client, LINES)
    return topic


def hand_on(topic: Topic, *payloads: bytes) -> None:
    topic.hand_on(Run.without_positions(payloads), 0.0)


def run(first: int, *payloads: bytes) -> Run:
    positions = [b"7:%d:1" % (first + index) for index in range(len(payloads))]
    return Run(b"7", first, first + len(payloads) - 1, positions[-1], positions, list(payloads))


def test_of_a_gauge_the_newest_value_waits() -> None:
    slow, quick = Client(), Client()
    topic = topic_with("latest", slow, quick)
    hand_on(topic, b"1")
    slow.has_room = False
    for batch in ([b"2", b"3"], [b"4"], [b"5", b"6"]):
        hand_on(topic, *batch)
    assert (slow.heard, topic.late, slow.backlog_bytes) == (["1"], 1, 1)
    slow.has_room = True
    topic.drained(slow, 0.0)
    hand_on(topic, b"7")
    assert slow.heard == ["1", "6", "7"]
    assert quick.heard == ["1", "2", "3", "4", "5", "6", "7"]
    # Whatever waits, if only a byte, is enough.
    assert set(slow.most) == {0}
    books = topic.terms.books
    assert (books.skipped, dict(books.gaps), books.deliveries, topic.late) == (4, {}, 10, 0)
    assert slow.backlog_bytes == 0


def test_the_oldest_are_dropped_over_the_bound_and_their_number_is_told() -> None:
    slow = Client(has_room=False)
    topic = topic_with("drop_oldest", slow)
    topic.hand_on(run(1, b"aaaa", b"bbbb"), 0.0)
    topic.hand_on(run(3, b"cccc", b"dddd", b"eeee"), 0.0)
    slow.has_room = True
    topic.drained(slow, 0.0)
    assert slow.heard == ["gap overflow 7:0:0..7:3:1 3", "7:4:1 dddd", "7:5:1 eeee"]
    assert set(slow.most) == {500}
    assert (topic.terms.books.dropped, dict(topic.terms.books.gaps), slow.backlog_bytes) == (3, {"overflow": 1}, 0)
    topic.hand_on(run(6, b"f"), 0.0)
    assert slow.heard[-1] == "7:6:1 f"


def test_one_event_stays_whatever_its_size() -> None:
    slow = Client(has_room=False)
    topic = topic_with("drop_oldest", slow)
    hand_on(topic, b"a", b"b" * 100)
    slow.has_room = True
    topic.drained(slow, 0.0)
    assert slow.heard == ["gap overflow .. 1", "b" * 100]


def test_the_bound_is_for_all_channels_of_a_client_together() -> None:
    slow = Client(has_room=False)
    one, other = topic_with("drop_oldest", slow), topic_with("drop_oldest", slow)
    hand_on(one, b"aaaa", b"bbbb")
    hand_on(other, b"cccc", b"dddd")
    assert slow.backlog_bytes == 12  # each keeps its newest
    slow.has_room = True
    for topic in (one, other):
        topic.drained(slow, 0.0)
    assert slow.heard == ["aaaa", "bbbb", "gap overflow .. 1", "dddd"]
    assert slow.backlog_bytes == 0


def test_a_gap_comes_to_who_is_slow_where_it_belongs() -> None:
    slow = Client(has_room=False)
    topic = topic_with("drop_oldest", slow)
    hand_on(topic, b"1")
    topic.tell(Gap(TRIMMED, b"7:1:1", b"7:3:1", 0.0), 0.0)
    hand_on(topic, b"2")
    assert slow.heard == []
    slow.has_room = True
    topic.drained(slow, 0.0)
    assert slow.heard == ["1", "gap trimmed 7:1:1..7:3:1 0", "2"]


def test_a_gap_among_what_is_dropped_keeps_its_reason_and_its_place() -> None:
    """What it covers is not counted as dropped."""
    slow = Client(has_room=False)
    topic = topic_with("drop_oldest", slow)
    topic.hand_on(run(1, b"aaaa", b"bbbb"), 0.0)
    topic.tell(Gap(TRIMMED, b"7:2:1", b"7:40:0", 0.0), 0.0)
    topic.hand_on(run(41, b"cccc", b"dddd", b"eeee", b"ffff"), 0.0)
    slow.has_room = True
    topic.drained(slow, 0.0)
    assert slow.heard == [
        "gap overflow 7:0:0..7:2:1 2",
        "gap trimmed 7:2:1..7:40:0 0",
        "gap overflow 7:40:0..7:42:1 2",
        "7:43:1 eeee",
        "7:44:1 ffff",
    ]
    assert dict(topic.terms.books.gaps) == {"overflow": 2, "trimmed": 1}


def test_who_has_room_for_half_waits_again() -> None:
    slow = Client(has_room=False)
    topic = topic_with("drop_oldest", slow)
    hand_on(topic, b"1")
    hand_on(topic, b"2")
    slow.rooms = [True, False, True]
    topic.drained(slow, 0.0)
    assert (slow.heard, topic.late) == (["1"], 1)
    topic.drained(slow, 0.0)
    assert (slow.heard, topic.late) == (["1", "2"], 0)


def test_who_leaves_takes_its_backlog_along() -> None:
    slow = Client(has_room=False)
    topic = topic_with("drop_oldest", slow)
    hand_on(topic, b"1")
    topic.leave(slow)
    assert (topic.subscribers, topic.late, slow.backlog_bytes) == (0, 0, 0)


def test_who_is_to_be_ended_for_it_is_given_everything() -> None:
    """Its outlet ends it; also where each client's bytes are its own."""
    slow = Client(has_room=False)
    topic = topic_with("disconnect", slow)
    hand_on(topic, b"1")
    assert topic.offer(slow, LINES, run(2, b"2"), 0.0)
    assert (slow.heard, slow.most, topic.late) == (["1", "7:2:1 2"], [], 0)
