"""What a message may show: values quoted and cut, passwords out.

Law: where it is in doubt what the password is, too much is masked, not too little.
"""

from __future__ import annotations

import re
from typing import Any

MASK = "***"
_SHOWN_CHARACTERS = 80
# A value goes on until the next `&name=`, so that a raw & inside a password takes nothing of it outside.
_QUERY_SECRET = re.compile(r"([?&][\w-]*(?:password|secret|token)[\w-]*=).*?(?=&[a-z_]+=|$)", re.IGNORECASE | re.DOTALL)
# What is often written where a URL should be, and can be no password.
_HOST_AND_PORT = re.compile(r"(?:localhost|[0-9]{1,3}(?:\.[0-9]{1,3}){3}):[0-9]{1,5}")
_LOOKS_SECRET = re.compile(r"://|:.*@", re.DOTALL)


def mask_url(url: str) -> str:
    """`url` without its passwords: `redis://user:***@host:6379/0`.

    Masked are the password before the host, a user without one (`redis://hunter2@host` is usually a
    password in the wrong place) and query values whose name says password, secret or token. Not
    parsed as a URL, because a password with a raw `/ ? # @` in it would be cut in the middle.

    Returns:
        `***` for what is no URL at all, but `localhost:6379` as it is; the empty text for the empty text.
    """
    scheme, separator, rest = url.partition("://")
    if not separator and _HOST_AND_PORT.fullmatch(url):
        return url
    if not separator:
        return MASK + url[url.rindex("@") :] if "@" in url else MASK if url else ""
    masked = _QUERY_SECRET.sub(rf"\1{MASK}", rest)
    if masked.count("@") != rest.count("@"):
        # An @ inside a query secret: it cannot be told where the user part ends.
        return f"{scheme}://{MASK}"
    if "@" in masked and not (scheme == "unix" and masked.startswith("/")):
        before, _, host = masked.rpartition("@")
        user, colon, _ = before.partition(":")
        masked = f"{user}:{MASK}@{host}" if colon else f"{MASK}@{host}"
    return f"{scheme}://{masked}"


def masked(value: Any, secret: str) -> Any:
    """A setting's value as it may be shown; `secret` as in `setting`. What is masked shows not even its length."""
    if secret == "url":
        return mask_url(value)
    if secret == "hash":
        return tuple(f"{line.partition(':')[0]}:{MASK}" for line in value)
    return MASK if secret and value else value


def shown(text: str) -> str:
    """`text` fit for one line of a message: masked if it may hold a password, cut to 80 characters, ASCII, quoted."""
    if _LOOKS_SECRET.search(text):
        text = mask_url(text)
    return ascii(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "...")


def described(value: object) -> str:
    """A value of TOML in words; what is in a list or a table stays inside, for it may be a secret."""
    if isinstance(value, str):
        return f"the text {shown(value)}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        # str() refuses an int of over 4300 digits, which TOML's hexadecimal can write.
        return "a number of more than 64 bits" if type(value) is int and value.bit_length() > 63 else str(value)
    if isinstance(value, list | tuple):
        return "a list"
    return "a table" if isinstance(value, dict) else "a date or a time"


def kind_of(value: object) -> str:
    """As `described`, without the value, where it may be a secret."""
    if isinstance(value, str):
        return "a text"
    return "a number" if isinstance(value, int | float) and not isinstance(value, bool) else described(value)
