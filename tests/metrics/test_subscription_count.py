"""Subscriptions are counted as they come and go; `tests/rules/test_trail.py` compares the count in every story."""

from __future__ import annotations

from typing import Any

from attrs import Factory, define

from broker.hub import Hub
from broker.topic.topic import Terms
from broker.topic.trail import Trail
from tests.rules.test_hub import PLAIN, FakeClient, FakeUpstream


@define(eq=False)
class Historian:
    """Is asked, and does not answer."""

    asked: list[bytes] = Factory(list)

    def read(self, name: bytes, *_: Any) -> None:
        self.asked.append(name)


def hub_with_history() -> tuple[Hub, Historian]:
    historian: Any = Historian()
    terms = Terms(lambda: 0.0, 1000, 1000, lambda name: None)
    hub = Hub(
        FakeUpstream({b"a", b"broker:x"}), lambda name: Trail(name, "catch_up", terms, historian=historian), terms.books
    )
    return hub, historian


def test_who_waits_for_its_history_is_not_counted_when_redis_refuses() -> None:
    hub, historian = hub_with_history()
    hub.join(FakeClient(), (b"a",), PLAIN, {}, 0.0)
    assert (historian.asked, hub.subscriptions) == ([b"a"], 0)
    hub.refused(b"a", "no rights")
    assert (hub.subscriptions, hub.names()) == (0, [])


def test_what_daemons_say_among_themselves_is_not_counted() -> None:
    hub = Hub(FakeUpstream({b"broker:x"}), hub_with_history()[0].make_topic, Terms(lambda: 0.0, 1, 1, print).books)
    ear = FakeClient()
    hub.join(ear, (b"broker:x",), PLAIN, {}, 0.0)
    hub.leave(ear, b"broker:x")
    assert hub.subscriptions == 0
