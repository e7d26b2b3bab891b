"""Reading the settings again while the daemon runs: what changed, what of it counts from here on, what needs a restart.

Every setting is in one of two tables, by name: `LIVE` says who is told of it, `RESTART` why it waits. A live one counts
for whoever comes next: connections, requests, messages of WebSocket clients. Who is here stays, with what it has.

Laws: the new settings are checked whole before anything is touched, and what may still fail, reading keys and
certificates, is done first; so either all of the live ones are in force, or none, and those before stay. What waits
for a restart is named at every reload until then. The two kinds together must agree too: live settings that only make
sense with one that waits are not taken.

Synchronous: the loop stands still for as long as the file takes to read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs
import structlog
from attrs import define, field, frozen

from broker.assembly import Parts
from broker.config.agreement import disagreements
from broker.config.names import DEFAULT, SECTIONS, SETTINGS, TYPE_OPTIONS, TYPES, parts_of, section_field, type_setting
from broker.config.secret import shown
from broker.config.sections import Config
from broker.config.sources import Effective
from broker.config.types import TypeOptions
from broker.errors import ConfigError
from broker.keysource import KeySource
from broker.log import open_log
from broker.openfiles import connections_for, raise_open_file_limit
from broker.tls import Certificate

log = structlog.get_logger(__name__)

Adapt = Callable[[Parts, Config], None]
Follow = Callable[[Effective, Sequence[str], KeySource | None, Certificate | None], None]


def _listen(parts: Parts, config: Config) -> None:
    parts.door.adapt(config.listen, connections_for(raise_open_file_limit(), config.clients.max_connections))
    parts.reception.proxies.adapt(config.listen.trusted_proxies)
    parts.origins.adapt(config.listen.allowed_origins, bool(config.auth.cookie))
    parts.publishing.adapt(config)


def _access(parts: Parts, config: Config) -> None:
    parts.gate.adapt(config.auth, config.rules)
    parts.rules.adapt(config.rules)
    parts.control.revocation_seconds = config.auth.revocation_seconds
    parts.origins.adapt(config.listen.allowed_origins, bool(config.auth.cookie))


def _limits(parts: Parts, config: Config) -> None:
    parts.clientele.adapt(config.limits)
    parts.reception.turnstile.adapt(config.limits)
    parts.websockets.adapt(config.clients, config.websocket, config.limits)


def _clients(parts: Parts, config: Config) -> None:
    parts.websockets.adapt(config.clients, config.websocket, config.limits)
    parts.streams.adapt(config.clients, config.sse)
    parts.evaluations.adapt(config.clients, config.sse, config.evaluations)
    parts.door.adapt(config.listen, connections_for(raise_open_file_limit(), config.clients.max_connections))
    parts.http2.patience_seconds = config.clients.patience_seconds
    parts.history.page_bytes = parts.terms.late_bytes = config.clients.catch_up_bytes
    parts.terms.backlog_max_bytes = config.clients.outbox_max_bytes


def _publish(parts: Parts, config: Config) -> None:
    parts.publishing.adapt(config)


def _web(parts: Parts, config: Config) -> None:
    parts.web.adapt(config.metrics, config.console)


def _log(parts: Parts, config: Config) -> None:
    open_log(config.log)
    parts.reception.adapt(logs_requests=config.log.requests == "on")


def _kept(parts: Parts, config: Config) -> None:
    """Read from the settings in force when it is needed."""


def _all(section: str, keys: str, adapt: Adapt) -> dict[str, Adapt]:
    return {f"{section}.{key}": adapt for key in keys.split()}


# Certificates and keys are read before anything else is done: `Reloader._prepare`.
LIVE: Mapping[str, Adapt] = {
    **_all("listen", "head_max_bytes head_seconds body_max_bytes body_seconds idle_seconds write_seconds", _listen),
    **_all("listen", "dead_seconds allowed_origins trusted_proxies", _listen),
    **_all("listen.tls", "certificate key check_seconds", _kept),
    **_all("auth", "mode secret key_file jwks jwks_refresh_seconds jwks_grace_seconds jwks_timeout_seconds", _access),
    **_all("auth", "issuer audience leeway_seconds expiry cookie authenticate_seconds", _access),
    **_all("auth", "publish_keys admin_keys revocation_seconds", _access),
    **_all("rules", "user_subscribe user_publish anonymous_subscribe anonymous_publish key_publish", _access),
    **_all("limits", "connections_per_user streams_per_user connections_per_ip loopback", _limits),
    **_all("limits", "connects_per_second_per_ip connects_burst_per_ip", _limits),
    **_all("limits", "commands_per_second commands_burst outbox_total_bytes", _limits),
    **_all("clients", "max_connections subscriptions_max outbox_max_bytes outbox_max_age_seconds", _clients),
    **_all("clients", "farewell_seconds catch_up_bytes patience_seconds", _clients),
    **_all("websocket", "ping_seconds silence_seconds message_max_bytes", _clients),
    **_all("sse", "keep_alive_seconds ended_seconds channels_max", _clients),
    **_all("evaluations", "start_seconds queue_seconds grace_seconds keep_seconds pending_max", _clients),
    **_all("publish", "http events_max idempotency_seconds", _publish),
    **_all("daemon", "drain_seconds drain_clients_per_second unready_seconds reconnect_seconds", _kept),
    **_all("daemon", "worker_silence_seconds", _kept),
    **_all("metrics", "http", _web),
    **_all("console", "http", _web),
    **_all("log", "level format requests", _log),
}
"""Who is told of a setting that counts at once."""

_SOCKETS = "the sockets are open"
_REDIS = "the connections to Redis are there, and the other daemons at it would differ"
_TYPES = "channels are served with it, and Redis is told once"
RESTART: Mapping[str, str] = {
    "listen.addresses": _SOCKETS,
    "listen.backlog": _SOCKETS,
    "listen.proxy_protocol": _SOCKETS,
    "listen.tls.addresses": _SOCKETS,
    **{setting: _REDIS for setting in SETTINGS if setting.startswith(("redis.", "history."))},
    "embedded.port": "the embedded Valkey runs",
    "channels.undeclared": _TYPES,
    "channels.declared": _TYPES,
    "channels.message_max_bytes": _TYPES,
    "daemon.control_socket": "it is open",
    "daemon.workers": "the workers run",
    "daemon.node": "the other daemons know it by that name",
    "daemon.node_lease_seconds": "the other daemons count on it",
    "tracing.mode": "it is loaded once",
}
"""Why a setting waits for a restart; so does every option of a channel type."""


@frozen
class Outcome:
    """What came of one reload.

    Args:
        changed: what is in force now, a line each; values of secrets are not in it.
        waiting: names of settings that have changed and need a restart.
        problems: what is wrong with the settings; then nothing has changed.
    """

    changed: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


@define(eq=False)
class Reloader:
    """The settings in force.

    Args:
        given: the settings as they were read.
        config: the same, with what the daemon found out by itself, such as where the embedded Redis is.
        load: reads them again; raises ConfigError.
        follow: goes by new ones: `adapt_parts`, or, of a supervisor, has its workers do so.
    """

    _follow: Follow
    _given: Effective
    config: Config
    _load: Callable[[], Effective]
    last: Outcome = field(init=False, factory=Outcome)

    def reload(self) -> Outcome:
        """Read the settings again, and go by them. Raises nothing; what came of it is in the log too."""
        try:
            outcome = self.last = self._reload()
        except ConfigError as error:
            outcome = self.last = Outcome(problems=tuple(map(str, error.problems)))
        if outcome.problems:
            log.error("the new settings cannot be used; those before stay", problems=list(outcome.problems))
        else:
            log.info("settings read again", changed=list(outcome.changed), need_restart=list(outcome.waiting))
        return outcome

    def _reload(self) -> Outcome:
        wanted = self._load()
        changed, waiting = compare(self._given.config, wanted.config)
        merged = _merge(self._given.config, wanted.config, changed)
        problems = _together(merged, self._given, wanted) if waiting else ()
        if problems:
            return Outcome(problems=problems)
        keys, certificate = self._prepare(merged, changed)
        lines = tuple(_line(setting, self._given.config, merged) for setting in changed)
        origins = {name: (wanted if name in changed else self._given).origins.get(name, DEFAULT) for name in SETTINGS}
        self._given = Effective(merged, {**self._given.origins, **origins})
        self.config = attrs.evolve(merged, redis=self.config.redis)
        self._follow(Effective(self.config, self._given.origins), changed, keys, certificate)
        return Outcome(lines, tuple(waiting))

    def _prepare(self, merged: Config, changed: list[str]) -> tuple[KeySource | None, Certificate | None]:
        """Read the keys and the certificate of the new settings, where those have changed.

        Raises:
            ConfigError: they cannot be used.
        """
        sections = {parts_of(setting)[0] for setting in changed}
        keys = KeySource(merged.auth) if "auth" in sections else None
        is_shown = bool(merged.listen_tls.certificate)
        return keys, Certificate(merged.listen_tls) if "listen.tls" in sections and is_shown else None


def adapt_parts(
    parts: Parts,
    shown_certificate: Certificate | None,
    effective: Effective,
    changed: Sequence[str],
    keys: KeySource | None,
    certificate: Certificate | None,
) -> None:
    """Have the parts of this process go by new settings. Cannot fail.

    Args:
        shown_certificate: what clients are shown; it becomes as `certificate`.
        changed: the settings that differ.
        keys, certificate: read by the new settings; None where those settings have not changed.
    """
    if keys is not None:
        parts.keys_of_tokens.adapt(keys)
    if certificate is not None and shown_certificate is not None:
        shown_certificate.adapt(certificate)
    for adapt in dict.fromkeys(LIVE[setting] for setting in changed):
        adapt(parts, effective.config)


def compare(old: Config, new: Config) -> tuple[list[str], list[str]]:
    """The settings that differ: those that may change while the daemon runs, and those that need a restart."""
    changed: list[str] = []
    waiting: list[str] = []
    for setting in SETTINGS:
        if _value(old, setting) != _value(new, setting):
            (changed if is_live(setting, old, new) else waiting).append(setting)
    for type in dict.fromkeys((*old.types, *new.types)):
        was, will = (config.types.get(type, TypeOptions()) for config in (old, new))
        if (type in old.types) != (type in new.types) and was == will:
            waiting.append(f"{TYPES}.{type}")
        waiting += (type_setting(type, key) for key in TYPE_OPTIONS if getattr(was, key) != getattr(will, key))
    return changed, waiting


def is_live(setting: str, old: Config, new: Config) -> bool:
    """Whether a setting can change like this while the daemon runs."""
    if setting not in LIVE:
        return False
    if setting.startswith("auth."):
        return old.auth.is_on == new.auth.is_on
    if setting.startswith("listen.tls."):
        return bool(old.listen_tls.certificate) == bool(new.listen_tls.certificate)
    return True


def _value(config: Config, setting: str) -> Any:
    section, key = parts_of(setting)
    return getattr(getattr(config, section_field(section)), key)


def _merge(old: Config, new: Config, changed: list[str]) -> Config:
    """`old` with the settings of `new` that are named."""
    values: dict[str, dict[str, Any]] = {}
    for setting in changed:
        section, key = parts_of(setting)
        values.setdefault(section_field(section), {})[key] = _value(new, setting)
    return attrs.evolve(
        old, **{section: attrs.evolve(getattr(old, section), **given) for section, given in values.items()}
    )


def _together(merged: Config, given: Effective, wanted: Effective) -> tuple[str, ...]:
    """What is wrong with the live settings of one file beside the others of the file before."""
    values = {
        section: {attribute.name: _value(merged, f"{section}.{attribute.name}") for attribute in attrs.fields(cls)}
        for section, cls in SECTIONS.items()
    }
    origins = {
        setting: "the settings in force and the new ones together"
        for setting in SETTINGS
        if (given.origins.get(setting, DEFAULT), wanted.origins.get(setting, DEFAULT)) != (DEFAULT, DEFAULT)
    }
    return tuple(
        f"{'.'.join(place)}: {what} (while {', '.join(_waiting(given, wanted))} wait for a restart)"
        for place, what in disagreements({**values, TYPES: {}}, origins, ())
    )


def _waiting(given: Effective, wanted: Effective) -> Iterator[str]:
    yield from compare(given.config, wanted.config)[1]


def _line(setting: str, old: Config, new: Config) -> str:
    """One change, for people."""
    if SETTINGS[setting].metadata["secret"]:
        return f"{setting}: another value, which is secret"
    return f"{setting}: {_shown(_value(old, setting))} -> {_shown(_value(new, setting))}"


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return shown(value) if isinstance(value, str) else str(value)
