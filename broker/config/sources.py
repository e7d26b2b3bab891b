"""Settings from where people write them: flags, the environment, a TOML file, and the defaults.

Laws: the first of these that has a setting wins. Every source is checked whole, overridden values
included, and everything wrong is reported at once. Nothing is coerced: what is no number is not made
one; only flags and the environment, which know nothing but text, are read as what the setting is.
No message holds a secret.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from attrs import Attribute, frozen

from broker.config.agreement import disagreements
from broker.config.assignment import Assignment
from broker.config.names import (
    DEFAULT,
    RENAMED,
    SECTIONS,
    SETTINGS,
    TYPE_OPTIONS,
    TYPES,
    TYPES_FLAG,
    TYPES_VARIABLE,
    flag,
    parts_of,
    type_setting,
    type_table,
    variable,
)
from broker.config.secret import shown
from broker.config.sections import Config
from broker.config.structure import Place, complaints_about, config_of
from broker.errors import ConfigError, Problem

# BROKER_URL and BROKER_TOKEN are the client commands', BROKER_CONFIG names the file. The others are
# what Kubernetes gives to every container beside a Service that is called `broker`.
_NOT_SETTINGS = re.compile(
    r"BROKER_(URL|TOKEN|CONFIG|SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", re.ASCII)


@frozen
class Effective:
    """The settings that hold, and where each comes from.

    Shape: `origins` has every dotted setting in the order of the sections, then every option of the
    types in `config.types`, such as `types.job_progress.validate`; a value is `flag --listen`, `environment
    BROKER_REDIS_URL`, `environment REDIS_URL`, the file's path as given, or `default`.
    """

    config: Config
    origins: Mapping[str, str]


def load(*, flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None) -> Effective:
    """Read every source and check it.

    Args:
        flags: by dotted setting, and `types` a list of `TYPE.KEY=VALUE`; None and (), click's words for a flag
            that was not given, count for nothing.
        environ: the environment; an empty REDIS_URL counts for nothing, an empty BROKER_REDIS_URL is the embedded one.
        file: a TOML file, which must exist; None for no file.

    Raises:
        ConfigError: at least one problem: first what is unknown or unreadable, then the values of the flags, of the
            environment and of the file (in its order), then what is wrong between settings.
    """
    problems: list[Problem] = []
    sources = [_flags(flags, problems), _environment(environ, problems, shared=flags.get("redis.url") is None)]
    sources += [_file(file, problems)] if file is not None else []
    merged: dict[str, dict[str, Any]] = {section: {} for section in (*SECTIONS, TYPES)}
    winners: dict[str, _Source] = {}
    unsure: set[str] = set()
    for source in sources:
        complaints = complaints_about(source.values)
        problems += (Problem(source.where(path), what) for path, what in complaints)
        wrong = {path for path, _ in complaints}
        for setting in SETTINGS.keys() - winners.keys():
            section, key = parts_of(setting)
            if not source.readable or wrong & {(section.partition(".")[0],), (section,), (section, key)}:
                unsure.add(setting)
            elif key in source.values.get(section, ()):
                merged[section][key] = source.values[section][key]
            else:
                continue
            winners[setting] = source
        unsure |= _unsure_types(source, wrong)
        for type, table in source.type_tables():
            options = merged[TYPES].setdefault(type, {})
            for key in table.keys() - options.keys():
                options[key] = table[key]
                winners[type_setting(type, key)] = source
    given = {setting: source.origin(setting) for setting, source in winners.items()}
    for place, what in disagreements(merged, given, unsure):
        problems.append(Problem(winners[_setting(place)].where(place), what))
    if problems:
        raise ConfigError(problems)
    config = config_of(merged)
    settings = [*SETTINGS, *(type_setting(type, key) for type in config.types for key in TYPE_OPTIONS)]
    origins = {setting: given.get(setting, DEFAULT) for setting in settings}
    return Effective(config, MappingProxyType(origins))


@frozen
class _Source:
    """What one source says. Shape: `values` is section, key, value, right or wrong, as TOML nests them."""

    values: Mapping[str, Any]
    names: Mapping[str, str] = {}  # of each setting and of all types, for flags and variables
    file: str = ""  # for all settings, in a file
    readable: bool = True

    def where(self, path: Place) -> str:
        if path[0] == TYPES and TYPES in self.names:
            return f"{self.names[TYPES]} {'.'.join(map(_plain, path[1:]))}"
        return self.names.get(".".join(path), f"{self.file}: {'.'.join(map(_plain, path))}")

    def origin(self, setting: str) -> str:
        return self.names.get(TYPES if setting.startswith(f"{TYPES}.") else setting, self.file)

    def type_tables(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The table of each channel type; what is no table is left out."""
        tables = self.values.get(TYPES)
        for type, table in tables.items() if isinstance(tables, dict) else ():
            if isinstance(table, dict):
                yield type, table


def _unsure_types(source: _Source, wrong: Collection[Place]) -> set[str]:
    """The tables of types of which nobody knows what `source` was to say."""
    if not source.readable or (TYPES,) in wrong:
        return {TYPES}
    return {type_table(place[1]) for place in wrong if place[0] == TYPES}


def _setting(place: Place) -> str:
    return type_setting(*place[1:]) if place[0] == TYPES else ".".join(place)


def _flags(flags: Mapping[str, object], problems: list[Problem]) -> _Source:
    given = {setting: value for setting, value in flags.items() if value is not None and value != ()}
    renamed = {flag(old): flag(new) for old, new in RENAMED.items()}
    for name in sorted(flag(setting) for setting in given.keys() - SETTINGS.keys() - {TYPES}):
        problems.append(Problem(f"flag {name}", _misspelt(name, [*map(flag, SETTINGS), TYPES_FLAG], renamed)))
    named = {setting: (f"flag {flag(setting)}", given[setting]) for setting in SETTINGS if setting in given}
    lines = given.get(TYPES, ())
    assert isinstance(lines, tuple)
    return _named(named, (f"flag {TYPES_FLAG}", lines), problems)


def _environment(environ: Mapping[str, str], problems: list[Problem], *, shared: bool) -> _Source:
    variables = {variable(setting): setting for setting in SETTINGS}
    renamed = {variable(old): variable(new) for old, new in RENAMED.items()}
    for name in sorted(environ):
        if (
            name.startswith("BROKER_")
            and name not in {*variables, TYPES_VARIABLE}
            and not _NOT_SETTINGS.fullmatch(name)
        ):
            what = _misspelt(name, [*variables, TYPES_VARIABLE], renamed)
            problems.append(Problem(f"environment {_plain(name)}", what))
    given = {variables[name]: (f"environment {name}", environ[name]) for name in sorted(environ) if name in variables}
    if shared and environ.get("REDIS_URL"):  # Not ours alone: what it says is looked at only where it counts.
        given.setdefault("redis.url", ("environment REDIS_URL", environ["REDIS_URL"]))
    return _named(given, (f"environment {TYPES_VARIABLE}", _listed(environ.get(TYPES_VARIABLE, ""))), problems)


def _named(
    given: Mapping[str, tuple[str, object]], types: tuple[str, Iterable[str]], problems: list[Problem]
) -> _Source:
    """A source whose settings have names of their own; `given` has the name and the value of each.

    Args:
        types: the name that all options of types have together, and each as `TYPE.KEY=VALUE`.
    """
    values: dict[str, dict[str, Any]] = {}
    for setting, (_, value) in given.items():
        section, key = parts_of(setting)
        values.setdefault(section, {})[key] = _read(SETTINGS[setting], value) if isinstance(value, str) else value
    name, lines = types
    tables: dict[str, dict[str, Any]] = {}
    for line in lines:
        try:
            option = Assignment.parse(line)
        except ValueError as error:
            problems.append(Problem(name, str(error)))
            continue
        table = tables.setdefault(option.type, {})
        if option.key in table:
            where = f"{name} {_plain(option.type)}.{option.key}"
            problems.append(Problem(where, "is given twice; leave one of them out"))
        attribute = TYPE_OPTIONS.get(option.key)
        table[option.key] = _read(attribute, option.text) if attribute else option.text
    if tables:
        values[TYPES] = tables
    return _Source(values, {TYPES: name, **{setting: name for setting, (name, _) in given.items()}})


def _listed(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",")) if text.strip() else ()


def _read(attribute: Attribute[Any], text: str) -> object:
    """Text as what the setting is; text that is not that stays text, for the check to refuse."""
    if attribute.type is int and _INTEGER.fullmatch(text):
        return int(text)
    if attribute.type is float and _NUMBER.fullmatch(text):
        return float(text)
    if attribute.type not in (int, float, str):
        return _listed(text)
    return text


def _file(file: Path, problems: list[Problem]) -> _Source:
    # A name that is not UTF-8 could not be printed.
    name = os.fsencode(file).decode(errors="replace")
    try:
        values = tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        problems.append(Problem(name, f"cannot be read: {error.strerror}; name a file that can be, or none"))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        problems.append(Problem(f"{name}: line {line}", "is not UTF-8; save the file in that encoding"))
    except tomllib.TOMLDecodeError as error:
        what, _, place = str(error).removesuffix(")").rpartition(" (at ")
        what = f"is not TOML: {what}; write key = value, texts in double quotes, lists in [ ]"
        problems.append(Problem(f"{name}: {place}", what))
    except (ValueError, RecursionError):
        problems.append(Problem(name, "has a number too long or lists too deep to be read"))
    else:
        return _Source(_with_inner_sections(values, name, problems), file=name)
    return _Source({}, file=name, readable=False)


def _with_inner_sections(values: dict[str, Any], name: str, problems: list[Problem]) -> dict[str, Any]:
    """`values` with each section that stands inside another, as `[listen.tls]` does, beside it."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key in SECTIONS and "." in key:
            what = f"is not a section in quotes; write [{key}] without"
            problems.append(Problem(f"{name}: {shown(key)}", what))
            continue
        found[key] = value
        for section in SECTIONS:
            outer, _, inner = section.partition(".")
            if outer == key and inner and isinstance(value, dict) and inner in value:
                found[key] = {name: given for name, given in value.items() if name != inner}
                found[section] = value[inner]
    return found


def _plain(key: str) -> str:
    return key if key in SECTIONS or _BARE.fullmatch(key) else shown(key)


def _misspelt(name: str, names: Iterable[str], renamed: Mapping[str, str]) -> str:
    if name in renamed:
        return f"has a new name; write {renamed[name]}"
    close = get_close_matches(name, list(names), n=1, cutoff=0.75)
    return "is not a setting; " + (f"did you mean {close[0]}?" if close else "`broker config table` lists them all")
