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

from broker.config.names import SECTIONS, SETTINGS, bounds, variable
from broker.config.secret import mask_url
from broker.config.sections import meaning
from broker.config.sources import Effective

_LINE_CHARACTERS = 100
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
