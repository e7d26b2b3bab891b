"""How connections end: every way has a name, a close code, a reason and a rule for coming back.

Codes 1000 to 1015 are RFC 6455's; 4000 and above are ours. `docs/endings.md` is this table for
people who write clients; a test holds the two together.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class Ending:
    """One way for a connection to end.

    Args:
        name: what logs and statistics call it.
        code: the WebSocket close code; None where nothing can be sent any more.
        reason: the close reason, at most 123 bytes.
        reconnect: whether the client does well to come back.
        fault: whose doing it was: `client`, `server`, `network` or `nobody`.
        meaning: a sentence for `docs/endings.md`.
    """

    name: str
    code: int | None
    reason: str
    reconnect: bool
    fault: str
    meaning: str


LEFT = Ending("left", 1000, "", True, "nobody", "The client closed its end.")
COMPLETE = Ending(
    "complete", 1000, "stream complete", False, "nobody", "An SSE stream that has an end delivered its last event."
)
VANISHED = Ending(
    "vanished",
    None,
    "",
    True,
    "network",
    "The connection broke: reset, or its peer took nothing for listen.dead_seconds.",
)
SILENT = Ending(
    "silent",
    1001,
    "no pong and no message in time",
    True,
    "network",
    "No pong and no message within `websocket.silence_seconds`.",
)
PROTOCOL_ERROR = Ending(
    "protocol_error", 1002, "protocol error", False, "client", "Bytes that RFC 6455 forbids; the reason says which."
)
BAD_TEXT = Ending("bad_text", 1007, "text is not UTF-8", False, "client", "A text frame whose bytes are not UTF-8.")
FRAME_TOO_BIG = Ending(
    "frame_too_big",
    1009,
    "message over the size limit",
    False,
    "client",
    "A message over `websocket.message_max_bytes`, or one of too many fragments.",
)
INTERNAL_ERROR = Ending(
    "internal_error",
    1011,
    "internal error",
    True,
    "server",
    "Something that the daemon did not expect; it is in its log.",
)
SHUTDOWN = Ending("shutdown", 1012, "server shutting down", True, "server", "The daemon stops or restarts.")
OUTBOX_FULL = Ending(
    "outbox_full",
    4001,
    "client too slow: too many bytes waiting",
    True,
    "client",
    "More than `clients.outbox_max_bytes` waited for the client to read them.",
)
OUTBOX_STALE = Ending(
    "outbox_stale",
    4002,
    "client too slow: bytes waited too long",
    True,
    "client",
    "A byte waited longer than `clients.outbox_max_age_seconds` for the client to read it.",
)
OUTBOX_TOTAL = Ending(
    "outbox_total",
    4003,
    "too many bytes waiting for all clients",
    True,
    "client",
    "More than `limits.outbox_total_bytes` waited for all clients together, and most of it for this one.",
)
DISCONNECTED = Ending(
    "disconnected",
    4006,
    "disconnected by the operator",
    False,
    "server",
    "`POST /api/realtime/disconnect` named the client, its user or a channel of its.",
)
TOO_MANY_COMMANDS = Ending(
    "too_many_commands",
    4008,
    "too many messages",
    True,
    "client",
    "More messages and pings than `limits.commands_per_second` allows, or too many while a token was looked at.",
)
UNAUTHENTICATED = Ending(
    "unauthenticated",
    4401,
    "no valid token in time",
    False,
    "client",
    "No valid token came within `auth.authenticate_seconds`, or five that do not count; come back with one.",
)
TOKEN_EXPIRED = Ending(
    "token_expired",
    4402,
    "token expired",
    True,
    "client",
    "The token is over and was not renewed; come back with a new one.",
)
REVOKED = Ending(
    "revoked", 4403, "token revoked", False, "server", "The token, or all tokens of its user, were revoked."
)
TOO_MANY_CONNECTIONS = Ending(
    "too_many_connections",
    4429,
    "too many connections",
    True,
    "client",
    "The user that the token names has `limits.connections_per_user` connections already.",
)
UPSTREAM_REFUSED = Ending(
    "upstream_refused", None, "", False, "server", "Redis does not let the daemon listen to the stream's channel."
)
REQUEST_TOO_BIG = Ending(
    "request_too_big", None, "", False, "client", "An SSE client sent more than 64 KiB behind its request."
)

ENDINGS = (
    LEFT,
    COMPLETE,
    VANISHED,
    SILENT,
    PROTOCOL_ERROR,
    BAD_TEXT,
    FRAME_TOO_BIG,
    INTERNAL_ERROR,
    SHUTDOWN,
    OUTBOX_FULL,
    OUTBOX_STALE,
    OUTBOX_TOTAL,
    DISCONNECTED,
    TOO_MANY_COMMANDS,
    UNAUTHENTICATED,
    TOKEN_EXPIRED,
    REVOKED,
    TOO_MANY_CONNECTIONS,
    UPSTREAM_REFUSED,
    REQUEST_TOO_BIG,
)
