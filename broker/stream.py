"""The SSE endpoints: which channels a request path names, and which streams have an end.

Synchronous; no I/O. Source: the wire contract, "Base: SSE".
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from attrs import Factory, define, frozen

from broker.channel import Channel
from broker.errors import ChannelError
from broker.position import Position, Since
from broker.request import RequestRefused

ROOT = "/api/stream"
V1 = "broker.v1"

# The endpoints of one channel each, and the type of that channel.
_TYPE_OF_ENDPOINT = {
    "render-progress": "video_render",
    "campaign-metrics": "campaign_metrics",
    "ab-test-results": "ab_test_results",
}
_FINITE_ENDPOINTS = frozenset({"render-progress"})
_ENDED_MAX = 10_000
_CHANNEL_SHOWN = 400
_HOW_TO_NAME = "Name channels as type, type:id or type:id:userId, percent-encoded where needed."


@frozen
class Stream:
    """What one request asks for.

    Args:
        finite: the stream ends with its last event.
        is_v1: each event comes in the envelope of `broker.v1`, with its channel and position.
        since: where the client was, in the channels that it says so of.
    """

    channels: tuple[Channel, ...]
    finite: bool
    is_v1: bool = False
    since: Mapping[bytes, Since] = Factory(dict)


def stream_of(path: str, query: Sequence[tuple[str, str]], served: frozenset[str] | None, channels_max: int) -> Stream:
    """The stream that a request names.

    Args:
        query: the decoded pairs of its query.

    Raises:
        RequestRefused: no such endpoint, or channels that cannot be served.
    """
    try:
        if path == ROOT:
            channels = _channels_of(query, channels_max)
            stream = Stream(channels, False, _is_v1(query), _since_of(query, channels))
        else:
            stream = _endpoint(path)
    except ChannelError as bad:
        raise RequestRefused(400, str(bad), _HOW_TO_NAME) from None
    for channel in stream.channels:
        if served is not None and channel.type not in served:
            raise RequestRefused(
                404,
                f"channel type {channel.type} is not served here",
                "Declare it in channels.declared, or set channels.undeclared to serve.",
                channel=channel.name,
            )
    return stream


def check_path(path: str) -> None:
    """Refuse what is no endpoint, whatever is asked of it.

    Raises:
        RequestRefused: 404.
    """
    if path != ROOT:
        try:
            _endpoint(path)
        except ChannelError:
            pass  # the endpoint is there


def _channels_of(query: Sequence[tuple[str, str]], channels_max: int) -> tuple[Channel, ...]:
    names = [value for key, value in query if key == "channel"]
    named = {channel.name: channel for channel in map(_channel_of, names)}
    if not named:
        raise RequestRefused(
            400, "Missing required parameters: channel", f"Ask for {ROOT}?channel=job_progress:42, repeated for more."
        )
    if len(named) > channels_max:
        detail, hint = f"{len(named)} channels; at most {channels_max}", "Open another stream for the rest."
        raise RequestRefused(400, detail, hint, channel=tuple(named)[channels_max])
    return tuple(named.values())


def _channel_of(name: str) -> Channel:
    try:
        return Channel.from_name(name)
    except ChannelError as bad:
        raise RequestRefused(400, str(bad), _HOW_TO_NAME, channel=name[:_CHANNEL_SHOWN]) from None


def _is_v1(query: Sequence[tuple[str, str]]) -> bool:
    protocol = dict(query).get("protocol", "")
    if protocol not in ("", V1):
        raise RequestRefused(400, f"no protocol {protocol[:80]!a}", f"Ask for protocol={V1}, or leave it out.")
    return protocol == V1


def _since_of(query: Sequence[tuple[str, str]], channels: Sequence[Channel]) -> dict[bytes, Since]:
    names = {channel.name for channel in channels}
    found = {}
    for key, value in query:
        if key == "since":
            name, _, position = value.partition(",")
            if name not in names:
                raise RequestRefused(
                    400,
                    f"since is of {name[:_CHANNEL_SHOWN]!a}, which is no channel of this stream",
                    "Write since=<channel>,<position>, and the same channel as channel=.",
                )
            found[name.encode()] = Since(Position.from_text(position))
    return found


def _endpoint(path: str) -> Stream:
    endpoint, _, id = path.removeprefix(ROOT).lstrip("/").partition("/")
    type = _TYPE_OF_ENDPOINT.get(endpoint)
    if type is None or not id:
        streams = [f"{ROOT}/{name}/<id>" for name in _TYPE_OF_ENDPOINT]
        streams += [f"{ROOT}/council-score", f"{ROOT}/evaluate-creative", f"{ROOT}?channel=<name>"]
        raise RequestRefused(404, f"no stream at {path[:200]!a}", f"Streams: {', '.join(streams)}.")
    return Stream((Channel.from_name(f"{type}:{id}"),), endpoint in _FINITE_ENDPOINTS)


def last_index(payloads: Sequence[bytes]) -> int | None:
    """Which payload ends a render's stream: the first whose stage is `complete`."""
    for index, payload in enumerate(payloads):
        if b'"complete"' in payload and _stage_of(payload) == "complete":
            return index
    return None


def _stage_of(payload: bytes) -> object:
    try:
        event = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return event.get("stage") if isinstance(event, dict) else None


@define(eq=False)
class EndedStreams:
    """Channels whose stream has ended a short while ago: a browser that reconnects is told to stop.

    Bounds: `seconds`, and 10 000 channels; the oldest are forgotten first.
    """

    seconds: float
    _ended: OrderedDict[bytes, float] = Factory(OrderedDict)

    def add(self, name: bytes, now: float) -> None:
        self._ended[name] = now
        self._ended.move_to_end(name)
        if len(self._ended) > _ENDED_MAX:
            self._ended.popitem(last=False)

    def has(self, name: bytes, now: float) -> bool:
        ended_at = self._ended.get(name)
        return ended_at is not None and now - ended_at < self.seconds
