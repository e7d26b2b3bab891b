"""Tokens (JWT): from the text that a client sends to who it is, or why not.

Laws: the signature comes first; nothing that a token claims counts before it. Whatever text arrives, the
outcome is an identity or `TokenRefused`, nothing else. A claim that is there in a wrong shape refuses the
token: it is never read as if it were not there. Time is the caller's `now`.

Values; no I/O, no clock. Bounds: those of `compact.py`; `MAX_PATTERNS` in a claim, `MAX_NAME_CHARACTERS` in `sub`
and `jti`. Source: RFC 7519, 4.1 (claims) and 7.2 (order); RFC 8725, 3.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from broker.auth.compact import CompactToken
from broker.auth.identity import USER, Identity
from broker.auth.keyring import ALGORITHMS, HMAC, Keyring
from broker.config.access import Auth
from broker.errors import TokenRefused
from broker.pattern import Pattern

MAX_PATTERNS = 1000
MAX_NAME_CHARACTERS = 256
ISSUED_AHEAD_SECONDS = 60.0
"""How far in the future `iat` may be, besides the leeway: clocks differ, and the claim is there to be compared
with revocations. One that is further ahead is in milliseconds, or means to outlive them."""

_YEAR_10000 = 253402300800.0  # a date in milliseconds is far behind it
# Line ends and other controls, and halves of characters, which UTF-8 cannot write.
_NOT_IN_NAMES = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@frozen
class TokenReader:
    """Reads tokens as the settings want them."""

    _section: Auth

    def read(self, text: str, keyring: Keyring, now: float) -> Identity:
        """Who a token says its bearer is.

        Args:
            now: seconds since 1970.

        Returns:
            a USER; `expires_at` is `exp` and the leeway: when it stops to count.

        Raises:
            TokenRefused: with every reason that there is. `unknown_key` means that a newer keyring may help.
        """
        token = CompactToken.parse(text)
        check_signature(token, keyring)
        return self.identity_of(token.claims, now)

    def identity_of(self, claims: Mapping[str, Any], now: float) -> Identity:
        """Who the claims say somebody is, whoever signed them.

        Raises:
            TokenRefused: expired, not_yet, no_expiry, wrong_issuer, wrong_audience, no_subject, bad_claim.
        """
        expires_at, issued_at = self._check_times(claims, now)
        self._check_parties(claims)
        if claims.get("sub") in (None, ""):
            raise TokenRefused("no_subject", "the token has no sub: the id of its user")
        is_admin = claims.get("broker_admin", False)
        if not isinstance(is_admin, bool):
            raise TokenRefused("bad_claim", "the token's broker_admin is neither true nor false")
        return Identity(
            kind=USER,
            user_id=_name(claims, "sub"),
            subscribe=_patterns(claims, "subscribe"),
            publish=_patterns(claims, "publish"),
            is_admin=is_admin,
            expires_at=expires_at,
            issued_at=issued_at,
            token_id=_name(claims, "jti"),
        )

    def _check_times(self, claims: Mapping[str, Any], now: float) -> tuple[float | None, float | None]:
        leeway = self._section.leeway_seconds
        expires, begins, issued = (_seconds(claims, name) for name in ("exp", "nbf", "iat"))
        if expires is None:
            if self._section.expiry == "required":
                raise TokenRefused("no_expiry", "the token has no exp: when it ends")
        elif now >= expires + leeway:
            raise TokenRefused("expired", "the token has expired")
        if begins is not None and now < begins - leeway:
            raise TokenRefused("not_yet", "the token does not count yet: its nbf is ahead")
        if issued is not None and now < issued - leeway - ISSUED_AHEAD_SECONDS:
            raise TokenRefused("not_yet", "the token was made in the future: its iat is ahead")
        return None if expires is None else expires + leeway, issued

    def _check_parties(self, claims: Mapping[str, Any]) -> None:
        issuer, audience = claims.get("iss"), claims.get("aud")
        if "iss" in claims and not isinstance(issuer, str):
            raise TokenRefused("bad_claim", "the token's iss is no text")
        named = [audience] if isinstance(audience, str) else audience if isinstance(audience, list) else []
        if "aud" in claims and not (named and all(isinstance(name, str) for name in named)):
            raise TokenRefused("bad_claim", "the token's aud is neither a text nor a list of them")
        if self._section.issuer and issuer != self._section.issuer:
            raise TokenRefused("wrong_issuer", "the token's iss is not the one that is asked for here")
        if self._section.audience and not set(self._section.audience) & set(named):
            raise TokenRefused("wrong_audience", "the token's aud is not for here")


def check_signature(token: CompactToken, keyring: Keyring) -> None:
    """Whether a key of the keyring signed the token.

    Raises:
        TokenRefused: algorithm, unknown_key, bad_signature.
    """
    algorithm, kid = token.algorithm, token.kid
    if algorithm not in ALGORITHMS:
        raise TokenRefused("algorithm", "the token's alg is not one that is taken here")
    candidates = keyring.candidates(algorithm, kid)
    if not candidates and algorithm in HMAC:
        # No JWK set will bring a secret.
        raise TokenRefused("algorithm", "the token is signed with a secret, and there is none here")
    if any(key.verifies(algorithm, token.signed, token.signature) for key in candidates):
        return
    if not candidates or (kid is not None and algorithm not in HMAC and not keyring.has(algorithm, kid)):
        named = "" if kid is None else f" {kid[:80]!a}"
        raise TokenRefused("unknown_key", f"the token's key{named} is not known here")
    raise TokenRefused("bad_signature", "the token's signature is not by a key that is known here")


def _seconds(claims: Mapping[str, Any], name: str) -> float | None:
    """A moment; bool is an int to Python, and none here."""
    if name not in claims:
        return None
    value = claims[name]
    if type(value) not in (int, float) or not 0 <= value < _YEAR_10000 or not math.isfinite(value):
        raise TokenRefused("bad_claim", f"the token's {name} is no number of seconds since 1970")
    return float(value)


def _name(claims: Mapping[str, Any], name: str) -> str | None:
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME_CHARACTERS or _NOT_IN_NAMES.search(value):
        raise TokenRefused(
            "bad_claim", f"the token's {name} is no text of 1 to {MAX_NAME_CHARACTERS} characters without controls"
        )
    return value


def _patterns(claims: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    if name not in claims:
        return None
    listed = claims[name]
    if not isinstance(listed, list) or len(listed) > MAX_PATTERNS or not all(isinstance(each, str) for each in listed):
        raise TokenRefused(
            "bad_claim", f"the token's {name} is no list of at most {MAX_PATTERNS} channel patterns, such as alerts:7"
        )
    for text in listed:
        try:
            Pattern.parse(text)
        except ValueError as error:
            raise TokenRefused("bad_claim", f"the token's {name} has a bad pattern: {error}") from None
    return tuple(listed)
