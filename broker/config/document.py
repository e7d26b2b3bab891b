"""The settings written down: their names, their bounds, the file that explains them, the table, what is in force.

Everything here is made from `sections`; `conf/broker.toml` and `docs/settings.md` are this file's output,
and a test says so.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

import attrs
from attrs import Attribute

from broker.config.names import (
    SECTIONS,
    SETTINGS,
    TYPE_OPTIONS,
    TYPES_FLAG,
    TYPES_VARIABLE,
    bounds,
    parts_of,
    section_field,
    type_setting,
    type_table,
    variable,
)
from broker.config.secret import masked
from broker.config.sections import meaning
from broker.config.sources import Effective
from broker.config.types import BUILT_IN_TYPES, TypeOptions

_LINE_CHARACTERS = 100
_TYPES = TypeOptions.__doc__ or ""
_EXAMPLE = "job_progress.validate=event,alerts.validate=off"
_HEAD = """\
# The settings of the broker daemon. As shipped, this file changes nothing: every setting is commented
# out and shows its default. Take the # away from a line to change it; `broker check --config FILE`
# says what is wrong, `broker config show --config FILE` what is in force and why.
#
# The first of these that has a setting wins: a flag of the command line, the environment variable
# that is named here, this file, the default.
"""


def toml_document() -> str:
    """The whole of `conf/broker.toml`: comments, section headers, and every setting commented out as its default."""
    return "\n".join([_HEAD, *_toml_lines()])


def markdown_table() -> str:
    """For each section a heading, its sentence and a table: setting, default, environment variable, meaning.

    Then the same for the options of channel types, and the defaults of the built-in ones.
    """
    parts = []
    for section, cls in SECTIONS.items():
        rows = ["| Setting | Default | Environment variable | Meaning |", "| --- | --- | --- | --- |"]
        for attribute in attrs.fields(cls):
            setting = f"{section}.{attribute.name}"
            text = _explained(attribute).replace("|", "\\|")
            rows.append(f"| `{setting}` | `{_toml(attribute.default)}` | `{variable(setting)}` | {text} |")
        parts += [f"## [{section}]", cls.__doc__ or "", "\n".join(rows)]
    return "\n\n".join([*parts, *_types_tables()]) + "\n"


def show(effective: Effective) -> str:
    """A line for each setting, `clients.outbox_max_bytes = 1048576  # default`, with passwords and secrets masked.

    Then one for each option of each channel type that is built in or has a table.
    """
    lines = []
    for setting, attribute in SETTINGS.items():
        section, key = parts_of(setting)
        value = getattr(getattr(effective.config, section_field(section)), key)
        lines.append(
            f"{setting} = {_toml(masked(value, attribute.metadata['secret']))}  # {effective.origins[setting]}\n"
        )
    for type, options in effective.config.types.items():
        for key in TYPE_OPTIONS:
            setting = type_setting(type, key)
            lines.append(f"{setting} = {_toml(getattr(options, key))}  # {effective.origins[setting]}\n")
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
    yield from _comment(_TYPES)
    yield "#"
    for key, attribute in TYPE_OPTIONS.items():
        yield from _comment(f"{key}: {_explained(attribute)}")
    yield "#"
    yield f"# Environment: {TYPES_VARIABLE}, all in one, such as {_EXAMPLE}"
    yield ""
    for type, options in BUILT_IN_TYPES.items():
        yield f"[{type_table(type)}]"
        yield from (f"# {key} = {_toml(getattr(options, key))}" for key in TYPE_OPTIONS)
        yield ""


def _types_tables() -> Iterator[str]:
    yield "## [types]"
    yield (
        f"{_TYPES} In the environment all options are one variable, such as `{TYPES_VARIABLE}={_EXAMPLE}`; on the "
        f"command line each is a flag, such as `{TYPES_FLAG} {_EXAMPLE.split(',')[0]}`."
    )
    rows = ["| Option | Default | Meaning |", "| --- | --- | --- |"]
    for key, attribute in TYPE_OPTIONS.items():
        rows.append(f"| `{type_setting('TYPE', key)}` | `{_toml(attribute.default)}` | {_explained(attribute)} |")
    yield "\n".join(rows)
    yield "The built-in types, and the defaults of each:"
    rows = [
        "| Type | " + " | ".join(f"`{key}`" for key in TYPE_OPTIONS) + " |",
        "| --- " * (1 + len(TYPE_OPTIONS)) + "|",
    ]
    for type, options in BUILT_IN_TYPES.items():
        values = (f"`{_toml(getattr(options, key))}`" for key in TYPE_OPTIONS)
        rows.append(f"| `{type}` | {' | '.join(values)} |")
    yield "\n".join(rows)


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
