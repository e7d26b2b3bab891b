"""Tokens and API keys: as text, and as claims of somebody who can sign; all are an identity or a named refusal."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import attrs

from broker.auth.apikey import ApiKeys, line_of
from broker.auth.explanation import about, explanation
from broker.auth.identity import USER, Identity
from broker.auth.keyring import Keyring
from broker.auth.rules import SUBSCRIBE, RuleBook
from broker.auth.token import TokenReader
from broker.channel import Channel
from broker.config.access import Auth, Rules
from broker.errors import TokenRefused
from broker.pattern import Pattern
from tests.fuzz.reading import is_one_line
from tests.fuzz.target import Target

NOW = 1_700_000_000.0
SECRET = "s" * 32
KEY = "bk_ci_" + "k" * 43
KEYRING = Keyring.from_secret(SECRET)
READERS = (
    TokenReader(Auth(secret=SECRET)),
    TokenReader(Auth(secret=SECRET, expiry="optional", issuer="i", audience=("a", "b"), leeway_seconds=60.0)),
)
API_KEYS = ApiKeys(Auth(publish_keys=(line_of(KEY),)))
BOOK = RuleBook(Rules(), {})
SIGN = b"sign "
# Every one that may be said; another is a promise that nobody wrote down.
CODES = {
    "too_long", "malformed", "wrong_type", "critical_header", "algorithm", "unknown_key", "bad_signature", "expired",
    "not_yet", "no_expiry", "wrong_issuer", "wrong_audience", "no_subject", "bad_claim", "unknown_api_key",
}  # fmt: skip


def check(data: bytes) -> str:
    """`sign `, a header, a line end, claims: signed as they are. Anything else is a token's text."""
    if data.startswith(SIGN):
        header, _, claims = data.removeprefix(SIGN).partition(b"\n")
        text = signed(header, claims)
    else:
        text = data.decode("latin-1")
    said = [read(reader, text) for reader in READERS]
    try:
        identity = API_KEYS.identify(text)
        assert identity is None or text == KEY
    except TokenRefused as refused:
        said.append(check_refusal(refused, text))
    return " ".join(said)


def read(reader: TokenReader, text: str) -> str:
    try:
        identity = reader.read(text, KEYRING, NOW)
    except TokenRefused as refused:
        return check_refusal(refused, text)
    check_identity(identity)
    return "user"


def check_refusal(refused: TokenRefused, text: str) -> str:
    assert refused.reason in CODES, refused.reason
    assert is_one_line(str(refused)), refused
    # Nothing of what it is about, but a short name of a key that is not known.
    assert len(text) < 20 or text not in str(refused)
    return refused.reason


def check_identity(identity: Identity) -> None:
    assert identity.kind == USER and isinstance(identity.is_admin, bool)
    for name in (identity.user_id, identity.token_id):
        assert name is None or (0 < len(name) <= 256 and not set(name) & set("\r\n\0\x85\u2028\u2029\x1b"))
    assert identity.user_id
    for patterns in (identity.subscribe, identity.publish):
        for pattern in patterns or ():
            Pattern.parse(pattern)
    for moment in (identity.expires_at, identity.issued_at):
        assert moment is None or 0 <= moment < 1e12
    assert identity.expires_at is None or identity.expires_at > NOW
    json.dumps(about(identity)).encode()
    for name in ("alerts:ann", "a", "a:b:c"):
        said = explanation(BOOK, identity, SUBSCRIBE, Channel.from_name(name))
        assert is_one_line(said["why"])
    assert attrs.evolve(identity) == identity


def signed(header: bytes, claims: bytes) -> str:
    first = b".".join(map(part, (header, claims)))
    algorithm = {b"HS384": hashlib.sha384, b"HS512": hashlib.sha512}.get(
        next((name for name in (b"HS384", b"HS512") if name in header), b""), hashlib.sha256
    )
    return (first + b"." + part(hmac.digest(SECRET.encode(), first, algorithm))).decode()


def part(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def claims(header: dict[str, Any] | None = None, **members: Any) -> bytes:
    members = {"sub": "ann", "exp": NOW + 60, **members}
    return SIGN + json.dumps(header or {"alg": "HS256"}).encode() + b"\n" + json.dumps(members).encode()


TARGET = Target(
    "tokens",
    check,
    (
        claims(),
        claims(iss="i", aud=["a"], nbf=NOW, iat=NOW, jti="1", subscribe=["job_progress:*"], publish=[]),
        claims({"alg": "HS512", "typ": "JWT", "kid": "k"}, iss="i", aud="b", subscribe=["alerts:{sub}"]),
        claims(broker_admin=True),
        claims(exp=NOW - 1),
        claims(nbf=NOW + 1000),
        claims({"alg": "none"}),
        claims({"alg": "RS256", "kid": "x"}),
        claims({"alg": "HS256", "crit": ["b64"], "b64": False}),
        claims({"alg": "HS256", "typ": "at+jwt", "jwk": {"kty": "oct", "k": "AA"}, "jku": "https://a"}),
        claims(sub=""),
        signed(b'{"alg":"HS256"}', b'{"sub":"ann","exp":1700000060}').encode(),
        b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4ifQ.",
        KEY.encode(),
        b"bk_ci_" + b"A" * 43,
        b"",
    ),
    (
        b'"sub"', b'"exp"', b'"nbf"', b'"iat"', b'"iss"', b'"aud"', b'"jti"', b'"subscribe"', b'"publish"', b'"alg"',
        b'"broker_admin"', b'"kid"', b'"typ"', b'"crit"', b'"none"', b'"HS256"', b'"HS384"', b'"RS256"', b'"EdDSA"',
        b"true", b"null", b"[]", b"{}", b"1700000060", b"1e400", b"NaN", b".", b"..", b"=", b"-", b"_", b'"i"', b'"a"',
        b'"sub":"x",', b"sign ", b"bk_", b'"*"', b'"alerts:{sub}"', b'"a b"',
    ),
    frozenset({"user wrong_issuer", "user user", "expired expired", "malformed malformed", "bad_claim bad_claim"}),
)  # fmt: skip
