"""A browser that watches an evaluation, as httpx and httpx-sse read it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import httpx_sse

from tests.actors.daemon_process import DaemonProcess

PATH = "/api/stream/council-score"
Events = Iterator[httpx_sse.ServerSentEvent]


@contextmanager
def watching(daemon: DaemonProcess, script: str = "", *, id: str = "", last: str = "") -> Iterator[Events]:
    """A browser that asks for an evaluation, or watches one by `id`, or comes back with Last-Event-ID `last`."""
    params = {"videoUrl": "https://v/1", "transcript": script} if script else {}
    headers = {"Last-Event-ID": last} if last else {}
    url = f"{daemon.url}{PATH}" + (f"/{id}" if id else "")
    with (
        httpx.Client(trust_env=False, timeout=20) as http,
        httpx_sse.connect_sse(http, "GET", url, params=params, headers=headers) as source,
    ):
        yield source.iter_sse()


def said(events: Events) -> list[str]:
    """What is left of a stream, shortened: each piece, and how it ended."""
    found = []
    for event in events:
        body = event.json()
        match event.event, body["type"]:
            case "message", "council_score_stream":
                found.append(body["thinking"].removeprefix("piece "))
            case "message", type:
                found.append(type)
            case "complete", "complete":
                found.append("complete")
            case "error", "error":
                found.append(body["error"])
    return found


def pieces(count: int, begin: int = 0) -> list[str]:
    return [str(number) for number in range(begin, count)]


def greeting(events: Events) -> str:
    """The evaluation's id, out of `connected`."""
    first = next(events)
    assert (first.event, first.json()["type"]) == ("message", "connected")
    id = str(first.json()["evaluationId"])
    assert first.id.startswith(f"{id}:")
    return id
