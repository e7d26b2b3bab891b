"""From values as TOML nests them to the settings: every value checked, everything wrong told with its place.

Laws: nothing is coerced: what is no number is not made one. No message holds a secret.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from functools import partial
from types import MappingProxyType
from typing import Any

import attrs
from attrs import Attribute
from cattrs import Converter
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override

from broker.config.check import CHECKS, check_channel_type
from broker.config.names import RENAMED, SECTIONS, SETTINGS, TYPE_OPTIONS, TYPES, bounds, parts_of, section_field
from broker.config.secret import described, kind_of, shown
from broker.config.sections import Config
from broker.config.types import BUILT_IN_TYPES, TypeOptions

Place = tuple[str, ...]
"""Where a value stands: section and key, or `types`, type and key."""


# Sections inside others, by the field that holds them.
_KEYS = {section_field(section): section for section in SECTIONS if "." in section}


def config_of(values: Mapping[str, Any]) -> Config:
    """The settings; `values` are right, and what they leave out has its default."""
    return _CONVERTER.structure(values, Config)


def complaints_about(values: Mapping[str, Any]) -> list[tuple[Place, str]]:
    """What is wrong and where, in the order of `values`."""
    order = list(_places(values, ()))
    try:
        _CONVERTER.structure(values, Config)
    except ClassValidationError as error:
        return sorted(_flat(error, ()), key=lambda complaint: order.index(complaint[0]))
    return []


def _places(values: Mapping[str, Any], place: Place) -> Iterator[Place]:
    """Where something can be wrong: every section, every key, every key of a type's table."""
    for key, inner in values.items():
        yield (*place, key)
        if isinstance(inner, dict) and len(place) < 2:
            yield from _places(inner, (*place, key))


def _unknown(path: Place) -> str:
    """What to write instead of a section or key of the file that does not exist."""
    name = ".".join(path)
    if name in RENAMED:
        return f"has a new name; write {RENAMED[name]}"
    inner = [section for section in _KEYS.values() if section != path[0]]
    known = [*SETTINGS, *inner] if len(path) == 2 else [*SECTIONS, TYPES]
    # Names in a section inside another are alike for the most part whatever they end in.
    close = get_close_matches(name, known, n=1, cutoff=0.85 if path[0] in _KEYS.values() else 0.7)
    elsewhere = [known for known in (*SETTINGS, *inner) if parts_of(known)[1] == path[-1]]
    if elsewhere or close:
        return f"is not a {('section', 'setting')[len(path) - 1]}; did you mean {' or '.join(elsewhere or close)}?"
    if path[-1] in TYPE_OPTIONS:
        return f"is not a setting; it belongs to a channel type: write it under a header such as [{TYPES}.job_progress]"
    if len(path) == 1:
        return f"is not a section; the sections are {', '.join([*SECTIONS, TYPES])}"
    return f"is not a setting; [{path[0]}] has {', '.join(attrs.fields_dict(SECTIONS[path[0]]))}"


def _unknown_option(key: str) -> str:
    close = get_close_matches(key, list(TYPE_OPTIONS), n=1, cutoff=0.7)
    known = ", ".join(TYPE_OPTIONS)
    return "is not an option of a channel type; " + (f"did you mean {close[0]}?" if close else f"there is {known}")


class _Refused(ValueError):
    """A value that a setting does not take; `args` is everything that is wrong with it."""


class _RefusedTypes(ValueError):
    """Tables of channel types; `args` is where inside and what is wrong, each a pair."""


def _flat(error: ClassValidationError, path: Place) -> Iterator[tuple[Place, str]]:
    noted, others = error.group_exceptions()
    for inner, note in noted:
        if isinstance(inner, ClassValidationError):
            yield from _flat(inner, (*path, _KEYS.get(note.name, note.name)))
        elif isinstance(inner, _RefusedTypes):
            yield from (((*path, note.name, *inside), what) for inside, what in inner.args)
        else:
            assert isinstance(inner, _Refused), inner
            yield from (((*path, _KEYS.get(note.name, note.name)), what) for what in inner.args)
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
        what = kind_of(value) if attribute.metadata["secret"] else described(value)
        raise _Refused(f'must be a list of texts such as ["..."], not {what}')
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
            complaints.append(f"must be text in double quotes, not {kind_of(text) if secret else described(text)}")
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
        holds_secrets = any(attribute.metadata["secret"] for attribute in attrs.fields(cls))
        what = kind_of(value) if holds_secrets else described(value)
        raise _Refused(f"must be a section, its name in brackets on a line of its own, not {what}")
    return structure(value, cls)


def _take_types(value: object, _: object) -> Mapping[str, TypeOptions]:
    """The options of every type that is built in or has a table, those that it leaves out by default."""
    if not isinstance(value, dict):
        raise _Refused(f"must be a table for each type, such as [{TYPES}.job_progress], not {described(value)}")
    complaints: list[tuple[Place, str]] = []
    types = dict(BUILT_IN_TYPES)
    for type, table in value.items():
        try:
            check_channel_type(type)
        except ValueError as error:
            complaints.append(((type,), str(error)))
        if not isinstance(table, dict):
            what = f"must be the table of a channel type, such as [{TYPES}.job_progress], not {described(table)}"
            complaints.append(((type,), what))
            continue
        options: dict[str, Any] = {}
        for key, given in table.items():
            try:
                if key not in TYPE_OPTIONS:
                    raise _Refused(_unknown_option(key))
                options[key] = _take(f"{TYPES}.{key}", TYPE_OPTIONS[key], given, None)
            except _Refused as refused:
                complaints += (((type, key), what) for what in refused.args)
        types[type] = attrs.evolve(types.get(type, TypeOptions()), **options)
    if complaints:
        raise _RefusedTypes(*complaints)
    return MappingProxyType(types)


_CONVERTER = Converter(forbid_extra_keys=True, detailed_validation=True)
for _section, _cls in SECTIONS.items():
    _hooks: dict[str, Any] = {
        attribute.name: override(struct_hook=partial(_take, f"{_section}.{attribute.name}", attribute))
        for attribute in attrs.fields(_cls)
    }
    _structure = make_dict_structure_fn(_cls, _CONVERTER, **_hooks)
    _CONVERTER.register_structure_hook(_cls, partial(_take_section, _structure))
_sections: dict[str, Any] = {field: override(rename=section) for field, section in _KEYS.items()}
_sections[TYPES] = override(struct_hook=_take_types)
_CONVERTER.register_structure_hook(
    Config,
    make_dict_structure_fn(Config, _CONVERTER, **_sections),
)
