"""A channel with history, its daemon's side and its clients, against a Redis of forty lines; no sockets, no clock.

A story publishes, reads the subscription bit by bit, lets history answer when it likes, breaks the link, trims, deletes
and rolls back Redis, and has clients come, go, come back and read slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from attrs import Factory, define, field

from broker.hub import Hub
from broker.position import Position, Since, Start
from broker.run import Runs, parsed
from broker.topic.page import Page, page_of
from broker.topic.reader import OnPage
from broker.topic.topic import Terms
from broker.topic.trail import Trail
from broker.wireformat import WireFormat

NAME = b"job:1"
PAGE_EVENTS = 3

# A line for each event, `<position> <payload>`, and for each gap.
LINES = WireFormat(
    "lines",
    lambda payloads, name: b"".join(b"- %b\n" % payload for payload in payloads),
    lambda name, run: b"".join(b"%b %b\n" % pair for pair in zip(run.positions, run.payloads, strict=True)),
    lambda name, gap: b"gap %b %b %b\n" % (gap.reason.encode(), gap.begin or b"-", gap.end or b"-"),
)


@define(eq=False)
class Redis:
    """One channel's history, and the subscription of one daemon to it."""

    random: Random
    epoch: bytes = b"0"
    events: list[tuple[int, bytes, bytes, bytes]] = Factory(list)  # offset, tag, how it came, payload
    top: int = 0
    wire: list[bytes] = Factory(list)
    is_heard: bool = False
    published: dict[tuple[bytes, int, bytes], bytes] = Factory(dict)
    number: int = 0
    generation: int = 0  # the recorder's
    recorded: int = 0  # the recorder's when it recorded last

    def wipe(self) -> None:
        self.epoch, self.events, self.top = str(self.random.getrandbits(30) + 1).encode(), [], 0
        self.recorded = 0

    def record(self) -> None:
        """As the script: what was published plainly, marked where another recorder begins."""
        self.publish(b"r" if self.recorded == self.generation else b"g%d" % self.generation)
        self.recorded = self.generation

    def publish(self, came: bytes = b"s") -> None:
        self.number += 1
        self.top += 1
        tag, payload = str(self.random.getrandbits(30) + 1).encode(), b"%d" % self.number
        self.events.append((self.top, tag, came, payload))
        position = b"%b:%d:%b" % (self.epoch, self.top, tag)
        self.published[(self.epoch, self.top, tag)] = payload
        if self.is_heard:
            self.wire.append(b"\x01%b:%b %b" % (came, position, payload))

    def read(self, since: Since | None, replay: int) -> list[Any]:
        """As the script: the answer to a question, at the moment when it is asked."""
        was = since.position if since is not None else None
        if was is not None and was.epoch == self.epoch:
            start = was.offset
        elif was is None:
            start = max(self.top - replay, 0)
        else:
            start = 0
        found = [event for event in self.events if event[0] >= start][: PAGE_EVENTS + 1]
        tag = self.events[-1][1] if self.events and self.events[-1][0] == self.top else b"0"
        top = b"%b %d %b %d" % (self.epoch, self.top, tag, self.recorded)
        return [
            top,
            b"%d" % self.generation,
            [[b"%d-%b" % (offset, tag), [came, payload]] for offset, tag, came, payload in found],
        ]


_Question = tuple[Since | None, int]


@define(eq=False)
class Historian:
    """Answers in the order of the questions: asked of Redis at one moment, told at a later one.

    Who asks the same shares an answer, also one that was given a moment ago.
    """

    redis: Redis
    replay: int
    asked: list[tuple[_Question, list[OnPage]]] = Factory(list)
    answered: list[tuple[_Question, list[OnPage], Page]] = Factory(list)
    kept: dict[_Question, Page] = Factory(dict)

    def read(self, name: bytes, since: Since | None, era: int, on_page: OnPage, is_wanted: Callable[[], bool]) -> None:
        question = (since, era)
        for other, waiting, *_ in (*self.asked, *self.answered):
            if other == question:
                waiting.append(on_page)
                return
        if question in self.kept:
            self.answered.append((question, [on_page], self.kept[question]))
        else:
            self.asked.append((question, [on_page]))

    def ask(self) -> None:
        if self.asked:
            question, waiting = self.asked.pop(0)
            reply = self.redis.read(question[0], self.replay)
            page = page_of(reply, question[0], self.replay, lambda payload: True, 0.0)
            self.answered.append((question, waiting, page))

    def tell(self) -> None:
        if not self.answered:
            return
        question, waiting, page = self.answered.pop(0)
        since = question[0]
        if since is not None and page.end != since.position:
            self.kept[question] = page
        if self.redis.random.random() < 0.3:
            self.kept.clear()
        for on_page in waiting:
            on_page(page, 0.0)


@define(eq=False)
class Client:
    """A subscriber and its outlet. `record`: what it was told, since it first came."""

    record: list[str] = Factory(list)
    is_slow: bool = False
    wants_room: bool = False
    is_joined: bool = False
    backlog_bytes: int = 0

    @property
    def outlet(self) -> Client:
        return self

    def deliver(self, data: bytes, events: int, now: float) -> None:
        self.record += data.decode().splitlines()

    def offer(self, data: bytes, events: int, now: float, most: int) -> bool:
        if self.is_slow:
            self.wants_room = True
            return False
        self.deliver(data, events, now)
        return True

    def joined(self, names: tuple[bytes, ...], starts: Mapping[bytes, Start]) -> None:
        self.is_joined = True
        position = starts[NAME].position
        assert position is not None
        self.record.append(f"start {position.decode()}")

    def refused(self, name: bytes, why: str) -> None:
        raise AssertionError(why)

    def stream_ended(self, name: bytes) -> None:
        raise AssertionError

    def failed(self) -> None:
        raise AssertionError

    def last(self) -> Position | None:
        """Where it would come back to."""
        for line in reversed(self.record):
            words = line.split()
            text = words[-1] if words[0] in ("gap", "start") else words[0]
            if (position := Position.from_text(text)) is not None:
                return position
        return None


@define(eq=False)
class Upstream:
    is_live: bool = False

    def want(self, name: bytes) -> bool:
        return self.is_live

    def release(self, name: bytes) -> None:
        pass

    def statistics(self) -> Any:
        raise NotImplementedError


def faults_in(record: list[str], redis: Redis) -> list[str]:
    """What a record breaks of the law."""
    faults = []
    at: Position | None = None
    seen: set[str] = set()
    may_jump = False
    for line in record:
        words = line.split()
        if words[0] == "start":
            here = Position.from_text(words[1])
            if at is not None and here is not None and (here.epoch, here.offset) != (at.epoch, at.offset):
                # Whoever came back elsewhere must be told why, before the next event.
                may_jump = False
                continue
            at = at or here
        elif words[0] == "gap":
            may_jump = True
            if words[1] == "epoch_changed":
                seen.clear()  # a backup may bring an epoch back that was known before
            end = Position.from_text(words[3])
            if end is not None:
                at = end
        else:
            here = Position.from_text(words[0])
            assert here is not None
            key = (here.epoch, here.offset, here.tag)
            if redis.published[key] != words[1].encode():
                faults.append(f"{line}: published was {redis.published[key]!r}")
            if words[0] in seen:
                faults.append(f"{line}: doubled")
            seen.add(words[0])
            follows = at is not None and here.epoch == at.epoch and here.offset == at.offset + 1
            if not follows and not may_jump:
                faults.append(f"{line}: after {at}, and no gap was told")
            at, may_jump = here, False
    return faults


@define(eq=False)
class Story:
    """One channel, up to four clients. Each method is something that may happen next."""

    random: Random
    replay: int
    redis: Redis = field(init=False)
    historian: Historian = field(init=False)
    upstream: Upstream = Factory(Upstream)
    terms: Terms = Factory(lambda: Terms(lambda: 0.0, 1000, 1000, lambda name: None))
    hub: Hub = field(init=False)
    clients: list[Client] = Factory(list)
    gone: list[Client] = Factory(list)
    snapshots: list[tuple[bytes, list[Any], int]] = Factory(list)

    def __attrs_post_init__(self) -> None:
        self.redis = Redis(self.random)
        self.redis.wipe()
        self.historian = Historian(self.redis, self.replay)
        self.hub = Hub(self.upstream, self.trail, self.terms.books)

    def trail(self, name: bytes) -> Trail:
        return Trail(name, "catch_up", self.terms, historian=self.historian)

    def publish(self) -> None:
        for _ in range(self.random.randint(1, 4)):
            self.redis.publish()

    def hear(self) -> None:
        """The link reads part of what is there."""
        count = self.random.randint(1, 4)
        messages, self.redis.wire = self.redis.wire[:count], self.redis.wire[count:]
        runs = Runs()
        for message in messages:
            came, epoch, offset, position, payload = parsed(message)
            runs.add(epoch, offset, position, payload, came)
        self.hub.take(NAME, runs.runs, 0.0)

    def lose_a_message(self) -> None:
        """Nothing does this that we know of; offsets are checked all the same."""
        if self.redis.wire:
            self.redis.wire.pop(self.random.randrange(len(self.redis.wire)))

    def ask(self) -> None:
        self.historian.ask()

    def tell(self) -> None:
        self.historian.tell()

    def come(self) -> None:
        if len(self.clients) < 4:
            self.clients.append(client := Client())
            self.hub.join(client, (NAME,), LINES, {}, 0.0)

    def leave(self) -> None:
        if self.clients:
            client = self.clients.pop(self.random.randrange(len(self.clients)))
            self.hub.leave(client, NAME)
            if client.record:
                self.gone.append(client)

    def come_back(self) -> None:
        if self.gone:
            old = self.gone.pop(0)
            self.clients.append(client := Client(old.record))
            self.hub.join(client, (NAME,), LINES, {NAME: Since(old.last())}, 0.0)

    def lose_the_link(self) -> None:
        if self.upstream.is_live:
            self.upstream.is_live = self.redis.is_heard = False
            self.redis.wire.clear()
            self.hub.lost()

    def find_the_link(self) -> None:
        if not self.upstream.is_live:
            self.upstream.is_live = self.redis.is_heard = True
            self.hub.opened(NAME, 0.0)

    def slow_down(self) -> None:
        if self.clients:
            self.random.choice(self.clients).is_slow = True

    def read_all(self) -> None:
        for client in self.clients:
            client.is_slow = False
            if client.wants_room:
                client.wants_room = False
                self.hub.drained(client, (NAME,), 0.0)

    def trim(self) -> None:
        self.redis.events = self.redis.events[self.random.randint(1, 3) :]

    def remember(self) -> None:
        self.snapshots.append((self.redis.epoch, list(self.redis.events), self.redis.top))

    def restart_empty(self) -> None:
        self.lose_the_link()
        self.redis.wipe()

    def delete(self) -> None:
        """Somebody deletes the history, or Redis evicts it."""
        self.redis.wipe()

    def restart_older(self) -> None:
        """Redis comes back with an older state, and gives offsets out again."""
        self.lose_the_link()
        if self.snapshots:
            epoch, events, top = self.snapshots[-1]
            self.redis.epoch, self.redis.events, self.redis.top = epoch, list(events), top

    def check(self) -> None:
        for client in (*self.clients, *self.gone):
            assert faults_in(client.record, self.redis) == [], client.record
        assert self.hub.subscriptions == self.hub.statistics().subscriptions

    def look_around(self) -> None:
        """A silent channel is compared with Redis."""
        for trail in self.hub.trails():
            top, _, _ = self.redis.read(None, 0)
            trail.compare(top, 0.0)

    def settle(self) -> None:
        for _ in range(300):
            self.hear()
            self.ask()
            self.tell()
            self.read_all()

    def end(self) -> None:
        """Whatever happened, in the end everybody has what there is, or was told."""
        self.find_the_link()
        self.settle()
        self.historian.kept.clear()
        self.look_around()
        self.settle()
        self.check()
        for client in self.clients:
            last = client.last()
            assert last is not None
            assert (last.epoch, last.offset) == (self.redis.epoch, self.redis.top), client.record
            self.hub.leave(client, NAME)
        assert self.hub.names() == []
