"""What a daemon sends, read for the oracle: events with who published them, gaps, and positions out of SSE ids."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from broker.position import NOWHERE
from tests.promise.oracle import Event, Told

_messages: dict[bytes, Any] = {}


def decoded(text: bytes) -> Any:
    """A message; one that has an event as `event` or `envelope`, with its `entry`. Many clients get the same bytes."""
    found = _messages.get(text)
    if found is None:
        if len(_messages) > 50_000:
            _messages.clear()
        found = json.loads(text)
        if "by" in found:
            found = {"type": "event", "c": found["c"], "entry": Event(None, (found["by"], found["n"]))}
        elif "event" in found:
            event = found["event"]
            assert event["c"] == found["channel"], found
            entry = Event(found["position"], (event["by"], event["n"]))
            found = {"type": "envelope", "channel": found["channel"], "position": found["position"], "entry": entry}
        # Fifty thousand large ones would be gigabytes.
        if len(text) < 4096:
            _messages[text] = found
    return found


def told_of(message: Mapping[str, Any]) -> Told:
    return Told(message["reason"], message["from"], message["to"], message.get("count"))


_digests: dict[str, str] = {}


def position_in(id: str, channel: str, channels: Sequence[str]) -> str | None:
    """The position of one channel in an SSE id. A browser need not know; the oracle does."""
    if len(channels) == 1:
        return id if id not in ("", NOWHERE.decode()) else None
    digest = _digests.get(channel)
    if digest is None:
        letters = base64.urlsafe_b64encode(sha256(channel.encode()).digest())[:6].decode()
        digest = _digests[channel] = f"{letters}="
    at = id.find(f",{digest}")
    if at < 0:
        return None
    begin = at + 1 + len(digest)
    end = id.find(",", begin)
    return id[begin:] if end < 0 else id[begin:end]
