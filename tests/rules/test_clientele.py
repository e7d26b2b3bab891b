"""The clientele: whose time is over is ended, once, and who has left is not kept until its token is over."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from attrs import define, field

from broker.auth.identity import USER, Identity
from broker.clientele import Clientele
from broker.ending import TOKEN_EXPIRED, Ending


@define(eq=False)
class FakeOutbox:
    events: int = 0


@define(eq=False)
class FakeClient:
    id: str
    identity: Identity
    transport: str = "websocket"
    outbox: FakeOutbox = field(factory=FakeOutbox)
    ending: Ending | None = None

    def end(self, ending: Ending) -> None:
        assert self.ending is None
        self.ending = ending


def ann(expires_at: float) -> Identity:
    return Identity(USER, "ann", expires_at=expires_at)


def test_who_has_left_is_gone_though_its_token_is_not_over() -> None:
    clientele = Clientele(clock=lambda: 0.0)
    client: Any = FakeClient("c1", ann(1000.0))
    clientele.add(client)
    clientele.remove(client)
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None


def test_a_token_that_is_over_ends_its_client_alone() -> None:
    now = 0.0
    clientele = Clientele(clock=lambda: now)
    over, left, renewed, stays = clients = [FakeClient(f"c{number}", ann(10.0)) for number in range(4)]
    stays.identity = ann(30.0)
    for each in clients:
        clientele.add(each)  # type: ignore[arg-type]
    clientele.remove(left)  # type: ignore[arg-type]
    clientele.identify(renewed, ann(20.0))  # type: ignore[arg-type]
    now = 10.0
    clientele.end_expired()
    assert [each.ending for each in clients] == [TOKEN_EXPIRED, None, None, None]
    clientele.remove(over)  # type: ignore[arg-type]
    now = 20.0
    clientele.end_expired()
    assert (renewed.ending, stays.ending) == (TOKEN_EXPIRED, None)


def test_many_that_came_and_left_are_sorted_out() -> None:
    clientele = Clientele(clock=lambda: 0.0)
    stays: Any = FakeClient("stays", ann(5.0))
    clientele.add(stays)
    for number in range(3000):
        client: Any = FakeClient(f"c{number}", ann(1000.0))
        clientele.add(client)
        clientele.remove(client)
    assert len(clientele._expiring) <= 1002
    clientele.clock = lambda: 5.0
    clientele.end_expired()
    assert stays.ending is TOKEN_EXPIRED
