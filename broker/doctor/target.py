"""Where the daemon is: its URL taken apart, and how to connect to it.

What a URL gives is the same for every check: host, port, TLS, and the path in front of the daemon's own
where a proxy serves it below one. The system's certificates are trusted, and `SSL_CERT_FILE` says others.
"""

from __future__ import annotations

import ssl
from urllib.parse import quote, urlsplit

import trio
from attrs import field, frozen

_TLS_OF_SCHEME = {"http": False, "ws": False, "https": True, "wss": True}


@frozen
class Target:
    """One daemon. `url` has no slash at its end and no query; `tls` is None for none."""

    host: str
    port: int
    authority: str
    path: str
    tls: ssl.SSLContext | None = field(repr=False, eq=False)

    @classmethod
    def from_url(cls, url: str) -> Target:
        """Read `http://host:port`, or https, ws, wss; `/ws` at its end is left out.

        Raises:
            ValueError: anything else; the message says what to write.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.scheme not in _TLS_OF_SCHEME or "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError("not the URL of a broker; write http://HOST:PORT, https, ws or wss, and nothing behind it")
        tls = _TLS_OF_SCHEME[parts.scheme]
        return cls(
            host,
            port or (443 if tls else 80),
            (f"[{host}]" if ":" in host else host) + (f":{port}" if port else ""),
            quote(parts.path.rstrip("/").removesuffix("/ws"), safe="/%~!$&'()*+,;=:@"),
            ssl.create_default_context() if tls else None,
        )

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.path}"

    async def dial(self) -> trio.abc.Stream:
        """A connection, its TLS handshake done. The caller closes it.

        Raises:
            OSError: not reachable.
            trio.BrokenResourceError: its cause is the TLS error.
        """
        if self.tls is None:
            return await trio.open_tcp_stream(self.host, self.port)
        stream = await trio.open_ssl_over_tcp_stream(self.host, self.port, https_compatible=True, ssl_context=self.tls)
        try:
            await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream
