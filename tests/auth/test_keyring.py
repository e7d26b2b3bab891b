"""Keys: which are taken, and for which algorithms."""

from __future__ import annotations

import datetime
import json
from itertools import count
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from broker.auth.keyring import MAX_KEYS, MAX_PEM_KEYS, MAX_TRIED, Keyring
from tests.actors.signer import SECRET, jwk, jwks, pem, private_key, private_pem

RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
KINDS = {
    "RS256": RSA,
    "ES256": ("ES256",),
    "ES384": ("ES384",),
    "ES512": ("ES512",),
    "EdDSA": ("EdDSA", "Ed25519"),
    "EdDSA-448": ("EdDSA", "Ed448"),
}


def public_pem(public: Any) -> bytes:
    return bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def certificate(algorithm: str) -> bytes:
    """One that has expired: the dates are not looked at."""
    name = x509.Name([])
    begin = datetime.datetime(2020, 1, 1)
    builder = x509.CertificateBuilder(name, name, private_key(algorithm).public_key(), 1, begin)
    builder = builder.not_valid_after(begin + datetime.timedelta(1))
    return builder.sign(private_key(algorithm), hashes.SHA256()).public_bytes(Encoding.PEM)


@pytest.mark.parametrize("kind", KINDS)
def test_the_key_says_what_it_checks(kind: str) -> None:
    (by_pem,) = Keyring.from_pem(pem(kind)).keys
    (by_jwk,) = Keyring.from_jwks(jwks(jwk(kind, kid="k"))).keys
    assert (by_pem.kid, by_pem.algorithms) == (None, KINDS[kind])
    assert (by_jwk.kid, by_jwk.algorithms) == ("k", KINDS[kind])
    assert by_pem.fingerprint == by_jwk.fingerprint != ""


def test_a_secret_checks_hmac_and_nothing_else() -> None:
    (key,) = Keyring.from_secret(SECRET).keys
    assert (key.kid, key.algorithms) == (None, ("HS256", "HS384", "HS512"))
    assert SECRET not in repr(key)
    assert Keyring.from_secret("") == Keyring()


@pytest.mark.parametrize(
    ("secret", "complaint"),
    [
        ("x" * 31, "the secret has 31 bytes, at least 32 are needed; `openssl rand -base64 48` makes one"),
        ("\udcff" * 40, "the secret is not UTF-8"),
        *(
            (
                text,
                "the secret is a public key, a certificate or a JWK; write those into a file for auth.key_file or "
                "auth.jwks, and as secret what `openssl rand -base64 48` makes",
            )
            for text in (pem("ES256").decode(), certificate("ES256").decode(), json.dumps(jwk("EdDSA")))
        ),
    ],
    ids=count(),
)
def test_secrets_that_are_none(secret: str, complaint: str) -> None:
    with pytest.raises(ValueError) as refused:
        Keyring.from_secret(secret)
    assert str(refused.value) == complaint


def test_a_secret_of_just_enough_bytes() -> None:
    assert len(Keyring.from_secret("ä" * 16).keys) == 1


def test_several_public_keys_and_certificates_in_one_file() -> None:
    text = b"made by hand\n" + pem("ES256") + b"\n" + certificate("ES384") + pem("EdDSA") + pem("ES256")
    found = Keyring.from_pem(text)
    assert [key.algorithms for key in found.keys] == [("ES256",), ("ES384",), ("EdDSA", "Ed25519")]


def test_an_rsa_key_in_the_old_form() -> None:
    data = private_key("RS256").public_key().public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    assert Keyring.from_pem(data) == Keyring.from_pem(pem("RS256"))


PRIVATE = (
    "holds a private key, which belongs to whoever makes tokens alone; write its public half, as "
    "`openssl pkey -in FILE -pubout` prints it"
)
NO_PEM = "has no public key; it must be PEM: -----BEGIN PUBLIC KEY----- and so on"


def weak_rsa() -> bytes:
    return public_pem(rsa.generate_private_key(65537, 1024).public_key())


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", NO_PEM),
        (b"\xff\x00junk", NO_PEM),
        (b"ssh-ed25519 AAAA me@here", NO_PEM),
        (private_pem("ES256"), PRIVATE),
        (pem("ES256") + private_pem("ES256"), PRIVATE),
        (private_pem("ES256")[:80], PRIVATE),
        (pem("ES256") * 17, f"has 17 keys, at most {MAX_PEM_KEYS} are taken; use a JWK set for more"),
        (weak_rsa(), "key 1 of it cannot be used: an RSA key of 1024 bits; 2048 to 8192 are taken"),
        (
            pem("ES256") + public_pem(ec.generate_private_key(ec.SECP256K1()).public_key()),
            "key 2 of it cannot be used: an EC key of the curve secp256k1; P-256, P-384 and P-521 are taken",
        ),
        (
            public_pem(x25519.X25519PrivateKey.generate().public_key()),
            "key 1 of it cannot be used: tokens are signed with RSA, EC, Ed25519 or Ed448 keys, and this is none",
        ),
        (
            public_pem(dsa.generate_private_key(1024).public_key()),
            "key 1 of it cannot be used: tokens are signed with RSA, EC, Ed25519 or Ed448 keys, and this is none",
        ),
        (
            b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "key 1 of it cannot be used: it is no valid public key",
        ),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "key 1 of it cannot be used: it is no valid certificate",
        ),
        (
            b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
            "key 1 of it cannot be used: it is a X509 CRL, neither a public key nor a certificate",
        ),
    ],
    ids=count(),
)
def test_pem_files_that_cannot_be_used(data: bytes, complaint: str) -> None:
    with pytest.raises(ValueError) as refused:
        Keyring.from_pem(data)
    assert str(refused.value) == complaint


WEAK = {"kty": "RSA", "n": jwk("RS256")["n"][:100], "e": "AQAB"}


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ({"kty": "oct", "k": "eHh4"}, "is symmetric"),
        ({"kty": "NEW", "x": "AAAA"}, "is of a kind that is not known"),
        ({}, "is of a kind that is not known"),
        ({"kty": ["RSA"]}, "is of a kind that is not known"),
        ("RSA", "is no object"),
        (jwk("ES256", d="AAAA"), "is private"),
        (jwk("ES256", use="enc"), "is not for signatures"),
        (jwk("ES256", use=1), "is not for signatures"),
        (jwk("ES256", key_ops=["encrypt"]), "is not for signatures"),
        (jwk("ES256", key_ops="verify"), "is not for signatures"),
        (jwk("ES256", kid=7), "has a kid or an alg that is no text"),
        (jwk("ES256", alg=["ES256"]), "has a kid or an alg that is no text"),
        (jwk("ES256", alg="ES384"), "cannot be used: EC, 256 bits does not fit its algorithm 'ES384'"),
        (jwk("RS256", alg="HS256"), "cannot be used: RSA, 2048 bits does not fit its algorithm 'HS256'"),
        (jwk("RS256", alg="none"), "cannot be used: RSA, 2048 bits does not fit its algorithm 'none'"),
        (jwk("ES256", x=None), "has not all of crv, x, y"),
        (jwk("ES256", x=jwk("ES256", 1)["x"]), None),
        (jwk("ES256", crv="P-384"), None),
        (jwk("EdDSA", x="AAAA"), None),
        (jwk("EdDSA", crv="\n\u5519"), r"cannot be used: Invalid curve: \n\u5519"),
        (jwk("RS256", e="AQ"), None),
        (WEAK, None),
    ],
)
def test_keys_of_a_set_that_are_left_out(key: Any, why: str | None) -> None:
    good = jwk("EdDSA", kid="good")
    assert Keyring.from_jwks(jwks(key, good)) == Keyring.from_jwks(jwks(good))
    with pytest.raises(ValueError) as refused:
        Keyring.from_jwks(jwks(key))
    assert str(refused.value).startswith(f"has no key that tokens can be checked with: key 1 {why or 'cannot be used'}")


@pytest.mark.parametrize("members", [{"use": "sig"}, {"key_ops": ["sign", "verify"]}, {"x5c": ["junk"], "new": {}}])
def test_keys_of_a_set_that_are_taken(members: dict[str, Any]) -> None:
    assert len(Keyring.from_jwks(jwks(jwk("ES256", **members))).keys) == 1


def test_a_key_of_a_set_may_be_for_one_algorithm_only() -> None:
    (key,) = Keyring.from_jwks(jwks(jwk("RS256", alg="PS384"))).keys
    assert key.algorithms == ("PS384",)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "is not JSON: Expecting value at character 1"),
        (b"\xff", "is not UTF-8"),
        (b"[]", "is no JSON object"),
        (b"{}", 'is no JWK set: it has no list "keys"'),
        (json.dumps(jwk("ES256")).encode(), 'is no JWK set: it has no list "keys"'),
        (b'{"keys": {}}', 'is no JWK set: it has no list "keys"'),
        (b'{"keys": []}', "has no key that tokens can be checked with: it is empty"),
        (b'{"keys": [], "keys": []}', "has the same name twice in one object"),
        (b'{"keys": NaN}', "has NaN, which is not JSON"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"keys": ' + b"9" * 5000 + b"}", "has a number with too many digits"),
        (b'{"keys": [' + b"1," * MAX_KEYS + b"1]}", f"has {MAX_KEYS + 1} keys, at most {MAX_KEYS} are taken"),
    ],
    ids=count(),
)
def test_what_is_no_set(data: bytes, complaint: str) -> None:
    with pytest.raises(ValueError) as refused:
        Keyring.from_jwks(data)
    assert str(refused.value) == complaint


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
members = st.sampled_from(["kty", "crv", "x", "y", "n", "e", "d", "alg", "kid", "use", "key_ops", "x5c"])


@given(st.sampled_from(list(KINDS)), st.dictionaries(members, anything | st.sampled_from(["RSA", "EC", "P-521", "A"])))
def test_any_set_is_a_keyring_or_a_complaint(kind: str, changes: dict[str, Any]) -> None:
    try:
        found = Keyring.from_jwks(jwks(jwk(kind, **changes)))
    except ValueError:
        return
    assert set(found.keys[0].algorithms) <= {name for names in KINDS.values() for name in names}


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: b"-----BEGIN " + text.encode(errors="replace")))
def test_any_file_is_a_keyring_or_a_complaint(data: bytes) -> None:
    for read in (Keyring.from_pem, Keyring.from_jwks):
        try:
            assert not read(data)
        except ValueError:
            pass


def test_candidates() -> None:
    secret, plain = Keyring.from_secret(SECRET), Keyring.from_pem(pem("ES256"))
    named = Keyring.from_jwks(jwks(jwk("ES256", 1, kid="a"), jwk("ES256", 2, kid="b"), jwk("EdDSA", kid="a")))
    every = secret | plain | named
    first, second, edwards = named.keys
    assert list(every.candidates("ES256", "a")) == [first, *plain.keys]
    assert list(every.candidates("ES256", "c")) == [*plain.keys]
    assert list(every.candidates("ES256", None)) == [*plain.keys, first, second]
    assert list(every.candidates("EdDSA", "a")) == [edwards]
    assert list(every.candidates("EdDSA", "b")) == []
    assert list(every.candidates("HS256", "a")) == [*secret.keys]
    assert list(every.candidates("RS256", None)) == list(every.candidates("none", None)) == []
    assert [every.has("ES256", kid) for kid in ("a", "c", None)] == [True, False, True]
    assert (every | named | plain, bool(every), bool(Keyring())) == (every, True, False)


def test_a_key_refuses_by_itself_what_is_not_its_own_to_check() -> None:
    signed = b"a.b"
    signature = private_key("RS256").sign(signed, padding.PKCS1v15(), hashes.SHA256())
    (key,) = Keyring.from_jwks(jwks(jwk("RS256", alg="RS256"))).keys
    (wider,) = Keyring.from_pem(pem("RS256")).keys
    assert (key.verifies("RS256", signed, signature), wider.verifies("RS256", signed, signature)) == (True, True)
    pss = private_key("RS256").sign(
        signed, padding.PSS(padding.MGF1(hashes.SHA512()), hashes.SHA512.digest_size), hashes.SHA512()
    )
    assert (key.verifies("PS512", signed, pss), wider.verifies("PS512", signed, pss)) == (False, True)
    assert [wider.verifies(name, signed, b"") for name in ("none", "HS256", "ES256", "")] == [False] * 4


def test_how_many_keys_are_tried_is_bounded() -> None:
    keys = [jwk("EdDSA", which) for which in range(MAX_TRIED + 3)]
    many = Keyring.from_jwks(jwks(*keys))
    assert (len(many.keys), len(many.candidates("EdDSA", None))) == (MAX_TRIED + 3, MAX_TRIED)
    assert len(many.candidates("EdDSA", "a")) == MAX_TRIED
