"""A signed token taken apart, before anything of it is believed (JWS, compact form).

Laws: three parts of base64url, written in the one way that there is; the first two are JSON objects that can
mean one thing only. What the header asks for beyond a plain signature is refused, not passed over.

Values; no I/O. Bound: `MAX_CHARACTERS`, looked at before anything else. Source: RFC 7515, 3.1, 4.1 and 7.1;
RFC 7519, 5.1; RFC 9068, 2.1 (`at+jwt`).
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from broker.auth.strictjson import read_object
from broker.errors import TokenRefused

MAX_CHARACTERS = 8192
_PARTS = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)")
_STANDARD_ALPHABET = bytes.maketrans(b"-_", b"+/")
# The last character of a part whose length is 2 or 3 over a multiple of 4 has 4 or 2 bits that count for nothing.
_LAST = {2: b"AQgw", 3: b"AEIMQUYcgkosw048"}
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_REFUSED_HEADERS = ("crit", "b64", "zip", "enc")


@frozen
class CompactToken:
    """A token in its parts, none of them believed yet.

    Args:
        kid: the name of its key; None where it has none.
        signed: what the signature was made over.
    """

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    algorithm: str
    kid: str | None
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> CompactToken:
        """Take a token apart.

        Raises:
            TokenRefused: too_long, malformed, wrong_type, critical_header.
        """
        if len(text) > MAX_CHARACTERS:
            raise TokenRefused("too_long", f"the token is longer than {MAX_CHARACTERS} characters")
        parts = _PARTS.fullmatch(text.encode(errors="replace"))
        if parts is None:
            raise TokenRefused("malformed", "the token is no JWT: three parts of base64url with dots between")
        header = _object(parts[1], "header")
        algorithm, kid = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or not isinstance(kid, str | None) or ("kid" in header and kid is None):
            raise TokenRefused("malformed", "the token's header has no alg, or an alg or a kid that is no text")
        for name in _REFUSED_HEADERS:
            if name in header:
                raise TokenRefused("critical_header", f"the token's header has {name}, which is not supported")
        typ = header.get("typ", "JWT")
        if not isinstance(typ, str) or typ.lower() not in _TYPES:
            raise TokenRefused("wrong_type", "the token's typ is neither JWT nor at+jwt")
        claims = _object(parts[2], "payload")
        return cls(header, claims, algorithm, kid, parts.string[: parts.end(2)], _bytes(parts[3], "signature"))


def _object(part: bytes, name: str) -> dict[str, Any]:
    try:
        return read_object(_bytes(part, name))
    except ValueError as error:
        raise TokenRefused("malformed", f"the token's {name} {error}") from None


def _bytes(part: bytes, name: str) -> bytes:
    over = len(part) % 4
    if over == 1 or (over and part[-1] not in _LAST[over]):
        raise TokenRefused("malformed", f"the token's {name} is not base64url")
    return binascii.a2b_base64(part.translate(_STANDARD_ALPHABET) + b"=" * (-over % 4))
