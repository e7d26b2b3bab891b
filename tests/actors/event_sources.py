"""EventSource clients that nobody here wrote: httpx-sse, in the loop that it leaves to its caller, and npm's.

Both note what `onmessage` of a page would have been given, and `gap` events. They run in a thread or a process
until `close`.
"""

from __future__ import annotations

import json
import subprocess
import time
from abc import ABC, abstractmethod
from threading import Event, Thread
from typing import Any

import httpx
import httpx_sse
from attrs import define, field

from tests.actors.chromium import HERE, NODE_MODULES

_AGAIN_SECONDS = 0.1
_PAGE = """
const { EventSource } = require("eventsource");
const source = new EventSource(process.argv[1]);
const note = (event) => console.log(JSON.stringify([event.type, JSON.parse(event.data)]));
source.onmessage = note;
source.addEventListener("gap", note);
"""


@define(eq=False)
class EventSourceClient(ABC):
    """One client.

    Args:
        heard: the events of `onmessage`, in order, without the daemon's own.
        gaps: the `gap` events.
        greetings: how often it was told `connected`.
    """

    url: str
    heard: list[Any] = field(factory=list)
    gaps: list[Any] = field(factory=list)
    greetings: int = 0

    @abstractmethod
    def open(self) -> None: ...

    @abstractmethod
    def close(self) -> None: ...

    def _note(self, kind: str, event: Any) -> None:
        if kind == "gap":
            self.gaps.append(event)
        elif event.get("type") == "connected":
            self.greetings += 1
        elif event.get("type") != "server_shutdown":
            self.heard.append(event)


@define(eq=False)
class HttpxEventSource(EventSourceClient):
    """httpx-sse, which parses; to come back with the last id after the time that it was told is the caller's."""

    _over: Event = field(factory=Event)
    _thread: Thread | None = None

    def open(self) -> None:
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """It leaves with the next thing that it is sent, or the end of the connection."""
        self._over.set()

    def _run(self) -> None:
        last_id, again_seconds = "", _AGAIN_SECONDS
        with httpx.Client(trust_env=False, timeout=20) as http:
            while not self._over.is_set():
                headers = {"Last-Event-ID": last_id} if last_id else {}
                try:
                    with httpx_sse.connect_sse(http, "GET", self.url, headers=headers) as source:
                        for event in source.iter_sse():
                            last_id = event.id or last_id
                            if event.retry is not None:
                                again_seconds = event.retry / 1000
                            if event.data:
                                self._note(event.event, event.json())
                            if self._over.is_set():
                                return
                except httpx.TransportError:
                    pass
                time.sleep(again_seconds)


@define(eq=False)
class NodeEventSource(EventSourceClient):
    """The npm package `eventsource`, in a node process; `tests/browser/install` gets it."""

    _process: subprocess.Popen[str] | None = None

    @staticmethod
    def is_there() -> bool:
        return (NODE_MODULES / "eventsource").exists()

    def open(self) -> None:
        self._process = subprocess.Popen(["node", "-e", _PAGE, self.url], cwd=HERE, stdout=subprocess.PIPE, text=True)
        Thread(target=self._read, daemon=True).start()

    def close(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        with self._process.stdout:
            for line in self._process.stdout:
                self._note(*json.loads(line))
