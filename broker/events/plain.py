"""Plain values: what a caller gave, as the type of its field, where that says the same.

    1 for a number        1.0             numpy's numbers, Fraction too
    an enum's member      its text        where the enum is one of strings
    a list                a tuple
    an open object        a copy of plain dicts, lists, strings and numbers

Law: what comes out has a JSON form, and comes back equal from it. Everything else is an EventError that
says where and what. Bounds: an open object is nested at most 100 deep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, isfinite
from numbers import Integral, Real
from typing import Any, NoReturn, get_args, get_origin

import attrs

from broker.errors import EventError
from broker.events.rules import Object, bare_of, described, wanted

_DEPTH_MAX = 100

# From a value that is not None, and where it stands, for the error.
Plain = Callable[[Any, str], object]


def plain_of(hint: Any) -> Plain:
    """What makes values plain for a field with this annotation."""
    bare = bare_of(hint)
    if hint == Object:
        return _plain_object
    if bare is float:
        return lambda value, where: _plain_float(value, where, hint)
    if bare is int:
        return _plain_int
    if bare is bool:
        return _plain_bool
    if get_origin(bare) is Sequence:
        return lambda value, where: _plain_tuple(value, where, get_args(bare)[0])
    if attrs.has(bare):
        return lambda value, where: _instance(value, where, bare)
    return lambda value, where: _plain_text(value, where) if isinstance(value, str) else _refuse(value, where, hint)


def plain_json(value: Any, where: str, depth: int = 0) -> object:
    """A copy of `value` of JSON's own types.

    Raises:
        EventError: something in it has no JSON form; says where.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _plain_text(value, where)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return _plain_float(value, where, float)
    if not isinstance(value, Mapping | list | tuple):
        raise EventError(f"{where} must be a JSON value, not {described(value)}")
    if depth == _DEPTH_MAX:
        raise EventError(f"{where[:80]}... is nested deeper than {_DEPTH_MAX}")
    if isinstance(value, Mapping):
        found = {}
        for name, inner in value.items():
            if not isinstance(name, str):
                raise EventError(f"{where} must have strings as names, not {described(name)}")
            name = _plain_text(name, where)
            found[name] = plain_json(inner, f"{where}.{described(name)[1:-1]}", depth + 1)
        return found
    return [plain_json(inner, f"{where}[{index}]", depth + 1) for index, inner in enumerate(value)]


def _plain_float(value: Any, where: str, hint: Any) -> float:
    if type(value) is not float:
        if not isinstance(value, Real) or isinstance(value, bool):
            _refuse(value, where, hint)
        try:
            value = float(value)
        except OverflowError:
            value = inf
    if not isfinite(value):
        raise EventError(f"{where} must be a finite number, not {described(value)}")
    return float(value)


def _plain_int(value: Any, where: str) -> int:
    if type(value) is int:
        return value
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    _refuse(value, where, int)


def _plain_bool(value: Any, where: str) -> bool:
    if isinstance(value, bool):
        return value
    _refuse(value, where, bool)


def _plain_object(value: Any, where: str) -> object:
    return plain_json(value, where) if isinstance(value, Mapping) else _refuse(value, where, Object)


def _plain_tuple(value: Any, where: str, item_type: type) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise EventError(f"{where} must be a list of {item_type.__name__}, not {described(value)}")
    return tuple(_instance(item, f"{where}[{index}]", item_type) for index, item in enumerate(value))


def _instance(value: Any, where: str, value_type: type) -> object:
    if not isinstance(value, value_type):
        raise EventError(f"{where} must be a {value_type.__name__}, not {described(value)}")
    return value


def _plain_text(text: str, where: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise EventError(f"{where} must be text that has a UTF-8 form, not {described(text)}") from None
    # The member of an enum is a string with a class of its own, which JSON does not keep.
    return text if type(text) is str else str.__str__(text)


def _refuse(value: object, where: str, hint: Any) -> NoReturn:
    raise EventError(f"{where} must be {wanted(hint)}, not {described(value)}")
