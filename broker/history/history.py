"""History as a daemon reads it: pages for whoever asks, and a look at channels that have been silent.

Whoever asks for the same page at the same time shares one read and one page, and who asks a moment later
shares it too: two thousand clients that come back from a restart cost one read, and their bytes are encoded
once. A page that is a moment old is no less true; its reader reads on from its end.

Bounds: `READS_MAX` reads at once; a page has at most `page_bytes`, or one event; `PAGES_KEPT` pages are kept for
`KEPT_SECONDS`. A read that Redis does not answer is tried again until it is answered or nobody waits for it.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import structlog
import trio
from attrs import Factory, define, field

from broker.command import Commands
from broker.config.sections import History as Section
from broker.config.types import TypeOptions
from broker.errors import UpstreamError, UpstreamRefused
from broker.history.keys import Keys
from broker.history.scripts import READ
from broker.hub import Hub
from broker.position import Since
from broker.topic.page import Page, page_of
from broker.topic.reader import OnPage
from broker.topic.trail import Trail

READS_MAX = 64
PAGE_EVENTS = 500
PAGES_KEPT = 64
KEPT_SECONDS = 0.5
_RETRY_SECONDS = 0.2
_TICK_SECONDS = 1.0
# The position of a channel without events: kept while somebody listens, and for who comes back soon. Anybody can
# ask for any channel.
_EMPTY_MS = 600_000

log = structlog.get_logger(__name__)

_ODD = "history cannot be understood"

_Question = tuple[bytes, Since | None, int]


@define(eq=False)
class History:
    """Reads pages. `serve` must run for anything to happen.

    Args:
        options_of: the options of a channel's type.
        check_of: what says why an event on a channel cannot be delivered.
    """

    _section: Section
    _keys: Keys
    _commands: Commands
    page_bytes: int
    _message_max_bytes: int
    _options_of: Callable[[bytes], TypeOptions]
    _check_of: Callable[[bytes], Callable[[bytes, int], str | None]]
    _asked: dict[_Question, list[tuple[OnPage, Callable[[], bool]]]] = Factory(dict)
    _kept: OrderedDict[_Question, tuple[float, Page]] = Factory(OrderedDict)
    _nursery: trio.Nursery | None = None
    _hub: Hub = field(init=False)
    _room: trio.CapacityLimiter = field(init=False)
    _generation: int = 0
    _reads: int = 0
    _shared: int = 0
    _told: str = ""

    def __attrs_post_init__(self) -> None:
        self._room = trio.CapacityLimiter(READS_MAX)

    def read(self, name: bytes, since: Since | None, era: int, on_page: OnPage, is_wanted: Callable[[], bool]) -> None:
        """As `Historian.read`. Synchronous; `on_page` is called later, never from in here."""
        question = (name, since, era)
        waiting = self._asked.get(question)
        if waiting is not None:
            self._shared += 1
            waiting.append((on_page, is_wanted))
            return
        self._asked[question] = [(on_page, is_wanted)]
        if self._nursery is not None:
            self._nursery.start_soon(self._answer, question)

    async def page(self, name: bytes, since: Since | None) -> Page:
        """One page.

        Raises:
            UpstreamError: Redis is away or does not let us read.
        """
        last = self._options_of(name).replay
        was = since.position if since is not None else None
        channel = name.decode()
        reply = await self._commands.run(
            READ,
            (self._keys.top(channel), self._keys.events(channel), self._keys.generation),
            was.epoch if was is not None else b"",
            was.offset if was is not None else last,
            PAGE_EVENTS + 1,
            self.page_bytes,
            random.getrandbits(30) or 1,
            _EMPTY_MS,
        )
        self._reads += 1
        check = self._check_of(name)
        return page_of(reply, since, last, lambda payload: check(payload, self._message_max_bytes) is None, time.time())

    async def serve(self, hub: Hub, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer, and look after silent channels. Runs until cancelled."""
        self._hub = hub
        async with trio.open_nursery() as self._nursery:
            for question in self._asked:
                self._nursery.start_soon(self._answer, question)
            task_status.started()
            while True:
                await trio.sleep(_TICK_SECONDS)
                while self._kept and trio.current_time() - next(iter(self._kept.values()))[0] > KEPT_SECONDS:
                    self._kept.popitem(last=False)
                try:
                    await self._look_around(hub)
                except UpstreamError:
                    pass  # the link tells when Redis is away
                except Exception:
                    log.exception("a silent channel cannot be compared with Redis")

    def statistics(self) -> Mapping[str, Any]:
        return {"reads": self._reads, "sharedReads": self._shared}

    async def _answer(self, question: _Question) -> None:
        name, since, _ = question
        page = self._fresh(question)
        if page is None:
            async with self._room:
                page = await self._persistent(question)
            # Who asks from its end wants what has come since.
            if page is not None and since is not None and page.end != since.position:
                self._keep(question, page)
        else:
            self._shared += 1
            await trio.lowlevel.checkpoint()
        now = trio.current_time()
        for on_page, _ in self._asked.pop(question):
            try:
                on_page(page, now)
            except Exception:
                self._hub.failed(name)

    async def _persistent(self, question: _Question) -> Page | None:
        name, since, _ = question
        while any(is_wanted() for _, is_wanted in self._asked[question]):
            try:
                page = await self.page(name, since)
            except UpstreamRefused as error:
                if str(error) != self._told:
                    self._told = str(error)
                    log.error("history cannot be read", why=self._told)
                return None
            except UpstreamError:
                await trio.sleep(_RETRY_SECONDS)
            except Exception:
                # Whatever somebody wrote into our keys must not end the daemon.
                if self._told != _ODD:
                    self._told = _ODD
                    log.exception(_ODD, channel=name.decode())
                return None
            else:
                self._told = ""
                return page
        return None

    def _fresh(self, question: _Question) -> Page | None:
        kept = self._kept.get(question)
        if kept is None or trio.current_time() - kept[0] > KEPT_SECONDS:
            return None
        return kept[1]

    def _keep(self, question: _Question, page: Page) -> None:
        self._kept[question] = (trio.current_time(), page)
        self._kept.move_to_end(question)
        if len(self._kept) > PAGES_KEPT:
            self._kept.popitem(last=False)

    def _keep_ms(self, trail: Trail) -> int:
        """How long a channel's position is kept, at least as long as its events."""
        if trail.position is not None and not trail.position.offset:
            return _EMPTY_MS
        kept = self._options_of(trail.name).history_milliseconds
        return max(round(self._section.position_seconds * 1000), kept)

    async def _look_around(self, hub: Hub) -> None:
        """Every second: whether the recorder changed, and whether silent channels are where they should be."""
        trails = hub.trails()
        if not trails:
            return
        now = trio.current_time()
        silent = self._section.check_seconds
        due = [trail for trail in trails if trail.position is not None and now - trail.heard_at >= silent]
        # Spread: those that became silent together are not looked at together.
        most = max(1, round(2 * len(trails) * _TICK_SECONDS / silent))
        due = due if len(due) <= most else random.sample(due, most)
        commands = [("GETEX", self._keys.top(trail.name.decode()), "PX", self._keep_ms(trail)) for trail in due]
        generation, *tops = await self._commands.execute(("GET", self._keys.generation), *commands)
        now = trio.current_time()
        if isinstance(generation, bytes) and generation.isdigit() and int(generation[:18]) != self._generation:
            self._generation = int(generation[:18])
            for trail in hub.trails():
                trail.recorder_changed(self._generation, now)
        for trail, top in zip(due, tops, strict=True):
            if not isinstance(top, Exception):
                trail.compare(top, now)
