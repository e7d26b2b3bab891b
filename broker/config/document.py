"""The settings written down: their names, their bounds, the file that explains them, the table, what is in force.

Everything here is made from `sections`; `conf/broker.toml` and `docs/settings.md` are this file's output,
and a test says so.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, get_type_hints

import attrs
from attrs import Attribute

from broker.config.secret import mask_url
from broker.config.sections import Config, meaning

if TYPE_CHECKING:
    from broker.config.sources import Effective

SECTIONS: Mapping[str, type[Any]] = {
    section: attrs.resolve_types(cls) for section, cls in get_type_hints(Config).items()
}
SETTINGS: Mapping[str, Attribute[Any]] = {
    f"{section}.{attribute.name}": attribute for section, cls in SECTIONS.items() for attribute in attrs.fields(cls)
}

_SHORT_FLAGS = {"listen.addresses": "--listen", "redis.url": "--redis"}
_LINE_CHARACTERS = 100
_HEAD = """\
# The settings of the broker daemon. As shipped, this file changes nothing: every setting is commented
# out and shows its default. Take the # away from a line to change it; `broker check --config FILE`
# says what is wrong, `broker config show --config FILE` what is in force and why.
#
# The first of these that has a setting wins: a flag of the command line, the environment variable
# that is named here, this file, the default.
"""


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


def toml_document() -> str:
    """The whole of `conf/broker.toml`: comments, section headers, and every setting commented out as its default."""
    return "\n".join([_HEAD, *_toml_lines()])


def markdown_table() -> str:
    """For each section a heading, its sentence and a table: setting, default, environment variable, meaning."""
    parts = []
    for section, cls in SECTIONS.items():
        rows = ["| Setting | Default | Environment variable | Meaning |", "| --- | --- | --- | --- |"]
        for attribute in attrs.fields(cls):
            setting = f"{section}.{attribute.name}"
            text = _explained(attribute).replace("|", "\\|")
            rows.append(f"| `{setting}` | `{_toml(attribute.default)}` | `{variable(setting)}` | {text} |")
        parts += [f"## [{section}]", cls.__doc__ or "", "\n".join(rows)]
    return "\n\n".join(parts) + "\n"


def show(effective: Effective) -> str:
    """A line for each setting, `clients.outbox_max_bytes = 1048576  # default`, with passwords masked."""
    lines = []
    for setting, attribute in SETTINGS.items():
        section, key = setting.split(".")
        value = getattr(getattr(effective.config, section), key)
        shown_value = mask_url(value) if attribute.metadata["secret"] else value
        lines.append(f"{setting} = {_toml(shown_value)}  # {effective.origins[setting]}\n")
    return "".join(lines)


def _toml_lines() -> Iterator[str]:
    for section, cls in SECTIONS.items():
        yield from _comment(cls.__doc__ or "")
        yield f"[{section}]"
        yield ""
        for attribute in attrs.fields(cls):
            yield from _comment(_explained(attribute))
            yield f"# Environment: {variable(f'{section}.{attribute.name}')}"
            yield f"# {attribute.name} = {_toml(attribute.default)}"
            yield ""


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _LINE_CHARACTERS,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _explained(attribute: Attribute[Any]) -> str:
    """The meaning, then the bounds as a sentence."""
    limits = bounds(attribute)
    return f"{meaning(attribute)} {limits[0].upper()}{limits[1:]}." if limits else meaning(attribute)


def _toml(value: object) -> str:
    """A value in TOML's writing. JSON's is the same for numbers and printable texts, all that settings hold."""
    return json.dumps(value, ensure_ascii=False)
