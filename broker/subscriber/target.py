"""A target: the broker that a subscriber connects to, as its URL says."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import trio
from attrs import frozen
from trio_websocket import WebSocketConnection, wrap_client_stream

from broker.errors import SubscriberError
from broker.subscriber.conversation import SUBPROTOCOL

MESSAGE_MAX_CHARACTERS = 64 * 1024 * 1024 + 1024  # the most that `channels.message_max_bytes` can be, in an envelope


@frozen
class Target:
    """Where to connect. `shown` leaves out the query, which may hold secrets."""

    host: str
    port: int
    tls: bool
    authority: str
    resource: str
    shown: str

    @classmethod
    def from_url(cls, url: str, user_id: str | None) -> Target:
        try:
            parts = urlsplit(url)
            host, tls = parts.hostname, parts.scheme in ("https", "wss")
            port = parts.port or (443 if tls else 80)
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https", "ws", "wss") or "@" in parts.netloc:
            raise SubscriberError(f"not a broker's URL: {url!a}; write http://HOST:PORT, https, ws or wss")
        path = quote(parts.path.rstrip("/").removesuffix("/ws"), safe="/%~!$&'()*+,;=:@") + "/ws"
        authority = (f"[{host}]" if ":" in host else host) + (f":{parts.port}" if parts.port else "")
        query = quote(parts.query, safe="/%?~!$&'()*+,;=:@")
        query += ("&" if query else "") + urlencode({"userId": user_id}) if user_id is not None else ""
        shown = f"{parts.scheme}://{authority}{parts.path}"
        return cls(host, port, tls, authority, path + (f"?{query}" if query else ""), shown)

    async def dial(self) -> trio.abc.Stream:
        dial = partial(trio.open_ssl_over_tcp_stream, https_compatible=True) if self.tls else trio.open_tcp_stream
        return await dial(self.host, self.port)

    async def shake_hands(self, nursery: trio.Nursery, wire: Any) -> WebSocketConnection:
        if isinstance(wire.stream, trio.SSLStream):
            await wire.stream.do_handshake()  # trio-websocket would swallow its error
        bounds = partial(wrap_client_stream, max_message_size=MESSAGE_MAX_CHARACTERS, receive_buffer_size=None)
        return await bounds(nursery, wire, self.authority, self.resource, subprotocols=[SUBPROTOCOL])
