"""Addresses in the settings: what to listen on, where Redis is and its channels are, who may connect.

An address to listen on is `HOST:PORT`, `[IPV6]:PORT` or `unix:/path`.

Laws: its host is always written out (`:8000` would hide whether the world may connect); an IPv6
address is always in brackets; a socket's path is absolute and at most 107 bytes. Port 0 is any free
port. Nothing is looked up: a name is checked for its letters only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_network
from urllib.parse import urlsplit

from attrs import frozen

from broker.channel import Channel
from broker.config.secret import mask_url, shown
from broker.errors import ChannelError
from broker.pattern import Pattern

_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})", re.ASCII)
_IPV4_LIKE = re.compile(r"[0-9.]+", re.ASCII)
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
# sockaddr_un.sun_path on Linux, less its closing NUL; macOS has 4 bytes less and says so itself.
_PATH_MAX_BYTES = 107

_WEB_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://((\*\.)?[a-z0-9_.-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?", re.ASCII)
_API_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}:[0-9a-f]{64}", re.ASCII)
_PREFIX = re.compile(r"[!-~]*", re.ASCII)
_REDIS_SCHEMES = ("redis://", "rediss://", "unix://")


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


def check_redis_url(url: str) -> None:
    """Refuse a URL that names no Redis; the empty text, the embedded one, passes.

    Raises:
        ValueError: another scheme, or a port that is no number, as when a password with a raw `/ ? #` ends the host.
    """
    if not url:
        return
    if not url.startswith(_REDIS_SCHEMES):
        raise ValueError(f"{shown(mask_url(url))} must start with redis://, rediss:// or unix://")
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError(
            f"{shown(mask_url(url))} has no usable host and port; "
            "write special characters of a password as %XX, such as %2F for /"
        ) from None


def check_web_origin(origin: str) -> None:
    """Refuse what is no origin as browsers send it, none with `*.` before a host, and not `*`.

    Raises:
        ValueError: a path, a slash at the end, capitals, no scheme.
    """
    if origin == "*":
        return
    match = _WEB_ORIGIN.fullmatch(origin)
    if not match or int(match["port"] or 0) > 65535:
        raise ValueError(
            f"{shown(origin)} is not a web origin; write scheme://host or scheme://host:port "
            "in lower case with nothing behind it, such as https://app.example.com or https://*.example.com, or *"
        )


def check_network(text: str) -> None:
    """Refuse what is no IP address, no network and not `unix`.

    Raises:
        ValueError: so it is.
    """
    if text == "unix":
        return
    try:
        ip_network(text)
    except ValueError as error:
        raise ValueError(
            f"{shown(text)} is no network; write 10.0.0.5, 10.0.0.0/8, fd00::/8 or unix: {error}"
        ) from None


def check_channel_prefix(prefix: str) -> None:
    """Refuse what is not printable ASCII without spaces.

    Raises:
        ValueError: so it is.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"{shown(prefix)} has a space or a letter that is not ASCII; write it without, such as app:")


def check_channel_type(name: str) -> None:
    """Refuse what is not one part of a channel's name.

    Raises:
        ValueError: a colon, or what the grammar of channels refuses.
    """
    if ":" in name:
        raise ValueError(f"{shown(name)} is more than a type; write the part before the first colon")
    try:
        Channel.from_name(name)
    except ChannelError as error:
        raise ValueError(str(error)) from None


def check_api_key(line: str) -> None:
    """Refuse what is not an API key as the settings have it: its name, a colon, the SHA-256 of the key in hex.

    Raises:
        ValueError: so it is; the text is not repeated, as it may be the key itself.
    """
    if not _API_KEY.fullmatch(line):
        raise ValueError("is not NAME:HASH, as `broker key create NAME` writes it; the key itself does not go here")


CHECKS: Mapping[str, Callable[[str], object]] = {
    "listen.addresses": Address.parse,
    "listen.allowed_origins": check_web_origin,
    "listen.proxy_protocol": Address.parse,
    "listen.trusted_proxies": check_network,
    "listen.tls.addresses": Address.parse,
    "auth.publish_keys": check_api_key,
    "auth.admin_keys": check_api_key,
    "rules.user_subscribe": Pattern.parse,
    "rules.user_publish": Pattern.parse,
    "rules.anonymous_subscribe": Pattern.parse,
    "rules.anonymous_publish": Pattern.parse,
    "rules.key_publish": Pattern.parse,
    "redis.url": check_redis_url,
    "redis.channel_prefix": check_channel_prefix,
    "channels.declared": check_channel_type,
}
"""The check of each setting that holds addresses or names; a ValueError refuses."""
