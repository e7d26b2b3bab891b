"""A target: the broker that a subscriber connects to, as its URL says."""

from __future__ import annotations

import ssl
from functools import partial
from os import PathLike
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import trio
from attrs import field, frozen
from trio_websocket import WebSocketConnection, wrap_client_stream

from broker.errors import SubscriberError
from broker.subscriber.conversation import SUBPROTOCOL

MESSAGE_MAX_CHARACTERS = 64 * 1024 * 1024 + 1024  # the most that `channels.message_max_bytes` can be, in an envelope


@frozen
class Target:
    """Where to connect. `shown` leaves out the query, which may hold secrets."""

    host: str
    port: int
    tls: ssl.SSLContext | None = field(repr=False, eq=False)
    authority: str
    resource: str
    shown: str

    @classmethod
    def from_url(cls, url: str, user_id: str | None, ca_file: str | PathLike[str] | None = None) -> Target:
        """Read the URL, and the certificates to trust, once.

        Args:
            ca_file: PEM; None for the system's, or those that `SSL_CERT_FILE` names.

        Raises:
            SubscriberError: one of these cannot be used.
        """
        try:
            parts = urlsplit(url)
            host, has_tls = parts.hostname, parts.scheme in ("https", "wss")
            port = parts.port or (443 if has_tls else 80)
        except ValueError:
            host = None
        if not host or parts.scheme not in ("http", "https", "ws", "wss") or "@" in parts.netloc:
            raise SubscriberError(f"not a broker's URL: {url!a}; write http://HOST:PORT, https, ws or wss")
        path = quote(parts.path.rstrip("/").removesuffix("/ws"), safe="/%~!$&'()*+,;=:@") + "/ws"
        authority = (f"[{host}]" if ":" in host else host) + (f":{parts.port}" if parts.port else "")
        query = quote(parts.query, safe="/%?~!$&'()*+,;=:@")
        query += ("&" if query else "") + urlencode({"userId": user_id}) if user_id is not None else ""
        shown = f"{parts.scheme}://{authority}{parts.path}"
        return cls(
            host, port, _trusting(ca_file) if has_tls else None, authority, path + (f"?{query}" if query else ""), shown
        )

    async def dial(self) -> trio.abc.Stream:
        if self.tls is None:
            return await trio.open_tcp_stream(self.host, self.port)
        return await trio.open_ssl_over_tcp_stream(self.host, self.port, https_compatible=True, ssl_context=self.tls)

    async def shake_hands(self, nursery: trio.Nursery, wire: Any, token: str | None = None) -> WebSocketConnection:
        if isinstance(wire.stream, trio.SSLStream):
            await wire.stream.do_handshake()  # trio-websocket would swallow its error
        bounds = partial(wrap_client_stream, max_message_size=MESSAGE_MAX_CHARACTERS, receive_buffer_size=None)
        headers = [] if token is None else [(b"Authorization", b"Bearer " + token.encode("ascii"))]
        return await bounds(
            nursery, wire, self.authority, self.resource, subprotocols=[SUBPROTOCOL], extra_headers=headers
        )


def _trusting(ca_file: str | PathLike[str] | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # an SSLError too, for what is no PEM
        why = error.strerror or str(error)
        raise SubscriberError(f"cannot read certificates to trust from {str(ca_file)!a}: {why}") from None
