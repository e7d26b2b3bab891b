"""The rules of a value: what its attrs class says about each field, as a msgspec struct and in words.

Laws: the annotations of the attrs class are the only statement of a rule. The struct that checks
bytes, the JSON Schema that is printed and the sentence in an error all come from them. A field may be
absent (or null) on the wire exactly where its annotation includes None.

Bounds: an error shows at most 80 characters of a value, ASCII only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs
import msgspec
from attrs import frozen
from msgspec import Meta

_SHOWN_CHARACTERS = 80
_MISSING = re.compile(r"Object missing required field `(\w+)`(?: - at `\$(.*)`)?$")
_AT = re.compile(r" - at `\$(.*)`$")
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")


class _Time:
    """Marks a string that must be a time with an offset."""


Timestamp = Annotated[str, _Time]
Progress = Annotated[float, Meta(ge=0, le=1)]
Name = Annotated[str, Meta(min_length=1)]
Object = Mapping[str, object]


@frozen
class Field:
    """One field of a value.

    Args:
        attribute: its name in Python; `argument` is what the constructor calls it, `wire` what JSON does.
        hint: its annotation, without None.
        instead: the wire name of the field that may stand in for this one, or None.
    """

    attribute: str
    argument: str
    wire: str
    hint: Any
    optional: bool
    instead: str | None

    @property
    def bare(self) -> Any:
        return bare_of(self.hint)


def fields_of(value_type: type) -> tuple[Field, ...]:
    """The fields of a value's class, in wire order: its own first, then `id` and `timestamp`."""
    return _fields_of(value_type)


def struct_of(value_type: type) -> type[msgspec.Struct]:
    """The struct that has the rules of `value_type`. Unknown fields are skipped by it."""
    return _struct_of(value_type)


@cache
def _fields_of(value_type: Any) -> tuple[Field, ...]:
    hints = get_type_hints(value_type, include_extras=True)
    found = []
    for attribute in attrs.fields(value_type):
        if attribute.name == "extra":
            continue
        choices = get_args(hint) if get_origin(hint := hints[attribute.name]) in (Union, UnionType) else (hint,)
        (required,) = (choice for choice in choices if choice is not NoneType)
        assert attribute.alias is not None
        found.append(
            Field(
                attribute.name,
                attribute.alias,
                _camel(attribute.alias),
                required,
                NoneType in choices,
                attribute.metadata.get("instead"),
            )
        )
    return tuple(sorted(found, key=lambda field: ("id", "timestamp").index(field.wire) if _is_common(field) else -1))


@cache
def _struct_of(value_type: Any) -> type[msgspec.Struct]:
    fields: list[Any] = []
    alternatives = []
    for field in fields_of(value_type):
        hint = _struct_hint(field.hint)
        if field.instead is not None:
            alternatives.append((field.wire, field.instead))
        if field.optional or field.instead is not None:
            fields.append((field.wire, Union[hint, None], None))  # noqa: UP007 -- the hint is a value here
        else:
            fields.append((field.wire, hint))

    def __post_init__(self: object) -> None:
        for wire, instead in alternatives:
            if getattr(self, wire) is None and getattr(self, instead) is None:
                raise ValueError(f"Object missing required field `{wire}`")

    namespace: dict[str, Any] = {"__doc__": value_type.__doc__}
    if alternatives:
        namespace["__post_init__"] = __post_init__
    tag = getattr(value_type, "type", None)
    return msgspec.defstruct(
        value_type.__name__,
        fields,
        namespace=namespace,
        tag_field=None if tag is None else "type",
        tag=tag,
        kw_only=True,
        gc=False,
    )


def bare_of(hint: Any) -> Any:
    """An annotation without its bounds."""
    return get_args(hint)[0] if hasattr(hint, "__metadata__") else hint


def wanted(hint: Any) -> str:
    """What a field must be, to follow `must be`."""
    bare, marks = bare_of(hint), getattr(hint, "__metadata__", ())
    if _Time in marks:
        return "a time such as 2026-01-31T12:00:00.000Z"
    if get_origin(bare) is Literal:
        return "one of " + ", ".join(get_args(bare))
    for mark in marks:
        if isinstance(mark, Meta) and mark.ge is not None:
            return f"a number from {mark.ge} to {mark.le}"
        if isinstance(mark, Meta) and mark.min_length is not None:
            return "a string that is not empty"
    if get_origin(bare) is Sequence:
        return "a list"
    return {bool: "true or false", int: "an integer", float: "a number", str: "a string"}.get(bare, "an object")


def described(value: object) -> str:
    """A value fit for a message: never the text of a list or an object, which can be nested too deep to be shown."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return ascii(value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "...")
    if isinstance(value, int | float):
        try:
            text = repr(value)
        except ValueError:  # more digits than Python writes
            return "a number of thousands of digits"
        return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    return ascii(f"a value of type {type(value).__name__}"[:_SHOWN_CHARACTERS])[1:-1]


def explained(problem: str, value: object, value_type: type, *, as_arguments: bool = False) -> str:
    """A sentence for msgspec's `problem` with `value`, the JSON object that should have been a `value_type`.

    Args:
        as_arguments: fields are called what the constructor calls them, not what JSON does.
    """
    missing = _MISSING.fullmatch(problem)
    where = _AT.search(problem)
    path = f"{missing[2] or ''}.{missing[1]}" if missing else where[1] if where else ""
    hint: Any = value_type
    shown = ""
    for name, index in _STEP.findall(path):
        try:
            if name:
                (field,) = (field for field in fields_of(hint) if field.wire == name)
                hint = field.hint
                value = value.get(name)  # type: ignore[attr-defined]
                shown += f".{field.argument if as_arguments else name}"
            else:
                hint = get_args(hint)[0]
                value = value[int(index)]  # type: ignore[index]
                shown += f"[{index}]"
        except (AttributeError, LookupError, TypeError, ValueError):
            return problem
    if missing:
        return f"{shown[1:]} is missing"
    return f"{shown[1:] or 'an event'} must be {wanted(hint)}, not {described(value)}"


def _is_common(field: Field) -> bool:
    return field.wire in ("id", "timestamp")


def _struct_hint(hint: Any) -> Any:
    bare = bare_of(hint)
    if _Time in getattr(hint, "__metadata__", ()):
        return Annotated[datetime, Meta(tz=True)]
    if get_origin(bare) is Sequence:
        return list[_struct_hint(get_args(bare)[0])]  # type: ignore[misc]
    if hint == Object:
        # Raw: the values are skipped over, not built.
        return dict[str, msgspec.Raw]
    if attrs.has(bare):
        return struct_of(bare)
    return hint


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)
