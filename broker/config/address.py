"""An address to listen on: `HOST:PORT`, `[IPV6]:PORT` or `unix:/path`.

Laws: its host is always written out (`:8000` would hide whether the world may connect); an IPv6
address is always in brackets; a socket's path is absolute and at most 107 bytes. Port 0 is any free
port. Nothing is looked up: a name is checked for its letters only.
"""

from __future__ import annotations

import os
import re
from ipaddress import IPv4Address, IPv6Address

from attrs import frozen

from broker.config.secret import shown

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})", re.ASCII)
_IPV4_LIKE = re.compile(r"[0-9.]+", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
# sockaddr_un.sun_path on Linux, less its closing NUL; macOS has 4 bytes less and says so itself.
_PATH_MAX_BYTES = 107


@frozen
class Address:
    """One address. Either `host` and `port` are set, or `path`, the file of a Unix socket, is.

    Shape: `host` is a name, an IPv4 or an IPv6 address without brackets; `port` is 0 to 65535.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `HOST:PORT`, `[IPV6]:PORT` or `unix:/path`.

        Raises:
            ValueError: anything else; the message says what to write.
        """
        if text.startswith("unix:"):
            return cls(path=_path(text.removeprefix("unix:"), text))
        if "://" in text:
            raise ValueError(f"{shown(text)} is a URL; write HOST:PORT, [IPV6]:PORT or unix:/path")
        host, colon, port = text.rpartition(":")
        if not colon or text.endswith("]"):
            example = f"127.0.0.1:{text}" if _PORT.fullmatch(text) else "HOST:PORT such as 127.0.0.1:8000"
            raise ValueError(f"{shown(text)} has no {'host' if _PORT.fullmatch(text) else 'port'}; write {example}")
        if not _PORT.fullmatch(port) or int(port) > 65535:
            raise ValueError(f"{shown(text)} has no port from 0 to 65535 behind its last colon")
        if host in ("", "*"):
            raise ValueError(
                f"{shown(text)} has no host; write 127.0.0.1:{port} for this machine only, "
                f"0.0.0.0:{port} or [::]:{port} for every network"
            )
        return cls(host=_host(host, port, text), port=int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect: 127.0.0.0/8, ::1, localhost, or a Unix socket."""
        if self.path or self.host.lower() == "localhost":
            return True
        if ":" in self.host:
            return int(IPv6Address(self.host)) == 1
        return bool(_IPV4_LIKE.fullmatch(self.host)) and IPv4Address(self.host).is_loopback

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _path(path: str, text: str) -> str:
    if not path.startswith("/") or path.startswith("//"):
        raise ValueError(f"{shown(text)} has no absolute path; write it with one slash, unix:/run/broker.sock")
    if "\0" in path or path.endswith("/"):
        raise ValueError(f"{shown(text)} does not name a file; write unix:/run/broker.sock")
    if (size := len(os.fsencode(path))) > _PATH_MAX_BYTES:
        raise ValueError(f"{shown(text)} has a path of {size} bytes; a socket's path has at most {_PATH_MAX_BYTES}")
    return path


def _host(host: str, port: str, text: str) -> str:
    if host.startswith("[") and host.endswith("]"):
        try:
            IPv6Address(host[1:-1])
        except ValueError:
            raise ValueError(f"{shown(text)} has no IPv6 address in its brackets; write [::1]:{port}") from None
        return host[1:-1]
    if ":" in host:
        raise ValueError(f"{shown(text)} has more than one colon; write an IPv6 address in brackets, [::1]:{port}")
    if _IPV4_LIKE.fullmatch(host):
        try:
            IPv4Address(host)
        except ValueError:
            raise ValueError(
                f"{shown(text)} is not an IPv4 address of four numbers from 0 to 255; write 127.0.0.1:{port}"
            ) from None
    elif not _NAME.fullmatch(host):
        raise ValueError(f"{shown(text)} has a character that no host name has; use letters, digits and - . _")
    return host
