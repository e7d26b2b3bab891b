"""`broker token`: make tokens as services do, and see what one says and whether it counts.

Laws: `create` prints a token and nothing else on standard output; `inspect` never prints a signature.
"""

from __future__ import annotations

import json
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.cli.keyring import auth_section, config_option, keyring_of
from broker.config.key import MAKE_SECRET
from broker.errors import TokenRefused

if TYPE_CHECKING:
    from broker.auth.keyring import Keyring
    from broker.config.access import Auth

_DURATION = re.compile(r"([0-9]{1,12})([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_MEANINGS = {
    "sub": "the user",
    "exp": "when it ends",
    "nbf": "when it begins",
    "iat": "when it was made",
    "iss": "who made it",
    "aud": "for whom",
    "jti": "its own id, to revoke it by",
    "subscribe": "where the user may subscribe, in place of rules.user_subscribe",
    "publish": "where the user may publish, in place of rules.user_publish",
    "broker_admin": "whether the user may use the admin calls",
}
_TIMES = ("exp", "nbf", "iat")
# What is wrong with these cannot become right by itself.
_NEVER_GOOD = ("bad_claim", "no_subject", "too_long")


@click.group(name="token", epilog=f"A secret to sign with: {MAKE_SECRET}")
def command() -> None:
    """Make tokens (JWT), or see what one says."""


def _seconds(context: click.Context, parameter: click.Parameter, text: str) -> int | None:
    if text == "never":
        return None
    found = _DURATION.fullmatch(text)
    if found is None:
        raise click.BadParameter("write seconds, or a number with s, m, h or d, such as 90s, 1h or 30d; or never")
    return int(found[1]) * _UNITS[found[2]]


@command.command(name="create", epilog=f"A secret to sign with: {MAKE_SECRET}")
@click.option("--user", "-u", metavar="ID", required=True, help="The user: the token's sub.")
@click.option("--subscribe", "-s", metavar="PATTERN", multiple=True, help="Where the user may subscribe. Repeatable.")
@click.option("--publish", "-p", metavar="PATTERN", multiple=True, help="Where the user may publish. Repeatable.")
@click.option("--admin", "is_admin", is_flag=True, help="The user may use the admin calls.")
@click.option(
    "--expires",
    metavar="DURATION",
    default="1h",
    show_default=True,
    callback=_seconds,
    help="How long it counts: 90s, 15m, 1h, 30d, or never.",
)
@click.option("--id", "token_id", metavar="ID", help="Its jti, to revoke it by. Default: random.")
@click.option("--claim", "-c", "claims", metavar="NAME=VALUE", multiple=True, help="Any claim; VALUE is JSON, or text.")
@click.option("--kid", metavar="NAME", help="The name of its key, for a JWK set.")
@click.option("--algorithm", metavar="ALG", help="HS256, RS256, ... Default: the first that fits the key.")
@click.option("--secret", metavar="TEXT", help="Sign with this. Others on this machine can see it: better the next.")
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    metavar="FILE",
    help="Sign with this private key (PEM), whose public half the daemon has.",
)
@config_option
def create(
    user: str,
    subscribe: tuple[str, ...],
    publish: tuple[str, ...],
    is_admin: bool,
    expires: int | None,
    token_id: str | None,
    claims: tuple[str, ...],
    kid: str | None,
    algorithm: str | None,
    secret: str | None,
    key_file: Path | None,
    config_file: Path | None,
) -> None:
    """Print a token for a user.

    It is signed with --key, with --secret, or with the daemon's own secret: BROKER_AUTH_SECRET, or auth.secret of
    the file that --config names. Its iss and aud are what the settings ask for.

    \b
    broker token create --user ann --subscribe 'job_progress:*' --subscribe 'alerts:{sub}'
    """
    if key_file is not None and secret is not None:
        raise click.UsageError("--key and --secret: sign with one of them")
    section = auth_section(config_file, {"auth.secret": secret})
    now = int(time.time())
    said: dict[str, Any] = {"sub": user, "iat": now, "jti": token_id or secrets.token_urlsafe(12)}
    if section.issuer:
        said["iss"] = section.issuer
    if section.audience:
        said["aud"] = section.audience[0]
    if expires is not None:
        said["exp"] = now + expires
    if subscribe:
        said["subscribe"] = list(subscribe)
    if publish:
        said["publish"] = list(publish)
    if is_admin:
        said["broker_admin"] = True
    token = _signed(said | dict(map(_claim, claims)), algorithm, kid, section.secret, key_file)
    for refused in _complaints(token, section, None):
        if refused.reason in _NEVER_GOOD:
            raise click.ClickException(f"no daemon would take it: {refused}")
        click.echo(f"broker: with these settings the daemon would not take it: {refused}", err=True)
    click.echo(token)


@command.command(name="inspect")
@click.argument("token", metavar="[TOKEN|-]", default="-")
@config_option
def inspect(token: str, config_file: Path | None) -> None:
    """Say what a token claims, and whether the daemon would take it with the settings in force.

    With - , or without TOKEN, it is read from standard input, where other users of this machine do not see it.
    The exit status is 1 where the daemon would refuse it. Revocations are not looked at: they are in Redis.

    \b
    broker token create --user ann | broker token inspect
    """
    from broker.auth.apikey import PREFIX, ApiKeys
    from broker.auth.compact import CompactToken

    text = (sys.stdin.readline() if token == "-" else token).strip()
    section = auth_section(config_file, {})
    refusals: list[TokenRefused] = []
    try:
        if text.startswith(PREFIX):
            identity = ApiKeys(section).identify(text)
            assert identity is not None
            click.echo(f"API key {identity.name}, of auth.{'admin' if identity.is_admin else 'publish'}_keys")
        else:
            parts = CompactToken.parse(text)
            click.echo(f"signed with {_shown(parts.algorithm)}, key {_shown(parts.kid) if parts.kid else 'not named'}")
            for line in _explained(parts.claims):
                click.echo(line)
            refusals = list(_complaints(text, section, keyring_of(section)))
    except TokenRefused as refused:
        refusals.append(refused)
    for refusal in refusals:
        click.echo(f"refused: {refusal} ({refusal.reason})")
    if refusals:
        raise SystemExit(1)
    click.echo("accepted" if section.mode != "off" else "accepted, as any: authentication is off")


def _claim(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--claim")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def _signed(
    claims: Mapping[str, Any], algorithm: str | None, kid: str | None, secret: str, key_file: Path | None
) -> str:
    import jwt

    from broker.auth.keyring import HMAC, Key, Keyring

    material: Any = secret
    if key_file is not None:
        material = _private_key(key_file)
        try:
            fitting = Key.of_public(material.public_key()).algorithms
        except ValueError as error:
            raise click.ClickException(f"{key_file}: {error}") from None
    elif secret:
        try:
            Keyring.from_secret(secret)
        except ValueError as error:
            raise click.ClickException(f"auth.secret: {error}") from None
        # As many bytes as the digest has (RFC 7518, 3.2): asked of whoever signs, not of whoever reads.
        fitting = tuple(name for name in HMAC if len(secret.encode()) * 8 >= int(name[2:]))
    else:
        raise click.ClickException(
            "nothing to sign with: set BROKER_AUTH_SECRET, or name a file with --config or a private key with --key; "
            f"`{MAKE_SECRET}` makes a secret"
        )
    if algorithm is not None and algorithm not in fitting:
        raise click.BadParameter(f"the key signs with {', '.join(fitting)}", param_hint="--algorithm")
    if algorithm in ("Ed25519", "Ed448"):
        algorithm = "EdDSA"  # what those who read tokens know it by
    return jwt.encode(dict(claims), material, algorithm or fitting[0], {"kid": kid} if kid is not None else None)


def _private_key(file: Path) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(file.read_bytes(), None)
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    except TypeError:
        why = "is encrypted; decrypt it with `openssl pkey`"
    except (ValueError, UnsupportedAlgorithm):
        why = "it is no usable private key; write PEM: -----BEGIN PRIVATE KEY----- and so on"
    raise click.ClickException(f"{file}: {why}")


def _complaints(token: str, section: Auth, keyring: Keyring | None) -> Iterator[TokenRefused]:
    """Why the daemon would refuse it: its signature, unless there is no keyring, and its claims; in full, as whoever
    asks has no time to mend one after another."""
    from broker.auth.compact import CompactToken
    from broker.auth.token import TokenReader, check_signature

    try:
        parts = CompactToken.parse(token)
    except TokenRefused as refused:
        yield refused
        return
    if keyring is not None:
        try:
            check_signature(parts, keyring)
        except TokenRefused as refused:
            yield refused
    try:
        TokenReader(section).identity_of(parts.claims, time.time())
    except TokenRefused as refused:
        yield refused


def _explained(claims: Mapping[str, Any]) -> Iterator[str]:
    names = [*(name for name in _MEANINGS if name in claims), *(name for name in claims if name not in _MEANINGS)]
    width = max((len(_name(name)) for name in names), default=0)
    for name in names:
        value = claims[name]
        told = _shown(value) + (_moment(value) if name in _TIMES else "")
        yield f"  {_name(name):{width}}  {told}" + (f"  - {_MEANINGS[name]}" if name in _MEANINGS else "")


def _name(name: str) -> str:
    return name if name.isascii() and name.isidentifier() else _shown(name)


def _shown(value: Any) -> str:
    """As JSON in ASCII, which no terminal obeys, and cut."""
    text = value if isinstance(value, str) and re.fullmatch(r"[!-~]+", value) else json.dumps(value)
    return text if len(text) <= 200 else text[:200] + "..."


def _moment(value: Any) -> str:
    from broker.timestamp import timestamp

    if type(value) not in (int, float) or not 0 <= value < 253402300800:
        return ""
    away = int(value - time.time())
    size, unit = next(
        (size, unit)
        for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
        if abs(away) >= size or size == 1
    )
    return f" = {timestamp(value)}, " + (f"in {away // size} {unit}" if away >= 0 else f"{-away // size} {unit} ago")
