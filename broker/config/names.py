"""The names of the settings on every side: dotted, as a flag, as a variable; and their bounds in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, get_type_hints

import attrs
from attrs import Attribute

from broker.config.sections import Config
from broker.config.types import TypeOptions

DEFAULT = "default"
"""Where a setting comes from that nobody gave."""
TYPES = "types"
"""The section that has a table for each channel type, in place of settings of its own."""
TYPES_FLAG = "--type"
TYPES_VARIABLE = "BROKER_TYPES"
TYPE_OPTIONS: Mapping[str, Attribute[Any]] = attrs.fields_dict(attrs.resolve_types(TypeOptions))

# A section inside another is a field with an underscore: `listen_tls` is `[listen.tls]`.
SECTIONS: Mapping[str, type[Any]] = {
    field.replace("_", "."): attrs.resolve_types(cls) for field, cls in get_type_hints(Config).items() if field != TYPES
}
SETTINGS: Mapping[str, Attribute[Any]] = {
    f"{section}.{attribute.name}": attribute for section, cls in SECTIONS.items() for attribute in attrs.fields(cls)
}

RENAMED: Mapping[str, str] = {
    "listen.cors_origins": "listen.allowed_origins",
    "sse.retry_milliseconds": "daemon.reconnect_seconds",
}
"""Settings that had another name once."""

_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_SHORT_FLAGS = {"listen.addresses": "--listen", "redis.url": "--redis", "daemon.workers": "--workers"}


def section_field(section: str) -> str:
    """The field of `Config` that holds a section."""
    return section.replace(".", "_")


def parts_of(setting: str) -> tuple[str, str]:
    """The section and the key of a dotted setting."""
    section, _, key = setting.rpartition(".")
    return section, key


def type_setting(type: str, key: str) -> str:
    """The dotted name of a channel type's option, as TOML writes it: `types.job_progress.validate`."""
    return f"{type_table(type)}.{key}"


def type_table(type: str) -> str:
    """The name of a channel type's table, as TOML writes it: `types.job_progress`, `types."a.b"`."""
    return f"{TYPES}.{type}" if _BARE.fullmatch(type) else f'{TYPES}."{type}"'


def variable(setting: str) -> str:
    """The environment variable of a dotted setting: `redis.url` is `BROKER_REDIS_URL`."""
    return "BROKER_" + setting.replace(".", "_").upper()


def flag(setting: str) -> str:
    """The command line's flag of a dotted setting: `log.level` is `--log-level`, `redis.url` is `--redis`."""
    return _SHORT_FLAGS.get(setting, "--" + re.sub("[._]", "-", setting))


def bounds(attribute: Attribute[Any]) -> str:
    """The values that a setting takes, in words: `1 to 65535`, `at least 0.1`, `one of text, json`; empty for all."""
    least, most, one_of = (attribute.metadata[name] for name in ("least", "most", "one_of"))
    if one_of:
        return "one of " + ", ".join(one_of)
    if least is not None and most is not None:
        return f"{least} to {most}"
    return f"at least {least}" if least is not None else f"at most {most}" if most is not None else ""
