"""The round trip: five events are published, and must come back over WebSocket and SSE.

Each is sent when the one before it has come, so what is measured is the way of one event, not a queue.
Laws: a listener raises nothing; what happens to it is its own finding. Bounds: each event is waited for
up to the deadline, and a listener that missed one is not waited for again.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from statistics import median

import trio
from attrs import Factory, define

from broker.doctor.conversation import Conversation
from broker.doctor.diagnosis import CONNECTION_ERRORS, diagnosis
from broker.doctor.finding import CheckFailed, Finding
from broker.doctor.publisher import Publisher
from broker.doctor.target import Target
from broker.doctor.web import BUFFERING_ADVICE, EventStream
from broker.events import JobProgress

EVENTS = 5

Hear = Callable[[bytes], None]
# Listens until cancelled: for whom, what to call for each event, what to call once subscribed.
Listen = Callable[["RoundTrip", Hear, Callable[[], None]], Awaitable[None]]


@define(eq=False)
class Listener:
    """One subscriber of the round trip: what came, and when."""

    name: str
    listen: Listen
    payloads: list[bytes] = Factory(list)
    arrived_at: list[float] = Factory(list)
    failure: CheckFailed | None = None
    is_late: bool = False

    @property
    def is_waited_for(self) -> bool:
        return self.failure is None and not self.is_late


@define(eq=False)
class RoundTrip:
    """One channel of its own, its listeners, and what was sent on it.

    Args:
        seconds: the deadline for subscribing, for publishing, and for each event.
    """

    target: Target
    publisher: Publisher
    seconds: float
    listeners: tuple[Listener, ...]
    id: str = Factory(lambda: f"doctor_{os.urandom(8).hex()}")
    _sent: list[bytes] = Factory(list)
    _sent_at: list[float] = Factory(list)
    _heard: trio.Event = Factory(trio.Event)
    _handed: int | None = None

    @property
    def channel(self) -> str:
        return f"job_progress:{self.id}"

    async def run(self) -> str:
        """Subscribe, publish, wait. `judge` then tells about each listener.

        Raises:
            CheckFailed: nothing could be published.
        """
        async with trio.open_nursery() as nursery:
            for listener in self.listeners:
                await nursery.start(self._attend, listener)
            failure = await self._publish_all()
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        count = len(self._sent)
        return f"{count} event{'' if count == 1 else 's'} through {self.publisher.way}"

    def judge(self, listener: Listener) -> Finding:
        """What came of it for one listener; its milliseconds are the median.

        Raises:
            CheckFailed: not every event came, or not in order.
        """
        if listener.failure is not None:
            raise listener.failure
        if len(listener.payloads) < EVENTS:
            raise self._missing(listener)
        if listener.payloads != self._sent:
            raise CheckFailed("the events came out of order, or changed", "find out what stands between")
        taken = [(at - sent) * 1000 for at, sent in zip(listener.arrived_at, self._sent_at, strict=True)]
        text = f"{EVENTS} of {EVENTS} in order, latency min {min(taken):.1f} ms, median {median(taken):.1f} ms"
        return Finding(listener.name, "ok", text, milliseconds=median(taken))

    def _missing(self, listener: Listener) -> CheckFailed:
        text = f"{len(listener.payloads)} of {len(self._sent)} came within {self.seconds:g} s each"
        if any(len(other.payloads) == EVENTS for other in self.listeners):
            return CheckFailed(
                f"{text}, while others had all: something in between buffers the stream", BUFFERING_ADVICE
            )
        if self._handed == 0:
            return CheckFailed(
                f"{text}: nobody is subscribed to them in that Redis",
                "it is not the daemon's: correct --redis, or give its redis.channel_prefix as --channel-prefix",
            )
        return CheckFailed(text, "see what stats says: whether Redis is there, and what was refused")

    async def _publish_all(self) -> CheckFailed | None:
        for number in range(1, EVENTS + 1):
            waited_for = [listener for listener in self.listeners if listener.is_waited_for]
            if not waited_for:
                return None
            event = JobProgress(
                job_id=self.id,
                status="processing",
                stage="doctor",
                progress=number / EVENTS,
                message=f"{number} of {EVENTS}",
            )
            payload = event.encode()
            self._sent.append(payload)
            self._sent_at.append(trio.current_time())
            try:
                with trio.fail_after(self.seconds):
                    self._handed = await self.publisher.publish(self.channel, payload)
            except trio.TooSlowError:
                return CheckFailed(f"not taken within {self.seconds:g} s", "see whether Redis answers: redis-cli PING")
            except CheckFailed as failed:
                return failed
            except CONNECTION_ERRORS as error:
                return diagnosis(error)
            await self._wait_for(number, waited_for)
        return None

    async def _wait_for(self, count: int, listeners: list[Listener]) -> None:
        with trio.move_on_after(self.seconds):
            while any(len(listener.payloads) < count and listener.is_waited_for for listener in listeners):
                self._heard = trio.Event()
                await self._heard.wait()
        for listener in listeners:
            listener.is_late = len(listener.payloads) < count

    async def _attend(self, listener: Listener, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled; ready once subscribed, or once it is known that it cannot be."""
        with trio.CancelScope(deadline=trio.current_time() + self.seconds) as subscribing:

            def subscribed() -> None:
                if subscribing.deadline < float("inf"):
                    subscribing.deadline = float("inf")
                    task_status.started()

            def hear(payload: bytes) -> None:
                if self.id.encode() not in payload:
                    return  # the daemon's own words, such as a heartbeat
                listener.payloads.append(payload)
                listener.arrived_at.append(trio.current_time())
                self._heard.set()

            try:
                await listener.listen(self, hear, subscribed)
            except CheckFailed as failed:
                listener.failure = failed
            except CONNECTION_ERRORS as error:
                listener.failure = diagnosis(error)
        if subscribing.cancelled_caught:
            listener.failure = CheckFailed(f"not subscribed within {self.seconds:g} s", "see what is said above")
        self._heard.set()
        if subscribing.deadline < float("inf"):
            task_status.started()


async def listen_websocket(trip: RoundTrip, hear: Hear, subscribed: Callable[[], None]) -> None:
    """Subscribe over a WebSocket of its own. Runs until cancelled."""
    conversation = await Conversation.open(trip.target)
    try:
        await conversation.subscribe(trip.channel)
        subscribed()
        while True:
            hear((await conversation.hear()).encode())
    finally:
        await conversation.cut()


async def listen_stream(trip: RoundTrip, hear: Hear, subscribed: Callable[[], None]) -> None:
    """Subscribe over a stream of its own. Runs until cancelled."""
    events = await EventStream.open(trip.target, f"/api/stream?channel={trip.channel}")
    try:
        while True:
            event = await events.next()
            if '"connected"' in event.data:
                subscribed()
            elif event.data:
                hear(event.data.encode())
    finally:
        await events.cut()
