"""What the settings of who may connect must have in common; above all, that the world does not get in by default.

Laws: an address that other machines can reach needs a key, or `auth.mode = "off"` in so many words. What is set and
would do nothing is refused too: somebody believes that it protects them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from attrs import frozen

from broker.config.access import Auth
from broker.config.address import Address
from broker.config.key import MAKE_SECRET
from broker.config.names import SETTINGS, parts_of
from broker.config.structure import Place
from broker.errors import ListenError

TOKEN_KEYS = ("auth.secret", "auth.key_file", "auth.jwks")
KEYS = (*TOKEN_KEYS, "auth.publish_keys", "auth.admin_keys")
"""Any of these turns authentication on."""

_LISTENED = "listen.addresses"
_OFF = "off"
_TO_ADD = f"""\
is open to other machines, where everybody could read every channel; add one of these to the settings
    [auth]
    secret = "..."                # clients have tokens signed with it: 32 bytes or more, made by `{MAKE_SECRET}`, say
    key_file = "tokens.pem"       # or with a private key; this is the public one (or jwks = "https://...")
    publish_keys = ["NAME:HASH"]  # services have an API key, made by `broker key create NAME`; clients see
                                  # what rules.anonymous_subscribe says
    mode = "off"                  # no authentication: whoever can connect is trusted
or listen on a loopback address, such as 127.0.0.1:8000, behind a proxy"""


def check_access(addresses: Iterable[str], auth: Auth, origin: str) -> None:
    """Refuse addresses that nobody wrote into the settings where those would let the world in.

    Args:
        origin: who brought the addresses, for the message.

    Raises:
        ListenError: other machines can reach one of them, and nobody has said who may do what.
    """
    if auth.mode == _OFF or auth.is_on:
        return
    for text in addresses:
        if not Address.parse(text).is_loopback:
            raise ListenError(f"{text}, which is {origin}, {_TO_ADD}")


def disagreements_about_access(
    values: Mapping[str, Mapping[str, Any]], origins: Mapping[str, str], unsure: Collection[str]
) -> Iterator[tuple[Place, str]]:
    """What is wrong between settings of access, and the place of one of them. Arguments as of `disagreements`."""
    given = _Given(values, origins, unsure)
    yield from _listening(given)
    yield from _authentication(given)
    yield from _open_to_the_world(given)


@frozen
class _Given:
    """The settings in force as far as they are known."""

    _values: Mapping[str, Mapping[str, Any]]
    _origins: Mapping[str, str]
    _unsure: Collection[str]

    def __getitem__(self, setting: str) -> Any:
        section, key = parts_of(setting)
        return self._values.get(section, {}).get(key, SETTINGS[setting].default)

    def is_set(self, setting: str) -> bool:
        """Whether somebody gave it, and more than nothing."""
        return setting in self._origins and bool(self[setting])

    def knows(self, *settings: str) -> bool:
        return not any(setting in self._unsure for setting in settings)

    def first(self, *settings: str) -> str | None:
        return next((setting for setting in settings if self[setting]), None)


def _listening(given: _Given) -> Iterator[tuple[Place, str]]:
    certificate, proxies, proxied = "listen.tls.certificate", "listen.trusted_proxies", "listen.proxy_protocol"
    for setting in ("listen.tls.key", "listen.tls.addresses"):
        if given.is_set(setting) and given.knows(certificate) and not given[certificate]:
            yield parts_of(setting), f"does nothing without {certificate}; set that too, or remove this"
    if given.is_set(proxied) and given.knows(proxies) and not given[proxies]:
        what = f"needs {proxies}, as nobody else is believed; name your proxies there, such as 10.0.0.5"
        yield parts_of(proxied), what
    for setting in ("listen.tls.addresses", proxied):
        if not given.is_set(setting) or not given.knows(_LISTENED):
            continue
        for address in given[setting]:
            if address not in given[_LISTENED]:
                yield parts_of(setting), f"{address} is not among {_LISTENED}; write it as there"


def _authentication(given: _Given) -> Iterator[tuple[Place, str]]:
    if not given.knows("auth.mode", *KEYS):
        return
    key = given.first(*KEYS)
    if given["auth.mode"] == _OFF:
        if key is not None and given.is_set("auth.mode"):
            yield ("auth", "mode"), f'is "off", but {key} is set, which would then protect nothing; remove one of them'
        return
    if given.first(*TOKEN_KEYS) is None:
        for setting in ("auth.issuer", "auth.audience", "auth.cookie"):
            if given.is_set(setting):
                what = f"checks nothing without a key for tokens; set one of {', '.join(TOKEN_KEYS)}, or remove this"
                yield parts_of(setting), what
    origins = "listen.allowed_origins"
    if given.is_set("auth.cookie") and given.knows(origins) and "*" in given[origins]:
        what = (
            f"lets the pages of every origin act for whoever is logged in, as {origins} has *; name the origins there"
        )
        yield ("auth", "cookie"), what


def _open_to_the_world(given: _Given) -> Iterator[tuple[Place, str]]:
    if not given.knows(_LISTENED, "auth.mode", *KEYS) or not given.is_set(_LISTENED):
        return
    if given["auth.mode"] == _OFF or given.first(*KEYS) is not None:
        return
    for text in given[_LISTENED]:
        if not Address.parse(text).is_loopback:
            yield parts_of(_LISTENED), f"{text} {_TO_ADD}"
            return
