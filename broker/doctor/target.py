"""Where the daemon is: its URL taken apart, and how to connect to it.

What a URL gives is the same for every check: host, port, TLS, and the path in front of the daemon's own
where a proxy serves it below one. The system's certificates are trusted, and `SSL_CERT_FILE` or the caller says
others. A token, where there is one, is shown by every check that needs one, and by no message.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

import trio
from attrs import field, frozen

_TOKEN = re.compile(r"[\x21-\x7e]{1,8000}")
_TLS_OF_SCHEME = {"http": False, "ws": False, "https": True, "wss": True}


def check_token(token: str) -> None:
    """Raises: ValueError, for what would not be one header; the message does not show it."""
    if not _TOKEN.fullmatch(token):
        raise ValueError("not a token: it must be 1 to 8000 visible ASCII characters, without spaces")


@frozen
class Target:
    """One daemon. `url` has no slash at its end and no query; `tls` is None for none."""

    host: str
    port: int
    authority: str
    path: str
    tls: ssl.SSLContext | None = field(repr=False, eq=False)
    token: str | None = field(default=None, repr=False)

    @classmethod
    def from_url(cls, url: str, token: str | None = None, ca_file: str | None = None) -> Target:
        """Read `http://host:port`, or https, ws, wss; `/ws` at its end is left out.

        Args:
            token: checked, by `check_token`.
            ca_file: PEM file of the certificates to trust.

        Raises:
            ValueError: anything else; the message says what to write.
            OSError: the file cannot be read.
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
            ssl.create_default_context(cafile=ca_file) if tls else None,
            token,
        )

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}{self.path}"

    @property
    def headers(self) -> Mapping[str, str]:
        """What a request shows."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

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
