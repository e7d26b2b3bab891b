"""Settings from where people write them: flags, the environment, a TOML file, and the defaults.

Laws: the first of these that has a setting wins. Every source is checked whole, overridden values
included, and everything wrong is reported at once. Nothing is coerced: what is no number is not made
one; only flags and the environment, which know nothing but text, are read as what the setting is.
No message holds a secret.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs
from attrs import Attribute, frozen
from cattrs import Converter
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override

from broker.config.address import CHECKS
from broker.config.names import SECTIONS, SETTINGS, bounds, flag, variable
from broker.config.secret import described, shown
from broker.config.sections import Config
from broker.errors import ConfigError, Problem

DEFAULT = "default"
# BROKER_URL is the client commands' address of a daemon, BROKER_CONFIG names the file. The others are
# what Kubernetes gives to every container beside a Service that is called `broker`.
_NOT_SETTINGS = re.compile(
    r"BROKER_(URL|CONFIG|SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
# (the lesser, the greater, whether they must differ)
_ORDERED = (
    ("channels.message_max_bytes", "clients.outbox_max_bytes", False),
    ("redis.backoff_min_seconds", "redis.backoff_max_seconds", False),
    ("websocket.ping_seconds", "websocket.silence_seconds", True),
)
_Path = tuple[str, ...]


@frozen
class Effective:
    """The settings that hold, and where each comes from.

    Shape: `origins` has every dotted setting in the order of the sections; a value is `flag --listen`,
    `environment BROKER_REDIS_URL`, `environment REDIS_URL`, the file's path as given, or `default`.
    """

    config: Config
    origins: Mapping[str, str]


def load(*, flags: Mapping[str, object], environ: Mapping[str, str], file: Path | None) -> Effective:
    """Read every source and check it.

    Args:
        flags: by dotted setting; None and (), click's words for a flag that was not given, count for nothing.
        environ: the environment; an empty REDIS_URL counts for nothing, an empty BROKER_REDIS_URL is the embedded one.
        file: a TOML file, which must exist; None for no file.

    Raises:
        ConfigError: at least one problem: first what is unknown or unreadable, then the values of the flags, of the
            environment and of the file (in its order), then what is wrong between two settings.
    """
    problems: list[Problem] = []
    sources = [_flags(flags, problems), _environment(environ, problems, shared=flags.get("redis.url") is None)]
    sources += [_file(file, problems)] if file is not None else []
    merged: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    winners: dict[str, _Source] = {}
    unsure: set[str] = set()
    for source in sources:
        complaints = source.complaints()
        problems += (Problem(source.where(path), what) for path, what in complaints)
        wrong = {path for path, _ in complaints}
        for setting in SETTINGS.keys() - winners.keys():
            section, key = setting.split(".")
            if not source.readable or wrong & {(section,), (section, key)}:
                unsure.add(setting)
            elif key in source.values.get(section, ()):
                merged[section][key] = source.values[section][key]
            else:
                continue
            winners[setting] = source
    problems += _pairs(merged, winners, unsure)
    if problems:
        raise ConfigError(problems)
    origins = {setting: winners[setting].origin(setting) if setting in winners else DEFAULT for setting in SETTINGS}
    return Effective(_CONVERTER.structure(merged, Config), MappingProxyType(origins))


@frozen
class _Source:
    """What one source says. Shape: `values` is section, key, value, right or wrong, as TOML nests them."""

    values: Mapping[str, Any]
    names: Mapping[str, str] = {}  # of each setting, for flags and variables
    file: str = ""  # for all settings, in a file
    readable: bool = True

    def where(self, path: _Path) -> str:
        return self.names.get(".".join(path), f"{self.file}: {'.'.join(map(_plain, path))}")

    def origin(self, setting: str) -> str:
        return self.names.get(setting, self.file)

    def complaints(self) -> list[tuple[_Path, str]]:
        """What is wrong and where, in the order of `values`."""
        order: list[_Path] = []
        for section, body in self.values.items():
            order += [(section,), *((section, key) for key in (body if isinstance(body, dict) else ()))]
        try:
            _CONVERTER.structure(self.values, Config)
        except ClassValidationError as error:
            return sorted(_flat(error, ()), key=lambda complaint: order.index(complaint[0]))
        return []


def _flags(flags: Mapping[str, object], problems: list[Problem]) -> _Source:
    given = {setting: value for setting, value in flags.items() if value is not None and value != ()}
    for name in sorted(flag(setting) for setting in given.keys() - SETTINGS.keys()):
        problems.append(Problem(f"flag {name}", _misspelt(name, map(flag, SETTINGS))))
    return _named({setting: (f"flag {flag(setting)}", given[setting]) for setting in SETTINGS if setting in given})


def _environment(environ: Mapping[str, str], problems: list[Problem], *, shared: bool) -> _Source:
    variables = {variable(setting): setting for setting in SETTINGS}
    for name in sorted(environ):
        if name.startswith("BROKER_") and name not in variables and not _NOT_SETTINGS.fullmatch(name):
            problems.append(Problem(f"environment {_plain(name)}", _misspelt(name, variables)))
    given = {variables[name]: (f"environment {name}", environ[name]) for name in sorted(environ) if name in variables}
    if shared and environ.get("REDIS_URL"):  # Not ours alone: what it says is looked at only where it counts.
        given.setdefault("redis.url", ("environment REDIS_URL", environ["REDIS_URL"]))
    return _named(given)


def _named(given: Mapping[str, tuple[str, object]]) -> _Source:
    """A source whose settings have names of their own; `given` has the name and the value of each."""
    values: dict[str, dict[str, Any]] = {}
    for setting, (_, value) in given.items():
        section, key = setting.split(".")
        values.setdefault(section, {})[key] = _read(SETTINGS[setting], value) if isinstance(value, str) else value
    return _Source(values, {setting: name for setting, (name, _) in given.items()})


def _read(attribute: Attribute[Any], text: str) -> object:
    """Text as what the setting is; text that is not that stays text, for the check to refuse."""
    if attribute.type is int and _INTEGER.fullmatch(text):
        return int(text)
    if attribute.type is float and _NUMBER.fullmatch(text):
        return float(text)
    if attribute.type not in (int, float, str):
        return tuple(item.strip() for item in text.split(",")) if text.strip() else ()
    return text


def _file(file: Path, problems: list[Problem]) -> _Source:
    # A name that is not UTF-8 could not be printed.
    name = os.fsencode(file).decode(errors="replace")
    try:
        return _Source(tomllib.loads(file.read_bytes().decode()), file=name)
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
    return _Source({}, file=name, readable=False)


def _plain(key: str) -> str:
    return key if _BARE.fullmatch(key) else shown(key)


def _misspelt(name: str, names: Iterable[str]) -> str:
    close = get_close_matches(name, list(names), n=1, cutoff=0.75)
    return "is not a setting; " + (f"did you mean {close[0]}?" if close else "`broker config table` lists them all")


def _unknown(path: _Path) -> str:
    """What to write instead of a section or key of the file that does not exist."""
    known = list(SETTINGS) if len(path) == 2 else list(SECTIONS)
    close = get_close_matches(".".join(path), known, n=1, cutoff=0.7)
    elsewhere = [setting for setting in SETTINGS if setting.split(".")[1] == path[-1]]
    if elsewhere or close:
        return f"is not a {('section', 'setting')[len(path) - 1]}; did you mean {' or '.join(elsewhere or close)}?"
    if len(path) == 1:
        return f"is not a section; the sections are {', '.join(SECTIONS)}"
    return f"is not a setting; [{path[0]}] has {', '.join(attrs.fields_dict(SECTIONS[path[0]]))}"


class _Refused(ValueError):
    """A value that a setting does not take; `args` is everything that is wrong with it."""


def _flat(error: ClassValidationError, path: _Path) -> Iterator[tuple[_Path, str]]:
    noted, others = error.group_exceptions()
    for inner, note in noted:
        if isinstance(inner, ClassValidationError):
            yield from _flat(inner, (*path, note.name))
        else:
            assert isinstance(inner, _Refused), inner
            yield from (((*path, note.name), what) for what in inner.args)
    for other in others:
        assert isinstance(other, ForbiddenExtraKeysError), other
        yield from (((*path, key), _unknown((*path, key))) for key in other.extra_fields)


def _take(setting: str, attribute: Attribute[Any], value: Any, _: object) -> object:
    """The value of one setting, if it is of its type, within its bounds and follows its rule."""
    if attribute.type in (int, float):
        return _take_number(attribute, value)
    if attribute.type is str:
        return _take_texts(setting, attribute, (value,))[0]
    if not isinstance(value, list | tuple):
        raise _Refused(f'must be a list of texts such as ["..."], not {described(value)}')
    return _take_texts(setting, attribute, tuple(value))


def _take_number(attribute: Attribute[Any], value: Any) -> object:
    whole = attribute.type is int
    fits = (
        value.bit_length() < 64 if type(value) is int else type(value) is float and math.isfinite(value) and not whole
    )
    if not fits:
        kind = "whole number" if whole else "number"
        raise _Refused(f"must be a {kind} such as {attribute.default}, not {described(value)}")
    least, most = attribute.metadata["least"], attribute.metadata["most"]
    if (least is not None and value < least) or (most is not None and value > most):
        raise _Refused(f"{value} is out of bounds; write {bounds(attribute)}")
    return value if whole else float(value)


def _take_texts(setting: str, attribute: Attribute[Any], texts: tuple[object, ...]) -> tuple[str, ...]:
    complaints = []
    secret, one_of = attribute.metadata["secret"], attribute.metadata["one_of"]
    for text in texts:
        if not isinstance(text, str):
            complaints.append(f"must be text in double quotes, not {described(text)}")
        elif not text.isprintable():
            complaints.append(
                f"{'its value' if secret else shown(text)} has a character that cannot be printed; remove it"
            )
        elif one_of and text not in one_of:
            complaints.append(f"{shown(text)} is not known; write {bounds(attribute)}")
        else:
            try:
                CHECKS.get(setting, str)(text)
            except ValueError as error:
                complaints.append(str(error))
    if complaints:
        raise _Refused(*complaints)
    return texts  # type: ignore[return-value]


def _take_section(structure: Callable[[Any, Any], object], value: object, cls: Any) -> object:
    if not isinstance(value, dict):
        raise _Refused(f"must be a section, its name in brackets on a line of its own, not {described(value)}")
    return structure(value, cls)


def _pairs(merged: Mapping[str, Any], winners: Mapping[str, _Source], unsure: set[str]) -> Iterator[Problem]:
    """What is wrong between two settings, said of the greater one unless that is a default."""
    for lesser, greater, apart in _ORDERED:
        (small, small_from), (great, great_from) = (
            (merged[section].get(key, SETTINGS[f"{section}.{key}"].default), winners.get(f"{section}.{key}"))
            for section, key in (lesser.split("."), greater.split("."))
        )
        if unsure & {lesser, greater} or small < great or (small == great and not apart):
            continue
        if great_from:
            than, origin = "not more" if apart else "less", small_from.origin(lesser) if small_from else DEFAULT
            what = f"{great} is {than} than {lesser}, which is {small} ({origin}); raise this or lower that"
            yield Problem(great_from.where(tuple(greater.split("."))), what)
        elif small_from:
            what = f"{small} is {'not less' if apart else 'more'} than {greater}, which is {great} ({DEFAULT})"
            yield Problem(small_from.where(tuple(lesser.split("."))), what + "; lower this or raise that")


_CONVERTER = Converter(forbid_extra_keys=True, detailed_validation=True)
for _section, _cls in SECTIONS.items():
    _hooks: dict[str, Any] = {
        attribute.name: override(struct_hook=partial(_take, f"{_section}.{attribute.name}", attribute))
        for attribute in attrs.fields(_cls)
    }
    _structure = make_dict_structure_fn(_cls, _CONVERTER, **_hooks)
    _CONVERTER.register_structure_hook(_cls, partial(_take_section, _structure))
