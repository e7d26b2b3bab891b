"""How Redis is named in the settings: its URL, and what stands in front of every channel's name there.

Nothing is looked up, and no message has a password in it.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from broker.config.secret import mask_url, shown

_PREFIX = re.compile(r"[!-~]*", re.ASCII)
_SCHEMES = ("redis://", "rediss://", "unix://")


def check_redis_url(url: str) -> None:
    """Refuse a URL that names no Redis; the empty text, the embedded one, passes.

    Raises:
        ValueError: another scheme, or a port that is no number, as when a password with a raw `/ ? #` ends the host.
    """
    if not url:
        return
    if not url.startswith(_SCHEMES):
        raise ValueError(f"{shown(mask_url(url))} must start with redis://, rediss:// or unix://")
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError(
            f"{shown(mask_url(url))} has no usable host and port; "
            "write special characters of a password as %XX, such as %2F for /"
        ) from None


def check_channel_prefix(prefix: str) -> None:
    """Refuse what is not printable ASCII without spaces.

    Raises:
        ValueError: so it is.
    """
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(f"{shown(prefix)} has a space or a letter that is not ASCII; write it without, such as app:")
