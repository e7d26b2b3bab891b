"""`broker token` and `broker key` as a person meets them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from broker.auth.apikey import ApiKeys
from broker.auth.compact import CompactToken
from broker.auth.identity import KEY, USER, Identity
from broker.auth.keyring import Keyring
from broker.auth.token import TokenReader
from broker.cli import group
from broker.config.access import Auth
from broker.config.sources import load
from tests.actors.key_host import answer, open_key_host
from tests.actors.signer import SECRET, handmade, jwk, jwks, pem, private_key, private_pem

ALGORITHMS = ("RS256", "ES256", "ES384", "ES512", "EdDSA", "EdDSA-448")


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("BROKER_") or name == "REDIS_URL":
            monkeypatch.delenv(name)
    monkeypatch.setenv("BROKER_AUTH_SECRET", SECRET)


def run(*arguments: str, input: str | None = None) -> Result:
    result = CliRunner().invoke(group, arguments, input=input)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert SECRET not in result.output
    return result


def created(*arguments: str) -> str:
    result = run("token", "create", *arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", result.stdout)
    return result.stdout.strip()


def claims_of(token: str) -> dict[str, Any]:
    return dict(CompactToken.parse(token).claims)


def test_a_token_for_a_user() -> None:
    token = created("--user", "ann")
    identity = TokenReader(Auth()).read(token, Keyring.from_secret(SECRET), time.time())
    claims = claims_of(token)
    assert claims.keys() == {"sub", "iat", "exp", "jti"}
    assert identity == Identity(
        USER, "ann", expires_at=claims["iat"] + 3600, issued_at=claims["iat"], token_id=claims["jti"]
    )
    assert abs(claims["iat"] - time.time()) < 60
    assert claims_of(created("-u", "ann"))["jti"] != claims["jti"]


def test_everything_that_may_be_said() -> None:
    token = created(
        *("--user", "ann", "--subscribe", "alerts:{sub}", "-s", "x:*", "--publish", "y", "--admin", "--expires", "2d"),
        *("--id", "t1", "--kid", "k1", "--algorithm", "HS512", "--claim", "tenant=7", "-c", "team=red", "-c", "a={}"),
    )
    parts = CompactToken.parse(token)
    claims = dict(parts.claims)
    issued = claims.pop("iat")
    assert (dict(parts.header), claims) == (
        {"alg": "HS512", "typ": "JWT", "kid": "k1"},
        {
            **{"sub": "ann", "jti": "t1", "exp": issued + 2 * 86400, "subscribe": ["alerts:{sub}", "x:*"]},
            **{"publish": ["y"], "broker_admin": True, "tenant": 7, "team": "red", "a": {}},
        },
    )


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600), ("30d", 2592000)])
def test_how_long_it_counts(text: str, seconds: int) -> None:
    claims = claims_of(created("--user", "ann", "--expires", text))
    assert claims["exp"] - claims["iat"] == seconds


@pytest.mark.parametrize("text", ["", "1w", "-1h", "1.5h", "soon"])
def test_how_long_it_does_not_count(text: str) -> None:
    result = run("token", "create", "--user", "ann", "--expires", text)
    sentence = "write seconds, or a number with s, m, h or d, such as 90s, 1h or 30d; or never"
    assert (result.exit_code, sentence in result.stderr, result.stdout) == (2, True, "")


def test_what_the_settings_ask_for_is_in_it(tmp_path: Path) -> None:
    file = tmp_path / "broker.toml"
    file.write_text('[auth]\nissuer = "me"\naudience = ["broker", "other"]\n')
    token = created("--user", "ann", "--config", str(file))
    assert (claims_of(token)["iss"], claims_of(token)["aud"]) == ("me", "broker")
    assert run("token", "inspect", token, "--config", str(file)).exit_code == 0
    other = run("token", "create", "--user", "ann", "--config", str(file), "--claim", "iss=you")
    assert (claims_of(other.stdout.strip())["iss"], "the token's iss is not" in other.stderr) == ("you", True)


def test_a_token_that_these_settings_do_not_take_is_made_with_a_warning() -> None:
    result = run("token", "create", "--user", "ann", "--expires", "never")
    assert (result.exit_code, result.stderr) == (
        0,
        "broker: with these settings the daemon would not take it: the token has no exp: when it ends\n",
    )
    assert "exp" not in claims_of(result.stdout.strip())
    later = run("token", "create", "--user", "ann", "--claim", f"nbf={int(time.time()) + 600}")
    assert (later.exit_code, "its nbf is ahead" in later.stderr) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--user", ""], "the token has no sub: the id of its user"),
        (["--user", "a\nb"], "the token's sub is no text of 1 to 256 characters without controls"),
        (["--user", "ann", "-c", "subscribe=*"], "the token's subscribe is no list of at most 1000 channel patterns"),
        (["--user", "ann", "-s", "a:b:c:d"], "the token's subscribe has a bad pattern: "),
        (["--user", "ann", "-c", "broker_admin=yes"], "the token's broker_admin is neither true nor false"),
        (["--user", "ann", "-c", "x=" + "y" * 8000], "the token is longer than 8192 characters"),
    ],
)
def test_a_token_that_no_daemon_takes_is_not_made(arguments: list[str], complaint: str) -> None:
    result = run("token", "create", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: no daemon would take it: {complaint}")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_private_key(tmp_path: Path, algorithm: str) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    private.write_bytes(private_pem(algorithm))
    public.write_bytes(pem(algorithm))
    token = created("--user", "ann", "--key", str(private))
    assert CompactToken.parse(token).algorithm == algorithm.partition("-")[0]
    file = tmp_path / "broker.toml"
    file.write_text(f'[auth]\nkey_file = "{public}"\n')
    assert run("token", "inspect", "--config", str(file), input=token).exit_code == 0


def test_a_private_key_of_rsa_signs_with_others_too(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(private_pem("RS256"))
    token = created("--user", "ann", "--key", str(tmp_path / "key.pem"), "--algorithm", "PS512")
    assert CompactToken.parse(token).algorithm == "PS512"


def weak() -> bytes:
    key = rsa.generate_private_key(65537, 1024)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def encrypted() -> bytes:
    key = private_key("ES256")
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password")))


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "it is no usable private key; write PEM: -----BEGIN PRIVATE KEY----- and so on"),
        (pem("ES256"), "it is no usable private key; write PEM: -----BEGIN PRIVATE KEY----- and so on"),
        (weak(), "an RSA key of 1024 bits; 2048 to 8192 are taken"),
        (encrypted(), "is encrypted; decrypt it with `openssl pkey`"),
    ],
    ids=["empty", "public", "weak", "encrypted"],
)
def test_private_keys_that_are_none(tmp_path: Path, data: bytes, complaint: str) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(data)
    result = run("token", "create", "--user", "ann", "--key", str(file))
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"Error: {file}: {complaint}\n")


def test_an_algorithm_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key.pem").write_bytes(private_pem("ES256"))
    result = run("token", "create", "--user", "ann", "--key", str(tmp_path / "key.pem"), "--algorithm", "RS256")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "the key signs with ES256" in result.stderr
    monkeypatch.setenv("BROKER_AUTH_SECRET", "x" * 32)
    for algorithm in ("HS384", "HS512", "none"):
        assert "the key signs with HS256\n" in run("token", "create", "--user", "a", "--algorithm", algorithm).stderr


def test_nothing_to_sign_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BROKER_AUTH_SECRET")
    result = run("token", "create", "--user", "ann")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "Error: nothing to sign with: set BROKER_AUTH_SECRET, or name a file with --config or a private key with "
        "--key; `openssl rand -base64 48` makes a secret\n"
    )


def test_a_public_key_is_no_secret() -> None:
    result = run("token", "create", "--user", "ann", "--secret", json.dumps(jwk("ES256")))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: auth.secret: the secret is a public key, a certificate or a JWK; ")


def test_a_secret_on_the_command_line_goes_before_the_one_of_the_settings() -> None:
    other = "o" * 64
    token = created("--user", "ann", "--secret", other)
    assert run("token", "inspect", token).exit_code == 1
    assert TokenReader(Auth()).read(token, Keyring.from_secret(other), time.time()).user_id == "ann"
    both = run("token", "create", "--user", "ann", "--secret", other, "--key", os.devnull)
    assert (both.exit_code, "--key and --secret: sign with one of them" in both.stderr) == (2, True)


# inspect


NOW = int(time.time())


def test_what_a_token_says() -> None:
    text = handmade(
        {"alg": "HS256", "kid": "k1"},
        {
            **{"sub": "ann", "exp": NOW + 10500, "iat": NOW - 90000, "subscribe": ["alerts:{sub}"], "jti": "a b"},
            **{"team": "red\x1b[31m", "very long\n": "x" * 300},
        },
    )
    result = run("token", "inspect", text)
    lines = result.stdout.splitlines()
    assert (result.exit_code, result.stderr, lines[0], lines[-1]) == (0, "", "signed with HS256, key k1", "accepted")
    assert text.rpartition(".")[2] not in result.output
    found = {line.split()[0]: re.sub(" +", " ", line.strip()) for line in lines[1:-1]}
    assert re.fullmatch(rf"exp {NOW + 10500} = \S+Z, in 2 h - when it ends", found.pop("exp"))
    assert re.fullmatch(rf"iat {NOW - 90000} = \S+Z, 1 d ago - when it was made", found.pop("iat"))
    assert found == {
        "sub": "sub ann - the user",
        "jti": 'jti "a b" - its own id, to revoke it by',
        "subscribe": 'subscribe ["alerts:{sub}"] - where the user may subscribe, in place of rules.user_subscribe',
        "team": 'team "red\\u001b[31m"',
        '"very': f'"very long\\n" {"x" * 200}...',
    }


def test_everything_that_is_wrong_is_told() -> None:
    text = handmade({"alg": "HS256"}, {"sub": "ann", "exp": 1000000000}, "other" * 10)
    result = run("token", "inspect", text)
    assert (result.exit_code, result.stdout.splitlines()[-2:]) == (
        1,
        [
            "refused: the token's signature is not by a key that is known here (bad_signature)",
            "refused: the token has expired (expired)",
        ],
    )


@pytest.mark.parametrize(("text", "reason"), [("junk", "malformed"), ("", "malformed"), ("x" * 9000, "too_long")])
def test_what_is_no_token(text: str, reason: str) -> None:
    result = run("token", "inspect", input=text + "\n")
    assert (result.exit_code, result.stdout.count("\n"), f"({reason})" in result.stdout) == (1, 1, True)


def test_where_authentication_is_off() -> None:
    token = created("--user", "ann")
    result = CliRunner().invoke(group, ["token", "inspect", token], env={"BROKER_AUTH_SECRET": ""})
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (
        1,
        "refused: the token is signed with a secret, and there is none here (algorithm)",
    )


async def test_the_keys_of_a_host_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(private_pem("ES256"))
    token = created("--user", "ann", "--key", str(tmp_path / "key.pem"), "--kid", "k1")

    async def inspect(url: str) -> subprocess.CompletedProcess[bytes]:
        environ = {"PATH": os.environ["PATH"], "BROKER_AUTH_JWKS": url, "PYTHONPATH": os.getcwd()}
        return await trio.run_process(
            [sys.executable, "-m", "broker", "token", "inspect"],
            stdin=token.encode(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env=environ,
        )

    async with open_key_host(answer(jwks(jwk("ES256", kid="k1")))) as host:
        done = await inspect(host.url)
        assert (done.returncode, done.stdout.splitlines()[-1], done.stderr) == (0, b"accepted", b"")
        host.script = answer(b"", 500)
        done = await inspect(host.url)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (
            1,
            b"refused: the token's key 'k1' is not known here (unknown_key)",
        )
        assert b"it answers 500" in done.stderr


# Keys


@pytest.mark.parametrize("flags", [[], ["--admin"]])
def test_a_key_and_its_line(tmp_path: Path, flags: list[str]) -> None:
    result = run("key", "create", "billing", *flags)
    key, line = result.stdout.splitlines()
    assert (result.exit_code, result.stderr) == (0, "")
    file = tmp_path / "broker.toml"
    file.write_text(f"[auth]\n{line}\n")
    section = load(flags={}, environ={}, file=file).config.auth
    assert ApiKeys(section).identify(key) == Identity(KEY, name="billing", is_admin=bool(flags))
    told = run("token", "inspect", key, "--config", str(file))
    assert (told.exit_code, told.stdout) == (
        0,
        f"API key billing, of auth.{'admin' if flags else 'publish'}_keys\naccepted\n",
    )
    other = run("token", "inspect", key)
    assert (other.exit_code, other.stdout) == (
        1,
        "refused: the API key is not one of those in the settings (unknown_api_key)\n",
    )


def test_a_name_that_is_none() -> None:
    result = run("key", "create", "a b")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "a key's name has 1 to 64 letters, digits, _ - and ." in result.stderr


def test_claims_that_cannot_be_read() -> None:
    for text in ("x", "=1"):
        assert run("token", "create", "--user", "ann", "--claim", text).exit_code == 2
    deep = claims_of(created("--user", "ann", "-c", "x=" + "[" * 4000))
    assert deep["x"] == "[" * 4000
    assert json.dumps(deep)
