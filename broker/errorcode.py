"""The stable codes of `error` events on a WebSocket; `docs/endings.md` says what to do about each."""

from __future__ import annotations

BAD_JSON = "bad_json"
BAD_COMMAND = "bad_command"
UNKNOWN_COMMAND = "unknown_command"
BAD_CHANNEL = "bad_channel"
CHANNEL_TYPE_REFUSED = "channel_type_refused"
TOO_MANY_SUBSCRIPTIONS = "too_many_subscriptions"
BINARY_FRAME = "binary_frame"
UPSTREAM_REFUSED = "upstream_refused"
UPSTREAM_UNAVAILABLE = "upstream_unavailable"
UNAUTHENTICATED = "unauthenticated"
BAD_TOKEN = "bad_token"
FORBIDDEN = "forbidden"
BAD_EVENT = "bad_event"
TOO_MANY_PENDING = "too_many_pending"
