"""`Publisher`: publishes events from plain Python, in threads and forked processes.

Laws: making one connects to nothing. A call takes at most `timeout_seconds` (names that are looked up,
and the first call's import of redis-py, are outside of it). Without `confirm` it raises nothing and
answers whether Redis took the event; with it, how many received it, or an exception. Nothing is sent
twice, and what was lost is counted. Order: what one thread publishes arrives in that order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from attrs import define, field

from broker.publisher.circuit import Circuit
from broker.publisher.destination import MIB, Destination
from broker.publisher.exchange import CLOSED_OUTCOME, Outcome
from broker.publisher.fork import renew_after_fork
from broker.publisher.front import Front
from broker.publisher.pool import Pool
from broker.publisher.publication import (
    USERS_CHANNEL,
    Item,
    Payload,
    Publication,
    listed,
    made,
    publication,
    publications,
    user_publication,
)
from broker.publisher.statistics import Statistics, Tally
from broker.publisher.timer import Timer

if TYPE_CHECKING:
    from broker.events import Event
    from broker.publisher.job import Job


@define(eq=False, init=False)
class Publisher:
    """Publishes to Redis, for the daemon to deliver. Share one in a process; close it, or use `with`.

    Args:
        url: where Redis is. Default: `BROKER_REDIS_URL`, `REDIS_URL`, the daemon's embedded server.
        channel_prefix: as the daemon's. Default: `BROKER_REDIS_CHANNEL_PREFIX`, or none.
        timeout_seconds: the longest that a call may take.
        pause_seconds: after a failure, for how long events are given up at once.
        connections_max: threads that publish at the same moment; one more waits.
        event_max_bytes: the largest event; the daemon's limit is `channels.message_max_bytes`.

    Raises:
        ConfigError: one of these cannot be used.
    """

    destination: Destination
    front: Front = field(init=False)
    _pool: Pool = field(init=False)
    timer: Timer = field(init=False)

    def __init__(
        self,
        url: str | None = None,
        *,
        channel_prefix: str | None = None,
        timeout_seconds: float = 0.5,
        pause_seconds: float = 1.0,
        connections_max: int = 16,
        event_max_bytes: int = MIB,
    ) -> None:
        self.destination = Destination.from_settings(
            url,
            channel_prefix,
            timeout_seconds=timeout_seconds,
            pause_seconds=pause_seconds,
            connections_max=connections_max,
            event_max_bytes=event_max_bytes,
        )
        self._start()
        renew_after_fork(self)

    def _start(self) -> None:
        self.front = Front(self.destination, Tally(self.destination.shown, Circuit(self.destination.pause_seconds)))
        self._pool = Pool(self.destination)
        self.timer = Timer()

    def renew(self) -> None:
        """Called in a forked child: connections, locks and counts of its own; closed if it was."""
        old = self._pool
        self._start()
        old.abandon()
        if old.is_closed:
            self._pool.close()

    @overload
    def publish(
        self,
        target: Event | str,
        event: Payload | None = None,
        *,
        confirm: Literal[False] = False,
        idempotency_key: str | None = None,
    ) -> bool: ...
    @overload
    def publish(
        self,
        target: Event | str,
        event: Payload | None = None,
        *,
        confirm: Literal[True],
        idempotency_key: str | None = None,
    ) -> int: ...
    @overload
    def publish(
        self,
        target: Event | str,
        event: Payload | None = None,
        *,
        confirm: bool,
        idempotency_key: str | None = None,
    ) -> bool | int: ...

    def publish(
        self,
        target: Event | str,
        event: Payload | None = None,
        *,
        confirm: bool = False,
        idempotency_key: str | None = None,
    ) -> bool | int:
        """Publish one event: `publish(event)` or `publish(channel, event)`.

        Args:
            event: typed, a mapping with a `type` (a `timestamp` is added if it has none), or JSON as text or bytes.
            idempotency_key: with the same key, a channel gets one event within 300 s; a repeat has the first answer.
                1 to 255 visible ASCII characters.

        Returns:
            whether Redis took it; with `confirm`, how many subscriptions in Redis received it, 0 for nobody.

        Raises:
            PublishError, ChannelError, EventError: only with `confirm`: why it was not published.

        Concurrency: blocks up to `timeout_seconds`; safe in threads.
        """
        return self.publish_by(self.deadline(), target, event, confirm=confirm, idempotency_key=idempotency_key)

    def publish_by(
        self,
        deadline: float,
        target: Event | str,
        event: Payload | None,
        *,
        confirm: bool,
        idempotency_key: str | None = None,
    ) -> bool | int:
        """`publish`, with the time that is left given by whoever has waited already."""
        receivers = self.send(
            lambda: [publication(target, event, self.destination.event_max_bytes, idempotency_key)],
            1,
            deadline,
            confirm=confirm,
            channel=target if isinstance(target, str) else "",
        )
        if confirm and receivers is not None:
            return receivers[0]
        return receivers is not None

    @overload
    def publish_many(self, items: Iterable[Item], *, confirm: Literal[False] = False) -> bool: ...
    @overload
    def publish_many(self, items: Iterable[Item], *, confirm: Literal[True]) -> list[int]: ...
    @overload
    def publish_many(self, items: Iterable[Item], *, confirm: bool) -> bool | list[int]: ...

    def publish_many(self, items: Iterable[Item], *, confirm: bool = False) -> bool | list[int]:
        """Publish events in few round trips, in this order; one that is wrong refuses all.

        Args:
            items: events, or pairs of a channel and an event; at most 10 000 and 16 MiB.

        Returns:
            whether Redis took them all; with `confirm`, how many received each.

        Raises:
            PublishError, ChannelError, EventError: only with `confirm`.

        Concurrency: as `publish`.
        """
        return self.publish_many_by(self.deadline(), *listed(items), confirm=confirm)

    def publish_many_by(self, deadline: float, items: Sequence[Item], count: int, *, confirm: bool) -> bool | list[int]:
        """`publish_many` of what is `listed`, with the time that is left given by whoever has waited already."""
        receivers = self.send(
            lambda: publications(items, self.destination.event_max_bytes), count, deadline, confirm=confirm
        )
        if confirm and receivers is not None:
            return receivers
        return receivers is not None

    @overload
    def publish_to_user(self, user: str, event: Payload, *, confirm: Literal[False] = False) -> bool: ...
    @overload
    def publish_to_user(self, user: str, event: Payload, *, confirm: Literal[True]) -> int: ...
    @overload
    def publish_to_user(self, user: str, event: Payload, *, confirm: bool) -> bool | int: ...

    def publish_to_user(self, user: str, event: Payload, *, confirm: bool = False) -> bool | int:
        """Publish one event to every connection that a user has now, on every daemon, subscribed or not.

        Nothing is kept of it: who connects later does not get it.

        Args:
            user: who, as in the `sub` of a token; 1 to 256 characters without control characters.
            event: as for `publish`, and a JSON object.

        Returns:
            whether Redis took it; with `confirm`, how many daemons received it, 0 for none. Whether the user is
            connected to one is not known.

        Raises:
            PublishError, EventError: only with `confirm`.

        Concurrency: as `publish`.
        """
        return self.publish_to_user_by(self.deadline(), user, event, confirm=confirm)

    def publish_to_user_by(self, deadline: float, user: str, event: Payload, *, confirm: bool) -> bool | int:
        """`publish_to_user`, with the time that is left given by whoever has waited already."""
        receivers = self.send(
            lambda: [user_publication(user, event, self.destination.event_max_bytes)],
            1,
            deadline,
            confirm=confirm,
            channel=USERS_CHANNEL,
        )
        if confirm and receivers is not None:
            return receivers[0]
        return receivers is not None

    def job(
        self,
        job_id: object,
        *,
        stage: str = "queued",
        message: str = "",
        metadata: Mapping[str, Any] | None = None,
        describe: Callable[[BaseException], str] | None = None,
        per_second: float = 10.0,
    ) -> Job:
        """The progress of one job, published as it goes: `with publisher.job("42") as job: job.progress(0.4)`.

        Args:
            job_id: part of the channel, `job_progress:<job_id>`.
            stage: the stage to begin with.
            describe: what subscribers are told of an exception. Default: its class, never its text.
            per_second: how often progress is sent at most; what is held back goes out when its time has come.
        """
        from broker.publisher.course import Course
        from broker.publisher.job import Job

        return Job(self, Course(job_id, stage, message, metadata, self._interval(per_second)), describe)

    def statistics(self) -> Statistics:
        """What was published and lost since the publisher was made, or since the fork."""
        return self.front.tally.statistics()

    def close(self) -> None:
        """Close what is open and tell what is untold. What is published afterwards is lost, and counted."""
        self._pool.close()
        self.front.tally.close()

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(
        self,
        check: Callable[[], list[Publication]],
        count: int,
        deadline: float,
        *,
        confirm: bool,
        urgent: bool = False,
        channel: str = "",
    ) -> list[int] | None:
        """Send what `check` makes, by `deadline`; how many received each, None where not all was taken.

        Args:
            urgent: ask Redis in a pause too, as with `confirm`: who asked to be told, or the end of a job.
        """
        front = self.front
        batch = front.checked(check, count, confirm=confirm, channel=channel)
        if batch is None:
            return None
        if not batch:
            return []
        if self._pool.is_closed:
            return front.settle(batch, CLOSED_OUTCOME, confirm=confirm)
        if not front.admits(batch, urgent=confirm or urgent):
            return None
        return front.settle(batch, self._exchange(batch, deadline), confirm=confirm)

    def send_events(
        self, step: Callable[[float], Sequence[Event]], deadline: float, channel: str, *, urgent: bool
    ) -> None:
        """Send what a step of a job makes, which may be nothing."""
        most = self.destination.event_max_bytes
        self.send(lambda: made(step, most), 1, deadline, confirm=False, urgent=urgent, channel=channel)

    def _exchange(self, batch: Sequence[Publication], deadline: float) -> Outcome:
        return self._pool.exchange(batch, deadline)

    def deadline(self) -> float:
        """When a call that begins now has to be over, by `time.monotonic`."""
        import broker.publisher.connection  # noqa: F401  # before the clock starts: redis-py takes 0.2 s to load

        return time.monotonic() + self.destination.timeout_seconds

    def _interval(self, per_second: float) -> float:
        return 1 / per_second if per_second > 0 else 0.0
