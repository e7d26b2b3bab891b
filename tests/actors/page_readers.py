"""The readers in a page (tests/browser/pages/core.js), and the oracle that says whether they had what was published."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attrs import define, field

from tests.actors.redis_server import RedisServer
from tests.actors.stamping import Stamping

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Page

    from tests.actors.live_page import LivePage

BOUND_MS = 15_000
POLL_MS = 20


def call(page: Page | LivePage, function: str, *arguments: object) -> Any:
    """One of the page's own functions; a promise is waited for."""
    return page.evaluate(f"(given) => {function}(...given)", list(arguments))


def wait_in(page: Page | LivePage, expression: str, *arguments: object, seconds: float = BOUND_MS / 1000) -> None:
    """Until an expression of the page holds; `given` is the list of arguments. Fails with what the page has."""
    from playwright.sync_api import TimeoutError

    try:
        page.wait_for_function(f"(given) => {expression}", arg=list(arguments), polling=POLL_MS, timeout=1000 * seconds)
    except TimeoutError:
        told = page.evaluate(
            "() => ({logs: Object.fromEntries(Object.entries(logs).map(([name, log]) => [name, Object.fromEntries("
            "Object.entries(log).map(([channel, told]) => [channel, told.slice(-8)]))])), statuses})"
        )
        raise AssertionError(f"it did not come to {expression} {arguments}:\n{json.dumps(told, indent=1)}") from None


def wait_begun(page: Page | LivePage, channel: str, readers: int, *, times: int = 1) -> None:
    """Until so many readers were told that they have begun."""
    wait_in(page, "begun(given[0], given[1]) === given[2]", channel, times, readers)


def told(log: Sequence[Sequence[Any]], count: int, *, first: int = 0) -> list[str]:
    """What a reader was told besides its events, which must be those from `first` to `count` - 1.

    Fails where one came twice, or out of order, or is missing with no gap in its place.
    """
    reasons: list[str] = []
    due, has_gap = first, False
    for index, (kind, *what) in enumerate(log):
        if kind == "gap":
            has_gap = True
            reasons.append(what[0])
        elif kind == "event":
            assert due <= what[0] < count, f"{what[0]} came where {due} was due: {log[max(0, index - 5) : index + 3]}"
            assert what[0] == due or has_gap, f"{due} to {what[0] - 1} are missing and there is no gap"
            due, has_gap = what[0] + 1, False
        else:
            assert kind == "start", f"{kind} {what}"
    assert due == count or has_gap, f"{due} to {count - 1} are missing and there is no gap"
    return reasons


@define(eq=False)
class Publishing:
    """Publishes probes on a channel, each with the next number. `count`: how many there are."""

    server: RedisServer
    channel: str
    is_stamped: bool = True
    count: int = field(init=False, default=0)
    _lock: threading.Lock = field(init=False, factory=threading.Lock)

    def publish(self, number: int = 1) -> None:
        """So many more. From any thread."""
        with self._lock:
            probes = [
                {"type": "probe", "channel": self.channel, "n": each, "timestamp": "2026-01-01T00:00:00.000Z"}
                for each in range(self.count, self.count + number)
            ]
            payloads = [json.dumps(probe).encode() for probe in probes]
            if self.is_stamped:
                Stamping(self.server, self.channel).publish(*payloads)
            else:
                self.server.publish(self.channel, *payloads)
            self.count += number

    @contextmanager
    def going_on(self, every_seconds: float = 0.02) -> Iterator[None]:
        """One each so often, in a thread, while the block runs."""
        is_over = threading.Event()

        def go_on() -> None:
            while not is_over.wait(every_seconds):
                self.publish()

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    def flow(self, rate: int, seconds: float) -> None:
        """So many a second for so long, in pieces of 20 ms; behind its time it makes up for it."""
        begun = time.monotonic()
        total = self.count + round(rate * seconds)
        while self.count < total:
            time.sleep(0.02)
            due = min(total, round(rate * (time.monotonic() - begun)))
            if due > self.count:
                self.publish(due - self.count)


def check(
    page: Page | LivePage, publishing: Publishing, *, readers: int, seconds: float = BOUND_MS / 1000
) -> dict[str, list[str]]:
    """Wait until every reader of the channel has the last event; then all they had, by the oracle.

    Returns: what each reader was told besides, by its name.
    """
    channel, last = publishing.channel, publishing.count - 1
    wait_in(
        page,
        "lasts(given[0]).length === given[2] && lasts(given[0]).every((each) => each === given[1])",
        channel,
        last,
        readers,
        seconds=seconds,
    )
    logs = page.evaluate("() => logs")
    return {name: told(log[channel], publishing.count) for name, log in logs.items() if channel in log}
