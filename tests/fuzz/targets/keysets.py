"""Keys that somebody else publishes: a JWK set or a PEM file is keys that check tokens, or a line that says why not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.auth.keyring import ALGORITHMS, HMAC, MAX_KEYS, Keyring
from tests.fuzz.reading import is_one_line
from tests.fuzz.target import Target


def check(data: bytes) -> str:
    return f"{keys(Keyring.from_jwks, data)} {keys(Keyring.from_pem, data)}"


def keys(read: Callable[[bytes], Keyring], data: bytes) -> str:
    try:
        keyring = read(data)
    except ValueError as error:
        assert is_one_line(str(error)), error
        return "none"
    assert 0 < len(keyring.keys) <= MAX_KEYS
    kinds = set()
    for key in keyring.keys:
        # Whatever is published, nobody signs with it.
        assert key.algorithms and set(key.algorithms) <= ALGORITHMS - set(HMAC)
        assert key.fingerprint and is_one_line(key.kind)
        assert not any(key.verifies(algorithm, b"a.b", b"\0" * 64) for algorithm in key.algorithms)
        kinds.add(key.kind.partition(",")[0])
        for algorithm in key.algorithms:
            assert key in keyring.candidates(algorithm, key.kid)
    return "+".join(sorted(kinds))


def part(number: int, size: int) -> str:
    return base64.urlsafe_b64encode(number.to_bytes(size, "big")).rstrip(b"=").decode()


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


# Made of fixed numbers, so that the same seeds are the same bytes.
EDWARDS = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()
CURVE = ec.derive_private_key(12345, ec.SECP256R1()).public_key()
POINT = CURVE.public_numbers()
JWK_OF_EDWARDS = {
    "kty": "OKP",
    "crv": "Ed25519",
    "x": part(int.from_bytes(EDWARDS.public_bytes(Encoding.Raw, PublicFormat.Raw), "big"), 32),
}
JWK_OF_CURVE = {"kty": "EC", "crv": "P-256", "x": part(POINT.x, 32), "y": part(POINT.y, 32)}
# No such primes exist; it is as long as a key's modulus.
JWK_OF_RSA = {"kty": "RSA", "n": part((1 << 2047) + 12345, 256), "e": "AQAB"}

TARGET = Target(
    "keysets",
    check,
    (
        jwks({**JWK_OF_EDWARDS, "kid": "a", "use": "sig"}),
        jwks({**JWK_OF_CURVE, "kid": "b", "alg": "ES256"}, {**JWK_OF_EDWARDS, "key_ops": ["verify"]}),
        jwks({**JWK_OF_RSA, "kid": "c", "alg": "PS256"}),
        jwks({"kty": "oct", "k": "AAAA"}, {**JWK_OF_CURVE, "d": "AA"}),
        jwks({**JWK_OF_CURVE, "crv": "secp256k1"}, {**JWK_OF_EDWARDS, "use": "enc"}),
        jwks({"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
        EDWARDS.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        CURVE.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        b"-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
        b"-----BEGIN RSA PUBLIC KEY-----\nMAYCAQMCAQM=\n-----END RSA PUBLIC KEY-----\n",
        b'{"keys": []}',
        b"",
    ),
    (
        b'"keys"', b'"kty"', b'"crv"', b'"x"', b'"y"', b'"n"', b'"e"', b'"d"', b'"kid"', b'"alg"', b'"use"',
        b'"key_ops"', b'"EC"', b'"OKP"', b'"RSA"', b'"oct"', b'"P-256"', b'"P-384"', b'"P-521"', b'"secp256k1"',
        b'"Ed25519"', b'"Ed448"', b'"X25519"', b'"AQAB"', b'"AA"', b'""', b"null", b"=", b"-----BEGIN PUBLIC KEY-----",
        b"-----END PUBLIC KEY-----", b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----", b'"sig"', b'"ES256"',
    ),
    frozenset({"Ed25519 none", "EC+Ed25519 none", "RSA none", "none EC", "none Ed25519", "none none"}),
    max_bytes=5_000,
)  # fmt: skip
