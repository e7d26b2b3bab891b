"""The opening handshake of a WebSocket: what is answered to an upgrade request, and which subprotocol is spoken.

No extension is ever negotiated. Synchronous; no I/O. Source: RFC 6455, 4.2; WHATWG WebSockets, 3.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re

from broker.request import Request, RequestRefused

SUBPROTOCOL = b"broker.v1"
BASE_SUBPROTOCOL = b"broker.base"  # as with none; to offer beside a token
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,8300}")


def subprotocol_of(request: Request) -> bytes | None:
    """Which of the subprotocols that the client offers is spoken: `broker.v1`, `broker.base`, or none.

    Browsers take no answer without a choice, so one that offers nothing but its token is answered with that.
    """
    offered = [
        part.strip()
        for name, value in request.headers
        if name == b"sec-websocket-protocol"
        for part in value.split(b",")
    ]
    for known in (SUBPROTOCOL, BASE_SUBPROTOCOL):
        if known in offered:
            return known
    return next((part for part in offered if part.startswith(b"bearer.") and _TOKEN.fullmatch(part)), None)


def handshake(request: Request, subprotocol: bytes | None = None) -> bytes:
    """The answer to an upgrade request.

    Raises:
        RequestRefused: it is not a WebSocket handshake of version 13 (RFC 6455, 4.2.1).
    """
    if request.method != "GET":
        raise RequestRefused(405, "a WebSocket begins with GET", "Use GET.", {"Allow": "GET"})
    if not request.upgrades_to_websocket or request.http_version != b"1.1":
        raise RequestRefused(
            426,
            "this path speaks WebSocket only",
            "Send Connection: Upgrade and Upgrade: websocket, or use /api/stream for Server-Sent Events.",
            {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
        )
    if request.header(b"sec-websocket-version") != b"13":
        raise RequestRefused(
            426,
            "only WebSocket version 13 is spoken here",
            "Send Sec-WebSocket-Version: 13.",
            {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"},
        )
    keys = [value for name, value in request.headers if name == b"sec-websocket-key"]
    if len(keys) != 1 or not _is_key(keys[0]):
        raise RequestRefused(
            400, "Sec-WebSocket-Key is not 16 bytes of base64", "Send one Sec-WebSocket-Key of 16 random bytes."
        )
    accept = base64.b64encode(hashlib.sha1(keys[0] + _GUID, usedforsecurity=False).digest())
    chosen = b"" if subprotocol is None else b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %b\r\n%b\r\n" % (accept, chosen)
    )


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 16
    except binascii.Error:
        return False
