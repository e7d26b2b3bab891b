"""What tokens and API keys are checked with, as the settings have it.

Law: no message holds what was written, for it may be a secret in the wrong place.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

SECRET_MIN_BYTES = 32  # RFC 7518, 3.2: as many as the digest of HS256
MAKE_SECRET = "openssl rand -base64 48"

_API_KEY = re.compile(r"[A-Za-z0-9_.-]{1,64}:[0-9a-f]{64}", re.ASCII)
_COOKIE = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{0,64}", re.ASCII)  # RFC 6265, 4.1.1: a token


def check_secret(secret: str) -> None:
    """Refuse a secret that could be guessed. Empty, it is none.

    Raises:
        ValueError: under 32 bytes.
    """
    if secret and len(secret.encode()) < SECRET_MIN_BYTES:
        raise ValueError(f"has less than {SECRET_MIN_BYTES} bytes; make one with `{MAKE_SECRET}`")


def check_jwks(place: str) -> None:
    """Refuse a URL over which anybody on the way could hand out keys. What is no URL is a file.

    Raises:
        ValueError: neither https:// nor http:// to this machine, a URL without a host, or one with a password.
    """
    if "://" not in place:
        return
    try:
        parts = urlsplit(place)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or not place.isascii() or " " in place:
        raise ValueError("has no usable host and port; write https://host/path, or the name of a file")
    if "@" in parts.netloc:
        raise ValueError("has a user or a password; keys of tokens are public: write the URL without")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_this_machine(host)):
        raise ValueError("must start with https:// (or http:// where the host is this machine), or be a file")


def check_api_key(line: str) -> None:
    """Refuse what is not an API key as the settings have it: its name, a colon, the SHA-256 of the key in hex.

    Raises:
        ValueError: so it is.
    """
    if not _API_KEY.fullmatch(line):
        raise ValueError("is not NAME:HASH, as `broker key create NAME` writes it; the key itself does not go here")


def check_cookie(name: str) -> None:
    """Refuse what is no cookie's name. Empty, it is none.

    Raises:
        ValueError: a space, a letter that is not ASCII, or one of `( ) < > @ , ; : \\ " / [ ] ? = { }`.
    """
    if not _COOKIE.fullmatch(name):
        raise ValueError("is no cookie's name; use letters, digits and - _ . and at most 64 of them, such as token")


def check_audience(text: str) -> None:
    """Refuse an empty `aud`, which a comma too many leaves.

    Raises:
        ValueError: so it is.
    """
    if not text:
        raise ValueError("has an empty text; remove it")


def _is_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
