"""The link: one Redis connection that listens for all channels, and comes back when it breaks.

Three tasks serve a connection: one reads and dispatches, one writes SUBSCRIBE, UNSUBSCRIBE and PING,
one watches the time. A frozen Redis answers nothing and closes nothing, so a PING of ours has a
deadline. When the connection is gone everything is subscribed anew, and the time in between is an
outage: what was published meanwhile did not reach us, and is told, not hidden.

Laws: whatever waits never waits in the read loop. A channel is told `opened` before any message that
was published after Redis confirmed it.
Bounds: a reconnect waits a random time up to a bound that doubles from `backoff_min_seconds` to
`backoff_max_seconds`.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
import trio
from attrs import Factory, define, field

from broker.config.secret import mask_url
from broker.config.sections import Redis
from broker.config.types import BUILT_IN_TYPES, TypeOptions
from broker.errors import UpstreamError, UpstreamRefused
from broker.eventage import EventAge
from broker.histogram import Histogram
from broker.hub import INTERNAL, Hub, Outage, UpstreamStatistics
from broker.interest import Interest
from broker.message import BAD_STAMP, REFUSALS, refusal
from broker.run import STAMP, Run, Runs, parsed
from broker.tracing import Tracing
from broker.upstream.backoff import Backoff
from broker.upstream.connection import RedisConnection, kind_of, pack, takes_pushes
from broker.upstream.gathering import Gathering
from broker.upstream.refusals import Refusals

OUTAGES_KEPT = 100
_NAMES_MAX = 10_000
_Check = Callable[[bytes, int], str | None]

log = structlog.get_logger(__name__)


@define(eq=False)
class Link:
    """The broker's ear in Redis.

    Args:
        message_max_bytes: the largest message that is taken.
        types: the options of each declared channel type; others are served with the defaults.
        dispatching: from when a read came until all in it was handed on.
        answering: from a PING until its answer was read; what had come before it is handed on first.
    """

    _section: Redis
    _message_max_bytes: int
    _types: Mapping[str, TypeOptions] = BUILT_IN_TYPES
    _is_plain: bool = field(init=False, default=False)
    _interest: Interest = field(init=False)
    refusals: Refusals = field(init=False)
    dispatching: Histogram = field(init=False, factory=Histogram)
    answering: Histogram = field(init=False, factory=Histogram)
    answered_in_seconds: float | None = field(init=False, default=None)  # the last PING
    event_age: EventAge = field(init=False, factory=EventAge)
    tracing: Tracing | None = field(init=False, default=None)
    _pinged_at: float | None = field(init=False, default=None)
    _away_seconds: float = field(init=False, default=0.0)  # in all, but for the outage that lasts
    _checks: Mapping[bytes, _Check] = field(init=False)  # by type, in bytes
    _checks_by_name: dict[bytes, _Check] = Factory(dict)  # of plain messages
    _recorded: frozenset[bytes] = field(init=False)  # types
    _due: trio.Event = Factory(trio.Event)
    _came_by_at: float = 0.0  # who reads
    _ping_due: bool = False
    _connected: bool = False
    _away_since: float | None = Factory(time.time)
    _messages: int = 0
    _outage_count: int = 0
    _outages: deque[Outage] = Factory(lambda: deque(maxlen=OUTAGES_KEPT))
    _prefix: bytes = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._interest = Interest(self._section.unsubscribe_after_seconds)
        self._prefix = self._section.channel_prefix.encode()
        self.refusals = Refusals(self._types)
        checks = {type.encode(): REFUSALS[options.validate] for type, options in self._types.items()}
        self._checks = checks
        self._recorded = frozenset(type.encode() for type, options in self._types.items() if options.keeps_history)

    def want(self, name: bytes) -> bool:
        """Listen to a channel. Returns whether Redis delivers it already. Synchronous."""
        self._due.set()
        return self._interest.want(self._prefix + name)

    def release(self, name: bytes) -> None:
        """Stop listening to a channel, a while from now. Synchronous."""
        self._due.set()
        self._interest.release(self._prefix + name, trio.current_time())
        self._settle_if_complete()

    def check_of(self, name: bytes) -> _Check:
        """What says why an event on a channel cannot be delivered."""
        return self._checks.get(name.partition(b":")[0], refusal)

    def take_plain(self, is_plain: bool) -> None:
        """Whether nobody records what is published plainly: then it is checked here, and handed on as it is."""
        self._is_plain = is_plain
        self._checks_by_name.clear()

    @property
    def outages(self) -> int:
        """How often Redis was lost since the start."""
        return self._outage_count

    @property
    def messages(self) -> int:
        """How many came since the start."""
        return self._messages

    @property
    def channels(self) -> int:
        """How many Redis is, or is about to be, asked for."""
        return len(self._interest)

    @property
    def is_away(self) -> bool:
        return self._away_since is not None

    @property
    def has_answered(self) -> bool:
        """Whether Redis was there, at least once."""
        return self._away_since is None or self._outage_count > 0

    def is_stuck(self, now: float) -> bool:
        """Whether who reads has not come by for longer than anything that it waits for takes. `now`: loop seconds."""
        # Quiet, it is asked, or given up, in half of this. While it is away nothing can be handed on, and how long a
        # connection takes is bounded by nothing of ours: a name may be looked up for a minute.
        most = 2 * (self._section.ping_seconds + self._section.ping_timeout_seconds)
        return self._connected and now - self._came_by_at > most

    def away_seconds(self, now: float) -> float:
        """How long Redis was away since the start, until it was there first too. `now`: seconds since 1970."""
        lasting = 0.0 if self._away_since is None else max(0.0, now - self._away_since)
        return self._away_seconds + lasting

    async def serve(self, hub: Hub, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and dispatch. Runs until cancelled; ready after the first attempt to connect.

        Raises:
            UpstreamRefused: Redis refused the first connection; trying again would not help.
        """
        shown = mask_url(self._section.url)
        backoff = Backoff(self._section)
        started = False
        told = ""
        while True:
            try:
                connection = await RedisConnection.open(self._section)
            except UpstreamError as error:
                if isinstance(error, UpstreamRefused) and not started:
                    raise
                if str(error) != told:
                    told = str(error)
                    log.warning("waiting for Redis", redis=shown, why=told)
            else:
                told = ""
                opened_at = trio.current_time()
                ready, started = None if started else task_status, True
                try:
                    await self._listen(connection, hub, ready)
                except* UpstreamError as group:
                    self._lose(connection, hub, group)
                finally:
                    connection.close()
                backoff.lived(trio.current_time() - opened_at)
            if not started:
                started = True
                task_status.started()
            await trio.sleep(backoff.seconds())

    def statistics(self) -> UpstreamStatistics:
        refused_by_type = self.refusals.counts()
        return UpstreamStatistics(
            not self.is_away,
            self._interest.live_count(besides=self._prefix + INTERNAL),
            self._messages,
            dict(sum(map(Counter, refused_by_type.values()), Counter[str]())),
            self._outage_count,
            self._outages[-1] if self._outages else None,
            self._away_since,
            refused_by_type,
        )

    async def _listen(self, connection: RedisConnection, hub: Hub, task_status: trio.TaskStatus[None] | None) -> None:
        async with trio.open_nursery() as nursery:
            self._connected, self._came_by_at = True, trio.current_time()
            self._interest.connected()
            self._settle_if_complete()
            log.info("Redis connected", redis=mask_url(self._section.url), channels=len(self._interest))
            nursery.start_soon(self._write, connection)
            nursery.start_soon(connection.watch, self._section, self._ping)
            nursery.start_soon(self._ask_now_and_then)
            if task_status is not None:
                task_status.started()
            await self._read(connection, hub)

    def _lose(self, connection: RedisConnection, hub: Hub, group: BaseExceptionGroup[UpstreamError]) -> None:
        self._connected = False
        if self._away_since is None:
            self._away_since = time.time() - (trio.current_time() - connection.last_read_at)
            self._outage_count += 1
        self._interest.lost()
        hub.lost()
        log.warning("Redis connection lost", why="; ".join(map(str, group.exceptions)), channels=len(self._interest))

    def _settle_if_complete(self) -> None:
        """End the outage once Redis has answered about every channel that was wanted when it came back."""
        if self._away_since is None or not self._connected or not self._interest.is_restored:
            return
        outage = Outage(self._away_since, time.time())
        self._away_since = None
        self._away_seconds += max(0.0, outage.ended_at - outage.begun_at)
        if self._outage_count:
            self._outages.append(outage)
            log.warning(
                "Redis is back; what was published meanwhile was missed",
                away_seconds=round(outage.ended_at - outage.begun_at, 3),
                channels=len(self._interest),
            )

    async def _read(self, connection: RedisConnection, hub: Hub) -> None:
        gathering = Gathering()
        pause = 0.0
        while True:
            replies = await connection.read(rested=bool(pause))
            read_at = connection.last_read_at
            self._take(replies, hub, read_at)
            done_at = self._came_by_at = trio.current_time()
            self.dispatching.add(done_at - read_at)
            pause = gathering.pause_seconds(len(replies), read_at, done_at)
            if pause:
                await _rest(pause)

    @takes_pushes
    def _take(self, replies: Sequence[Any], hub: Hub, now: float) -> None:
        """Dispatch what one read brought. The hot path of every message."""
        batch: dict[bytes, list[bytes]] = {}
        stamped: dict[bytes, list[bytes]] = {}
        skip, most = len(self._prefix), self._message_max_bytes
        checks = self._checks_by_name
        answers = 0
        for reply in replies:
            if type(reply) is not list or reply[0] != b"message":
                answers += 1
                self._hand_on(batch, stamped, hub, now)
                batch, stamped = {}, {}
                self._take_answer(reply, hub)
                continue
            _, name, payload = reply
            if skip:
                name = name[skip:]
            if payload[:1] == STAMP:
                if name in stamped:
                    stamped[name].append(payload)
                else:
                    stamped[name] = [payload]
                continue
            check = checks.get(name)
            if check is None:
                check = self._note_check(name)
            reason = check(payload, most)
            if reason is not None:
                self.refusals.add(reason, name, payload, now)
            elif name in batch:
                batch[name].append(payload)
            else:
                batch[name] = [payload]
        self._messages += len(replies) - answers
        self._hand_on(batch, stamped, hub, now)
        if now >= self.event_age.due_at and len(replies) > answers:
            self._note_age(name, payload, hub, now)
        if self.tracing is not None:
            self.tracing.dispatched(replies, skip, hub.hands_on, trio.current_time() - now)

    def _note_age(self, name: bytes, payload: bytes, hub: Hub, now: float) -> None:
        is_stamped = payload[:1] == STAMP
        if hub.hands_on(name, is_stamped=is_stamped):
            self.event_age.note(payload.partition(b" ")[2] if is_stamped else payload, now)

    def _note_check(self, name: bytes) -> _Check:
        """What says why a plain message cannot be delivered; looked up once for each channel."""
        if len(self._checks_by_name) >= _NAMES_MAX:
            self._checks_by_name.clear()
        # What is published plainly on channels with history comes again, stamped.
        is_recorded = name.partition(b":")[0] in self._recorded and not self._is_plain
        check = self._checks_by_name[name] = _unchecked if is_recorded else self.check_of(name)
        return check

    def _hand_on(
        self, batch: Mapping[bytes, list[bytes]], stamped: Mapping[bytes, list[bytes]], hub: Hub, now: float
    ) -> None:
        hub.dispatch(batch, now)
        for name, messages in stamped.items():
            try:
                hub.take(name, self._runs_of(name, messages, now), now)
            except Exception:
                hub.failed(name)

    def _runs_of(self, name: bytes, messages: Sequence[bytes], now: float) -> Sequence[Run]:
        check, most = self.check_of(name), self._message_max_bytes
        runs = Runs()
        for message in messages:
            try:
                came, epoch, offset, position, payload = parsed(message)
            except ValueError:
                self.refusals.add(BAD_STAMP, name, message, now)
                continue
            reason = check(payload, most)
            if reason is not None:
                self.refusals.add(reason, name, payload, now)
            if position:
                # One that cannot be delivered has its offset all the same.
                runs.add(epoch, offset, position, None if reason else payload, came)
            elif reason is None:
                runs.add_unkept(payload)
        return runs.runs

    def _take_answer(self, reply: Any, hub: Hub) -> None:
        if isinstance(reply, Exception):
            self._take_error(str(reply), hub)
        elif (kind := kind_of(reply)) == b"pong" or reply == b"PONG":
            if self._pinged_at is not None:
                self.answered_in_seconds = trio.current_time() - self._pinged_at
                self.answering.add(self.answered_in_seconds)
                self._pinged_at = None
        elif kind in (b"subscribe", b"unsubscribe"):
            if self._interest.confirmed(reply[1]):
                hub.opened(reply[1][len(self._prefix) :], trio.current_time())
            self._settle_if_complete()

    def _take_error(self, why: str, hub: Hub) -> None:
        if not self._interest.is_waiting:
            raise UpstreamError(f"Redis answered with an error: {why}")
        for name in self._interest.refused():
            self.refusals.note_channel(name, why, trio.current_time())
            hub.refused(name[len(self._prefix) :], why)
        self._due.set()
        self._settle_if_complete()

    async def _write(self, connection: RedisConnection) -> None:
        while True:
            self._due = trio.Event()
            commands = self._interest.take_commands(trio.current_time())
            data = b"".join(pack(command.verb, *command.names) for command in commands)
            if self._ping_due:
                self._ping_due = False
                data += pack(b"PING")
            if data:
                await connection.write(data)
            release_at = self._interest.next_release()
            with trio.move_on_at(float("inf") if release_at is None else release_at):
                await self._due.wait()

    async def _ask_now_and_then(self) -> None:
        """Measure how soon Redis answers, also while it has much to say."""
        self._pinged_at = None
        while True:
            if self._pinged_at is None:
                self._pinged_at = trio.current_time()
                await self._ping()
            await trio.sleep(self._section.ping_seconds)

    async def _ping(self) -> None:
        """Have the writer send it."""
        self._ping_due = True
        self._due.set()


def _unchecked(payload: bytes, max_bytes: int) -> None:
    if type(payload) is not bytes:
        raise TypeError


async def _rest(seconds: float) -> None:
    """`trio.sleep`, without the exception that ends it: half the cost, at hundreds of rests a second."""
    task = trio.lowlevel.current_task()

    def wake(_: object) -> trio.lowlevel.Abort:
        trio.lowlevel.reschedule(task)
        return trio.lowlevel.Abort.FAILED

    with trio.CancelScope(deadline=trio.current_time() + seconds):
        await trio.lowlevel.wait_task_rescheduled(wake)
    await trio.lowlevel.checkpoint_if_cancelled()
