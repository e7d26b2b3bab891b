"""A signer: whoever makes tokens, well or badly. Each kind of key is made once for all tests."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

SECRET = "s3cret-" + "x" * 57
NOW = 1_800_000_000.0

_MAKERS: dict[str, Any] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "EdDSA-448": ed448.Ed448PrivateKey.generate,
}


def private_key(algorithm: str, which: int = 0) -> Any:
    """A private key that fits an algorithm; each `which` is another."""
    return _made("RS256" if algorithm[:2] in ("RS", "PS") else algorithm, which)


@cache
def _made(kind: str, which: int) -> Any:
    return _MAKERS[kind]()


def pem(algorithm: str, which: int = 0) -> bytes:
    """The public half, as a file has it."""
    public = private_key(algorithm, which).public_key()
    return bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def private_pem(algorithm: str, which: int = 0) -> bytes:
    key = private_key(algorithm, which)
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def jwk(algorithm: str, which: int = 0, **members: Any) -> dict[str, Any]:
    """The public half, as a JWK set has it."""
    name = algorithm.partition("-")[0]
    public = private_key(algorithm, which).public_key()
    return {**jwt.get_algorithm_by_name(name).to_jwk(public, as_dict=True), **members}


def jwks(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """What a good token says; None leaves a claim out."""
    said = {"sub": "ann", "exp": int(NOW) + 600, "iat": int(NOW) - 5, **changes}
    return {name: value for name, value in said.items() if value is not None}


def token(algorithm: str = "HS256", which: int = 0, *, headers: dict[str, Any] | None = None, **changes: Any) -> str:
    """A good token, but for `changes` of its claims and more `headers`. HS is signed with `SECRET`."""
    key = SECRET if algorithm.startswith("HS") else private_key(algorithm, which)
    return jwt.encode(claims(**changes), key, algorithm.partition("-")[0], headers)


def part(value: object) -> str:
    """One part of a token: bytes as they are, anything else as JSON."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def handmade(header: object, payload: object, secret: str | bytes = SECRET) -> str:
    """A token signed with HS256 whatever its header and payload are."""
    signed = f"{part(header)}.{part(payload)}"
    key = secret.encode() if isinstance(secret, str) else secret
    return f"{signed}.{part(jwt.get_algorithm_by_name('HS256').sign(signed.encode(), key))}"
