"""EventSource clients that nobody here wrote, and every event that each makes of a stream: its type, its data, its id.

Chromium's own, npm's `eventsource` in a node process, httpx-sse and sseclient-py. Each reads several streams, in
threads or processes of its own, until `close`. None comes back after an end.
"""

from __future__ import annotations

import json
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from threading import Event, Thread

import httpx
import httpx_sse
import sseclient
from attrs import define, field, frozen

from tests.actors.chromium import HERE, NODE_MODULES, Chromium, executable

# A listener hears the events of its own name alone.
NAMES = ("message", "gap", "error", "complete", "token_expired", "revoked", "disconnected", "injected")
_POLL_SECONDS = 0.05
_OPEN = (
    f"const names = {json.dumps(NAMES)};"
    + """
function open(url, stream, note) {
  const source = new EventSource(url);
  for (const name of names) {
    source.addEventListener(name, (event) => {
      if (event.data !== undefined) note([stream, event.type, event.data, event.lastEventId]);
    });
  }
}
"""
)
_IN_NODE = (
    'const { EventSource } = require("eventsource");'
    + _OPEN
    + "process.argv.slice(1).forEach((url, at) => open(url, at, (heard) => console.log(JSON.stringify(heard))));"
)
_IN_A_PAGE = (
    "(urls) => {"
    + _OPEN
    + "window.heard = []; urls.forEach((url, stream) => open(url, stream, (it) => heard.push(it))); }"
)


@frozen
class Heard:
    """One event, as a page is given it."""

    kind: str
    data: str
    id: str


@define(eq=False)
class EventReader(ABC):
    """One client.

    Args:
        urls: the streams.
        heard: what came on each, in order.
    """

    urls: Sequence[str]
    heard: list[list[Heard]] = field(init=False)
    _over: Event = field(init=False, factory=Event)
    _threads: list[Thread] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self.heard = [[] for _ in self.urls]

    @staticmethod
    def missing() -> str | None:
        """What is not there that it needs; None where all is."""
        return None

    @abstractmethod
    def open(self) -> None: ...

    def close(self) -> None:
        """What hangs on a stream ends with the stream."""
        self._over.set()

    def has(self, counts: Sequence[int]) -> bool:
        """Whether each stream has so many events."""
        return all(len(heard) >= count for heard, count in zip(self.heard, counts, strict=True))

    def join(self) -> None:
        """Wait for the end of its threads, once its streams have ended."""
        for thread in self._threads:
            thread.join(10)

    def _start(self, thread: Thread) -> None:
        self._threads.append(thread)
        thread.start()

    def _note(self, stream: int, kind: str, data: str, id: str) -> None:
        self.heard[stream].append(Heard(kind, data, id))


class _OverHttpx(EventReader):
    """A thread for each stream, which httpx reads."""

    def open(self) -> None:
        for stream, url in enumerate(self.urls):
            self._start(Thread(target=self._read, args=(stream, url), daemon=True))

    @abstractmethod
    def _events(self, http: httpx.Client, url: str) -> Iterator[Heard]:
        """What the client makes of a stream, to its end."""

    def _read(self, stream: int, url: str) -> None:
        try:
            with httpx.Client(trust_env=False, timeout=30) as http:
                for heard in self._events(http, url):
                    self.heard[stream].append(heard)
        except httpx.TransportError:
            pass


class HttpxSse(_OverHttpx):
    """httpx-sse."""

    def _events(self, http: httpx.Client, url: str) -> Iterator[Heard]:
        with httpx_sse.connect_sse(http, "GET", url) as source:
            for event in source.iter_sse():
                yield Heard(event.event, event.data, event.id)


class SseClientPy(_OverHttpx):
    """sseclient-py. An event without an `id:` has none there, where the others tell the last one."""

    def _events(self, http: httpx.Client, url: str) -> Iterator[Heard]:
        with http.stream("GET", url, headers={"Accept": "text/event-stream"}) as answer:
            for event in sseclient.SSEClient(_Chunks(answer)).events():
                yield Heard(event.event, event.data, event.id or "")


@frozen
class _Chunks:
    """What sseclient-py reads: bytes as they come."""

    _answer: httpx.Response

    def __iter__(self) -> Iterator[bytes]:
        return self._answer.iter_bytes()

    def close(self) -> None:
        self._answer.close()


@define(eq=False)
class NpmEventSource(EventReader):
    """The npm package `eventsource`."""

    _process: subprocess.Popen[str] = field(init=False)

    @staticmethod
    def missing() -> str | None:
        if not (NODE_MODULES / "eventsource").exists():
            return "npm's eventsource is left out: tests/browser/node_modules has none (tests/browser/install)"
        return None

    def open(self) -> None:
        command = ["node", "-e", _IN_NODE, "--", *self.urls]
        self._process = subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, encoding="utf-8")
        self._start(Thread(target=self._read, daemon=True))

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout:
            for line in self._process.stdout:
                self._note(*json.loads(line))


class ChromiumEventSource(EventReader):
    """Chromium's, in one page on the daemon's own origin. Playwright lives in the thread that it was started in."""

    @staticmethod
    def missing() -> str | None:
        try:
            import playwright.sync_api  # noqa: F401
        except ImportError:
            return "Chromium is left out: Playwright is not there (pip install playwright)"
        return None if executable() else "Chromium is left out: it is not there (apt install chromium)"

    def open(self) -> None:
        self._start(Thread(target=self._run, daemon=True))

    def _run(self) -> None:
        chromium = Chromium()
        chromium.start()
        try:
            page = chromium.new_context().new_page()
            blank = self.urls[0].partition("/api/")[0] + "/blank"
            page.route(blank, lambda route: route.fulfill(content_type="text/html", body="<!doctype html>"))
            page.goto(blank)
            page.evaluate(_IN_A_PAGE, list(self.urls))
            while not self._over.is_set():
                for heard in page.evaluate("heard.splice(0)"):
                    self._note(*heard)
                self._over.wait(_POLL_SECONDS)
        finally:
            chromium.stop()


READERS: tuple[type[EventReader], ...] = (ChromiumEventSource, NpmEventSource, HttpxSse, SseClientPy)
