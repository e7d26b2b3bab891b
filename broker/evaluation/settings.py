"""The reference worker's settings: `evaluators.toml` as frozen values.

Laws: every problem is reported at once, each with its path in the file. Nothing is coerced. No key is in
the file, only the names of the environment variables that have them; a value that may be a key in the
wrong place is not shown. The prompts are read and checked here, so that a worker that starts has them.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import attrs
from attrs import Factory, field, frozen
from cattrs import Converter
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override

from broker.config.secret import described, shown
from broker.errors import ConfigError, Problem
from broker.evaluation.prompt import COUNCIL_PLACES, CREATIVE_PLACES, Places, Prompt

T = TypeVar("T")

# Stages of a council evaluation that are no model's.
RESERVED_NAMES = ("aggregating", "complete")
# What the worker itself writes into a request's body.
OWN_PARAMETERS = ("messages", "model", "stream")

_SECTIONS = ("models", "council", "creative")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_SECONDS_MAX = 3600.0


class _Refused(ValueError):
    """A value that a setting does not take; `args` is everything that is wrong with it."""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _Refused(f"must be text in double quotes, not {described(value)}")
    if not value.strip() or not value.isprintable():
        raise _Refused("is empty or has a character that cannot be printed; write it anew")
    return value


def _url(value: object) -> str:
    text = _text(value)
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise _Refused("is not an http or https URL such as https://api.openai.com/v1")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise _Refused("has a user, a query or a fragment; the key goes into a variable that key_env names")
    return text.rstrip("/")


def _variable(value: object) -> str:
    if not isinstance(value, str) or (value and not _VARIABLE.fullmatch(value)):
        # Not shown: it may be the key itself.
        raise _Refused('must be the name of an environment variable such as "OPENAI_API_KEY", never the key')
    return value


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise _Refused(f"must be a number such as 60.0, not {described(value)}")
    if not 0.1 <= value <= _SECONDS_MAX:
        raise _Refused(f"{value} is out of bounds; write 0.1 to {_SECONDS_MAX:g}")
    return float(value)


def _quorum(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _Refused(f"must be a whole number such as 2, not {described(value)}")
    if value < 1:
        raise _Refused(f"{value} is out of bounds; write at least 1")
    return value


def _parameters(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _Refused(f"must be a table such as {{ temperature = 0.2 }}, not {described(value)}")
    problems = [f"{name} is written by the worker; remove it" for name in OWN_PARAMETERS if name in value]
    if not _is_json(value):
        problems.append("has a date, a time, or a number that is not finite, which JSON has not; remove it")
    if problems:
        raise _Refused(*problems)
    return value


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_json, value.values()))
    if isinstance(value, list):
        return all(map(_is_json, value))
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        raise _Refused('must be a list of names of models such as ["gemini", "claude"]')
    twice = sorted({name for name in value if value.count(name) > 1})
    if twice:
        raise _Refused(f"names {shown(twice[0])} twice; name each model once")
    return tuple(value)


def _prompt(places: Places, value: object, folder: Path) -> Prompt:
    try:
        return Prompt.from_file(folder / _text(value), places)
    except _Refused:
        raise
    except ValueError as error:
        raise _Refused(*(f"{shown(str(value))}: {what}" for what in error.args)) from None


_council_prompt = partial(_prompt, COUNCIL_PLACES)
_creative_prompt = partial(_prompt, CREATIVE_PLACES)


def _setting(take: Callable[..., T], default: Any = attrs.NOTHING) -> T:
    """A setting and the function that takes its value from the file; that of a prompt needs the folder too."""
    return field(default=default, metadata={"take": take})  # type: ignore[no-any-return]


@frozen
class ModelSettings:
    """One model: an OpenAI-compatible chat endpoint that streams.

    Args:
        base_url: `/chat/completions` is put behind it.
        model: the provider's name for it.
        key_env: the environment variable with its key; empty: it needs none.
        timeout_seconds: for the whole call.
        silence_seconds: without a byte.
        parameters: put into the request's body as they are.
    """

    base_url: str = _setting(_url)
    model: str = _setting(_text)
    key_env: str = _setting(_variable, "")
    timeout_seconds: float = _setting(_seconds, 120.0)
    silence_seconds: float = _setting(_seconds, 60.0)
    parameters: Mapping[str, Any] = _setting(_parameters, Factory(dict))


@frozen
class CouncilSettings:
    """Council evaluations: `models` are asked side by side, `quorum` of them must answer."""

    prompt: Prompt = field(metadata={"take": _council_prompt})
    models: tuple[str, ...] = _setting(_names)
    quorum: int = _setting(_quorum, 2)


@frozen
class CreativeSettings:
    """Creative evaluations: `models` are asked in turn, until one answers."""

    prompt: Prompt = field(metadata={"take": _creative_prompt})
    models: tuple[str, ...] = _setting(_names)


@frozen
class EvaluatorSettings:
    """The whole file. `council` or `creative` is None where its section is not there; at least one is."""

    models: Mapping[str, ModelSettings]
    council: CouncilSettings | None
    creative: CreativeSettings | None

    @classmethod
    def from_file(cls, file: Path) -> EvaluatorSettings:
        """Read and check a file and the prompts that it names.

        Raises:
            ConfigError: at least one problem, in the order of models, council, creative.
        """
        problems: list[Problem] = []
        data = _read(file)
        for name in data.keys() - set(_SECTIONS):
            problems.append(_problem(file, (name,), f"is not a section; the sections are {', '.join(_SECTIONS)}"))
        models = _models(file, data.get("models"), problems)
        council = _section(file, "council", data, CouncilSettings, problems)
        creative = _section(file, "creative", data, CreativeSettings, problems)
        if not data.keys() & {"council", "creative"}:
            problems.append(Problem(str(file), "has neither [council] nor [creative]; write one of them"))
        defined = set(data["models"]) if isinstance(data.get("models"), dict) else set()
        for section, settings in (("council", council), ("creative", creative)):
            for name in settings.models if settings else ():
                if name not in defined:
                    what = f"{shown(name)} has no section; write [models.{name}] or remove it"
                    problems.append(_problem(file, (section, "models"), what))
        if council and council.quorum > len(council.models):
            what = f"{council.quorum} is more than the {len(council.models)} models of the council; lower it"
            problems.append(_problem(file, ("council", "quorum"), what))
        if problems:
            raise ConfigError(problems)
        return cls(models, council, creative)


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        what = f"cannot be read: {error.strerror}; name a file such as conf/evaluators.toml"
    except UnicodeDecodeError:
        what = "is not UTF-8; save the file in that encoding"
    except (ValueError, RecursionError) as error:
        what = f"is not TOML: {error}; conf/evaluators.toml is an example"
    raise ConfigError([Problem(str(file), what)])


def _problem(file: Path, path: tuple[str, ...], what: str) -> Problem:
    return Problem(f"{file}: {'.'.join(key if _NAME.fullmatch(key) else shown(key) for key in path)}", what)


def _models(file: Path, data: object, problems: list[Problem]) -> dict[str, ModelSettings]:
    if not isinstance(data, dict) or not data:
        problems.append(_problem(file, ("models",), "has no model; write a section for each, such as [models.gemini]"))
        return {}
    models: dict[str, ModelSettings] = {}
    for name, value in data.items():
        path = ("models", name)
        if not _NAME.fullmatch(name) or name in RESERVED_NAMES:
            what = "cannot be a model's name; use 1 to 64 letters, digits, _ . - and neither aggregating nor complete"
            problems.append(_problem(file, path, what))
        settings = _structured(file, path, value, ModelSettings, problems)
        if settings is not None:
            models[name] = settings
    return models


def _section(file: Path, name: str, data: Mapping[str, Any], cls: type[T], problems: list[Problem]) -> T | None:
    return _structured(file, (name,), data[name], cls, problems) if name in data else None


def _structured(file: Path, path: tuple[str, ...], value: object, cls: type[T], problems: list[Problem]) -> T | None:
    if not isinstance(value, dict):
        problems.append(_problem(file, path, f"must be a section, its name in brackets, not {described(value)}"))
        return None
    try:
        return _converter(cls, file.parent).structure(value, cls)
    except ClassValidationError as error:
        problems += (_problem(file, (*path, *inner), what) for inner, what in _flat(error, cls))
        return None


def _converter(cls: type[Any], folder: Path) -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    hooks: dict[str, Any] = {}
    for attribute in attrs.fields(cls):
        take = attribute.metadata["take"]
        take = partial(take, folder=folder) if attribute.name == "prompt" else take
        hooks[attribute.name] = override(struct_hook=partial(_taken, take))
    converter.register_structure_hook(cls, make_dict_structure_fn(cls, converter, **hooks))
    return converter


def _taken(take: Callable[[object], object], value: object, _: object) -> object:
    return take(value)


def _flat(error: ClassValidationError, cls: type[Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """What cattrs found, as path and words: a value refused, a key that is not there, one too many."""
    noted, others = error.group_exceptions()
    for inner, note in noted:
        whats = inner.args if isinstance(inner, _Refused) else ("is missing; write it",)
        assert isinstance(inner, _Refused | KeyError), inner
        yield from (((note.name,), what) for what in whats)
    known = ", ".join(attribute.name for attribute in attrs.fields(cls))
    for other in others:
        assert isinstance(other, ForbiddenExtraKeysError), other
        yield from (((key,), f"is not a setting; there are {known}") for key in sorted(other.extra_fields))
