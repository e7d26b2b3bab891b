"""A keyring: the keys that signatures of tokens are checked with.

Laws: what a key may check is decided by the key, never by a token: a secret HS256, HS384 and HS512; an RSA key
RS and PS; an EC key the one ES of its curve; Ed25519 and Ed448 EdDSA (and the name of their own of RFC 9864).
So a public key is never taken for a secret. A token's header names a key, and brings none: `jwk`, `jku`, `x5c`
and the like are not looked at. Certificates lend their key; their dates and issuers are not looked at.

Values; no I/O. Bounds: `MAX_KEYS` in a JWK set, `MAX_PEM_KEYS` in a PEM file, `MAX_TRIED` for one token, RSA
keys of 2048 to 8192 bits. Source: RFC 7517 (JWK), 7518 (algorithms), 8037 (EdDSA), 8725 (what to guard against).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from broker.auth.strictjson import read_object
from broker.config.key import MAKE_SECRET, SECRET_MIN_BYTES

MAX_KEYS = 200
MAX_PEM_KEYS = 16
MAX_TRIED = 16
RSA_MIN_BITS, RSA_MAX_BITS = 2048, 8192

HMAC = ("HS256", "HS384", "HS512")
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_EC = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
_VERIFIERS = {
    **{name: jwt.get_algorithm_by_name(name) for name in (*HMAC, *_RSA, "ES256", "ES384", "ES512", "EdDSA")},
    **dict.fromkeys(("Ed25519", "Ed448"), jwt.get_algorithm_by_name("EdDSA")),
}
ALGORITHMS = frozenset(_VERIFIERS)
"""Every algorithm that some key can check."""

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]{1,40})-----.*?-----END \1-----", re.DOTALL)
# What of a JWK is read, by kind: no private member is.
_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_FROM_JWK = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}


class _Useless(ValueError):
    """A key of a JWK set that cannot check tokens, and why."""


@frozen
class Key:
    """One key.

    Args:
        kid: the name that tokens know it by; None for one without, which is tried for every token.
        algorithms: what it checks.
        kind: in words, such as `RSA, 2048 bits`.
        fingerprint: tells public keys apart; empty for a secret.
    """

    kid: str | None
    algorithms: tuple[str, ...]
    kind: str
    fingerprint: str
    _material: Any = field(repr=False, eq=False)

    @classmethod
    def of_public(cls, public: object, kid: str | None = None, only: str | None = None) -> Key:
        """A key for a public key of cryptography's.

        Args:
            only: the one algorithm that it is for; None for all that fit it.

        Raises:
            ValueError: no token is signed with such a key, or it is too weak.
        """
        fitting, kind = _fitting(public)
        if only is not None and only not in fitting:
            raise ValueError(f"{kind} does not fit its algorithm {only[:40]!a}")
        assert isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | _Edwards)
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return cls(kid, fitting if only is None else (only,), kind, hashlib.sha256(der).hexdigest(), public)

    def verifies(self, algorithm: str, signed: bytes, signature: bytes) -> bool:
        """Whether `signature` was made over `signed` with this key. False for algorithms that are not its own."""
        if algorithm not in self.algorithms:
            return False
        try:
            return bool(_VERIFIERS[algorithm].verify(signed, self._material, signature))
        except (InvalidSignature, UnsupportedAlgorithm, ValueError):
            return False


@frozen
class Keyring:
    """Keys in their order; `|` adds those of another keyring behind, without repeating any."""

    keys: tuple[Key, ...] = ()
    _named: Mapping[tuple[str, str | None], tuple[Key, ...]] = field(init=False, repr=False, eq=False)

    @_named.default
    def _index(self) -> Mapping[tuple[str, str | None], tuple[Key, ...]]:
        found: dict[tuple[str, str | None], tuple[Key, ...]] = {}
        for key in self.keys:
            for algorithm in key.algorithms:
                found[algorithm, key.kid] = (*found.get((algorithm, key.kid), ()), key)
        return found

    @classmethod
    def from_secret(cls, secret: str) -> Keyring:
        """The one key of a secret; none for the empty text.

        Raises:
            ValueError: it is too short, or is a public key or a JWK, which whoever has it could sign with.
        """
        if not secret:
            return cls()
        try:
            data = secret.encode()
        except UnicodeEncodeError:
            raise ValueError("the secret is not UTF-8") from None
        if len(data) < SECRET_MIN_BYTES:
            raise ValueError(
                f"the secret has {len(data)} bytes, at least {SECRET_MIN_BYTES} are needed; `{MAKE_SECRET}` makes one"
            )
        try:
            material = _VERIFIERS["HS256"].prepare_key(data)
        except jwt.InvalidKeyError:
            raise ValueError(
                "the secret is a public key, a certificate or a JWK; write those into a file for auth.key_file or "
                f"auth.jwks, and as secret what `{MAKE_SECRET}` makes"
            ) from None
        return cls((Key(None, HMAC, f"secret, {len(data)} bytes", "", material),))

    @classmethod
    def from_pem(cls, data: bytes) -> Keyring:
        """The public keys and certificates of a PEM file; they have no names.

        Raises:
            ValueError: there is none, too many, one that is private, or one that no token is signed with.
        """
        text = data.decode("latin-1")
        blocks = list(_BLOCK.finditer(text))
        if any("PRIVATE KEY" in block[1] for block in blocks) or "PRIVATE KEY-----" in text:
            raise ValueError(
                "holds a private key, which belongs to whoever makes tokens alone; write its public half, as "
                "`openssl pkey -in FILE -pubout` prints it"
            )
        if not blocks:
            raise ValueError("has no public key; it must be PEM: -----BEGIN PUBLIC KEY----- and so on")
        if len(blocks) > MAX_PEM_KEYS:
            raise ValueError(f"has {len(blocks)} keys, at most {MAX_PEM_KEYS} are taken; use a JWK set for more")
        keys = []
        for number, block in enumerate(blocks, 1):
            try:
                keys.append(Key.of_public(_pem_public(block[1], block[0].encode("latin-1"))))
            except ValueError as error:
                raise ValueError(f"key {number} of it cannot be used: {error}") from None
        return cls() | cls(tuple(keys))

    @classmethod
    def from_jwks(cls, data: bytes) -> Keyring:
        """The keys of a JWK set that can check tokens. What is private, symmetric, not for signatures or not
        known is left out, as RFC 7517, 5 has it; whoever publishes a private key has no key any more.

        Raises:
            ValueError: it is no JWK set, or none of its keys can be used; the message says why.
        """
        listed = read_object(data).get("keys")
        if not isinstance(listed, list):
            raise ValueError('is no JWK set: it has no list "keys"')
        if len(listed) > MAX_KEYS:
            raise ValueError(f"has {len(listed)} keys, at most {MAX_KEYS} are taken")
        keys, useless = [], []
        for number, jwk in enumerate(listed, 1):
            try:
                keys.append(_jwk_key(jwk))
            except ValueError as error:
                useless.append(f"key {number} {error}")
        if not keys:
            told = "; ".join(useless[:5]) or "it is empty"
            raise ValueError(f"has no key that tokens can be checked with: {told}")
        return cls() | cls(tuple(keys))

    def __or__(self, other: Keyring) -> Keyring:
        return Keyring(tuple(dict.fromkeys((*self.keys, *other.keys))))

    def __bool__(self) -> bool:
        return bool(self.keys)

    def candidates(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """The keys that may have signed a token, the likely ones first: with a `kid` those of that name and those
        without one; without, all that fit. At most `MAX_TRIED`."""
        if kid is not None:
            return (*self._named.get((algorithm, kid), ()), *self._named.get((algorithm, None), ()))[:MAX_TRIED]
        return [key for key in self.keys if algorithm in key.algorithms][:MAX_TRIED]

    def has(self, algorithm: str, kid: str | None) -> bool:
        """Whether there is a key of just that name, or of none."""
        return (algorithm, kid) in self._named


_Edwards = ed25519.Ed25519PublicKey | ed448.Ed448PublicKey


def _fitting(public: object) -> tuple[tuple[str, ...], str]:
    """The algorithms of a public key, and its kind in words."""
    if isinstance(public, rsa.RSAPublicKey):
        if not RSA_MIN_BITS <= public.key_size <= RSA_MAX_BITS:
            raise ValueError(f"an RSA key of {public.key_size} bits; {RSA_MIN_BITS} to {RSA_MAX_BITS} are taken")
        return _RSA, f"RSA, {public.key_size} bits"
    if isinstance(public, ec.EllipticCurvePublicKey):
        if public.curve.name not in _EC:
            raise ValueError(f"an EC key of the curve {public.curve.name}; P-256, P-384 and P-521 are taken")
        return _EC[public.curve.name], f"EC, {public.curve.key_size} bits"
    if isinstance(public, ed25519.Ed25519PublicKey):
        return ("EdDSA", "Ed25519"), "Ed25519"
    if isinstance(public, ed448.Ed448PublicKey):
        return ("EdDSA", "Ed448"), "Ed448"
    raise ValueError("tokens are signed with RSA, EC, Ed25519 or Ed448 keys, and this is none")


def _pem_public(label: str, block: bytes) -> object:
    try:
        if label == "CERTIFICATE":
            return x509.load_pem_x509_certificate(block).public_key()
        if label in ("PUBLIC KEY", "RSA PUBLIC KEY"):
            return load_pem_public_key(block)
    except (ValueError, UnsupportedAlgorithm, TypeError):
        raise ValueError(f"it is no valid {label.lower()}") from None
    raise ValueError(f"it is a {label}, neither a public key nor a certificate")


def _jwk_key(jwk: object) -> Key:
    if not isinstance(jwk, dict):
        raise _Useless("is no object")
    kind, kid, only, operations = jwk.get("kty"), jwk.get("kid"), jwk.get("alg"), jwk.get("key_ops")
    if kind == "oct":
        raise _Useless("is symmetric")
    if not isinstance(kind, str) or kind not in _MEMBERS:
        raise _Useless("is of a kind that is not known")
    if "d" in jwk:
        raise _Useless("is private")
    if jwk.get("use", "sig") != "sig" or (
        operations is not None and not (isinstance(operations, list) and "verify" in operations)
    ):
        raise _Useless("is not for signatures")
    if not isinstance(kid, str | None) or not isinstance(only, str | None):
        raise _Useless("has a kid or an alg that is no text")
    members = {name: jwk.get(name) for name in _MEMBERS[kind]}
    if not all(isinstance(value, str) for value in members.values()):
        raise _Useless(f"has not all of {', '.join(members)}")
    try:
        public = _VERIFIERS[_FROM_JWK[kind]].from_jwk({"kty": kind, **members})
        return Key.of_public(public, kid, only)
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError) as error:
        # Some words of it may be the set's own.
        raise _Useless(f"cannot be used: {ascii(str(error)[:200])[1:-1]}") from None
