"""Which settings a running daemon can change, and that whoever goes by one is told."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import attrs
import structlog

from broker.assembly import Parts, assemble
from broker.config.names import SECTIONS, SETTINGS, parts_of, section_field
from broker.config.sections import Config
from broker.config.sources import Effective
from broker.config.types import TypeOptions
from broker.errors import ConfigError, Problem
from broker.lifecycle import Lifecycle
from broker.reload import LIVE, RESTART, Outcome, Reloader, adapt_parts, compare
from tests.access.visitor import SECRET

OTHER_SECRET = "another secret of the tests, longer than 32 bytes"
# What is neither a number nor one of a few words.
TEXTS: dict[str, Any] = {
    "listen.allowed_origins": ("https://app.example.com",),
    "listen.trusted_proxies": ("10.1.0.0/16",),
    "auth.secret": OTHER_SECRET,
    "auth.issuer": "them",
    "auth.audience": ("us",),
    "auth.cookie": "session",
    "auth.publish_keys": ("shop:" + "a" * 64,),
    "auth.admin_keys": ("root:" + "b" * 64,),
    "rules.user_subscribe": ("a:*",),
    "rules.user_publish": ("b:*",),
    "rules.anonymous_subscribe": ("c:*",),
    "rules.anonymous_publish": ("d:*",),
    "rules.key_publish": ("e:*",),
}
# Of these there is a test of their own, or they cannot be changed alone.
ELSEWHERE = {"listen.tls.certificate", "listen.tls.key", "auth.key_file", "auth.jwks", "auth.mode"}


def test_every_setting_is_live_or_needs_a_restart() -> None:
    assert LIVE.keys() | RESTART.keys() == SETTINGS.keys()
    assert LIVE.keys() & RESTART.keys() == set()


def test_what_changes_only_like_this() -> None:
    """Turning authentication or TLS on or off is more than another value."""
    off = Config()
    on = attrs.evolve(off, auth=attrs.evolve(off.auth, secret=SECRET))
    issued = attrs.evolve(off, auth=attrs.evolve(off.auth, secret=SECRET, issuer="them"))
    assert compare(off, issued) == ([], ["auth.secret", "auth.issuer"])
    assert compare(on, off) == ([], ["auth.secret"])
    assert compare(on, issued) == (["auth.issuer"], [])
    tls = attrs.evolve(off, listen_tls=attrs.evolve(off.listen_tls, certificate="a.pem"))
    other = attrs.evolve(off, listen_tls=attrs.evolve(off.listen_tls, certificate="b.pem"))
    assert compare(off, tls) == ([], ["listen.tls.certificate"])
    assert compare(tls, other) == (["listen.tls.certificate"], [])
    types = {**off.types, "alerts": attrs.evolve(off.types["alerts"], replay=3), "mine": TypeOptions()}
    assert compare(off, attrs.evolve(off, types=types)) == ([], ["types.alerts.replay", "types.mine"])


def started(config: Config, *others: Effective | ConfigError) -> tuple[Parts, Reloader]:
    """A daemon's parts, and a reloader that reads one after the other."""
    left = iter(others)

    def read() -> Effective:
        found = next(left)
        if isinstance(found, ConfigError):
            raise found
        return found

    parts = assemble(config, 100, None, Lifecycle())
    return parts, Reloader(partial(adapt_parts, parts, None), Effective(config, {}), config, read)


def changed(config: Config) -> Config:
    """Every live setting has another value."""
    values: dict[str, dict[str, Any]] = {}
    for setting in LIVE.keys() - ELSEWHERE:
        section, key = parts_of(setting)
        before = getattr(getattr(config, section_field(section)), key)
        bounds = SETTINGS[setting].metadata
        other = next((word for word in bounds["one_of"] if word != before), TEXTS.get(setting))
        if other is None:
            other = before - 1 if before == bounds["most"] else before + 1
        values.setdefault(section_field(section), {})[key] = other
    return attrs.evolve(config, **{name: attrs.evolve(getattr(config, name), **of) for name, of in values.items()})


def reachable(root: object) -> Iterator[object]:
    """Everything of the broker that can be reached."""
    seen: set[int] = set()
    left = [root]
    while left:
        thing = left.pop()
        if id(thing) in seen or isinstance(thing, type | ModuleType | str | bytes | int | float):
            continue
        seen.add(id(thing))
        yield thing
        if isinstance(thing, FunctionType):
            # The options of types, which no reload changes, are looked up in a whole Config.
            left += [cell.cell_contents for cell in thing.__closure__ or () if not _is_config(cell)]
        elif isinstance(thing, MethodType | dict | list | tuple | set | frozenset | MappingProxyType) or type(
            thing
        ).__module__.startswith(("broker", "collections", "functools")):
            left += gc.get_referents(thing)


def _is_config(cell: Any) -> bool:
    try:
        return isinstance(cell.cell_contents, Config)
    except ValueError:  # empty still
        return True


async def test_nobody_goes_by_an_old_value() -> None:
    """Every section that any part has in its hands is of the new settings, as far as those are live."""
    config = attrs.evolve(
        Config(), auth=attrs.evolve(Config().auth, secret=SECRET), redis=attrs.evolve(Config().redis, url="redis://x")
    )
    new = changed(config)
    parts, reloader = started(config, Effective(new, {}))
    outcome = reloader.reload()
    assert (outcome.problems, outcome.waiting, len(outcome.changed)) == ((), (), len(LIVE.keys() - ELSEWHERE))
    assert not any(SECRET in line or OTHER_SECRET in line for line in outcome.changed)
    assert "limits.commands_burst: 2000 -> 2001" in outcome.changed
    found = 0
    for thing in reachable(parts):
        for section, cls in SECTIONS.items():
            if isinstance(thing, cls) and type(thing) is cls:
                found += 1
                for attribute in attrs.fields(cls):
                    if f"{section}.{attribute.name}" in LIVE:
                        wanted = getattr(getattr(new, section_field(section)), attribute.name)
                        assert getattr(thing, attribute.name) == wanted, f"{section}.{attribute.name}"
    assert found > 15
    assert parts.clientele.pool.max_bytes == new.limits.outbox_total_bytes
    assert parts.door.max_connections == 1
    assert reloader.config == new
    structlog.reset_defaults()


async def test_what_waits_and_what_is_wrong() -> None:
    config = Config()
    old = Effective(config, {"listen.addresses": "f"})
    patient = attrs.evolve(
        config,
        redis=attrs.evolve(config.redis, ping_seconds=9.0),
        limits=attrs.evolve(config.limits, commands_burst=7),
    )
    # Each of the two files is right: a message limit that only fits with the larger outbox of the same file.
    channels = attrs.evolve(config.channels, message_max_bytes=1024)
    smaller = attrs.evolve(
        config,
        channels=channels,
        clients=attrs.evolve(config.clients, outbox_max_bytes=65536),
    )
    parts, reloader = started(
        config,
        Effective(patient, {}),
        ConfigError([Problem("broker.toml: limits", "is wrong")]),
        Effective(patient, {}),
        Effective(smaller, {"clients.outbox_max_bytes": "broker.toml"}),
        Effective(attrs.evolve(config, auth=attrs.evolve(config.auth, mode="off")), {}),
        old,
    )
    waits = ("redis.ping_seconds",)
    assert reloader.reload() == Outcome(("limits.commands_burst: 2000 -> 7",), waits)
    assert reloader.reload() == Outcome(problems=("broker.toml: limits: is wrong",))
    assert reloader.reload() == Outcome((), waits)
    (problem,) = reloader.reload().problems
    assert problem.startswith("clients.outbox_max_bytes: 65536 is less than channels.message_max_bytes")
    assert problem.endswith("(while channels.message_max_bytes wait for a restart)")
    assert parts.terms.backlog_max_bytes == config.clients.outbox_max_bytes
    assert reloader.reload() == Outcome(("auth.mode: 'auto' -> 'off'", "limits.commands_burst: 7 -> 2000"), ())
    assert reloader.config.redis == config.redis


async def test_keys_and_certificates_are_read_before_anything_changes(tmp_path: Path) -> None:
    config = attrs.evolve(Config(), auth=attrs.evolve(Config().auth, secret=SECRET))
    missing = attrs.evolve(
        config,
        auth=attrs.evolve(config.auth, key_file=str(tmp_path / "none.pem")),
        limits=attrs.evolve(config.limits, commands_burst=7),
    )
    parts, reloader = started(config, Effective(missing, {}))
    (problem,) = reloader.reload().problems
    assert problem.startswith("auth.key_file: ")
    assert reloader.config == config
    assert parts.gate._section is config.auth
