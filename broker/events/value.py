"""A value: what an event and each object inside one have in common.

Laws: a value that was built, or decoded, is valid, and encodes to JSON that decodes to an equal
value. What is checked when a value is built is its encoded bytes, with the decoder that reads what
others published: one set of rules. Fields that no class declares are kept in `extra`.

Source: `docs/events.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar, dataclass_transform, get_args, get_origin

import msgspec
from attrs import field, frozen

from broker.errors import EventError
from broker.events.plain import Plain, plain_json, plain_of
from broker.events.rules import Field, described, explained, fields_of, struct_of

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_set = object.__setattr__

_T = TypeVar("_T")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
def value_class(cls: type[_T]) -> type[_T]:
    """A frozen attrs class with arguments by keyword. `Value` has its equality, hash and repr.

    Not written by attrs for each class: with those it takes 20 ms more to import the events.
    """
    return frozen(cls, kw_only=True, eq=False, repr=False, match_args=False)


@value_class
class Value:
    """An object on the wire.

    Args:
        extra: fields beside the declared ones, by their names on the wire. They are encoded beside them.
    """

    extra: Mapping[str, object] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        """Make every field plain JSON, then check what goes over the wire.

        Raises:
            EventError: a field that is not what its annotation says; names it and its value.
        """
        plan = _plan_of(self)
        for step in plan.steps:
            value = getattr(self, step.attribute)
            if value is not None:
                _set(self, step.attribute, step.plain(value, step.where))
        if type(self.extra) is not dict or self.extra:
            _set(self, "extra", plan.extra(self.extra))
        self._fill()
        payload = self._payload()
        try:
            plan.examine(payload)
        except msgspec.ValidationError as error:
            why = explained(str(error), _decode(payload), self.__class__, as_arguments=True)
            raise EventError(f"{plan.label}: {why}") from None

    def __eq__(self, other: object) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        assert isinstance(other, Value)
        return self._content() == other._content() and self.extra == other.extra

    def __hash__(self) -> int:
        # Open objects are left out: they are dicts.
        return hash((self.__class__, *(value for value in self._content() if not isinstance(value, dict))))

    def __repr__(self) -> str:
        shown = [(step.argument, getattr(self, step.attribute)) for step in _plan_of(self).steps]
        shown.append(("extra", self.extra or None))
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in shown if value is not None)})"

    def _content(self) -> list[object]:
        return [getattr(self, step.attribute) for step in _plan_of(self).steps]

    def _fill(self) -> None:
        """Fill what was not given."""

    def _payload(self) -> bytes:
        try:
            return _encode(self._wire())
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise EventError(f"{_plan_of(self).label}: cannot be JSON: {error}") from None

    def _wire(self) -> dict[str, object]:
        """The JSON object. What is None is left out."""
        found: dict[str, object] = {}
        for step in _plan_of(self).steps:
            value = getattr(self, step.attribute)
            if value is None:
                continue
            if isinstance(value, Value):
                value = value._wire()
            elif isinstance(value, tuple):
                value = [item._wire() for item in value]
            found[step.wire] = value
        if self.extra:
            found.update(self.extra)
        return found

    @classmethod
    def _from_wire(cls, wire: Mapping[str, Any]) -> Self:
        """The value of a JSON object that was checked already."""
        value = object.__new__(cls)
        plan = _plan_of(value)
        for step in plan.steps:
            found = wire.get(step.wire)
            if found is None and step.instead is not None:
                found = wire[step.instead]
            if found is not None and step.read is not None:
                found = step.read(found)
            _set(value, step.attribute, found)
        _set(value, "extra", {name: found for name, found in wire.items() if name not in plan.names})
        return value


@frozen
class _Step:
    """What is done with one field.

    Args:
        argument: what the constructor calls it.
        where: how an error calls it, when a value is built.
        plain: makes what the caller gave plain JSON, or raises.
        read: makes what was decoded the attribute; None where it is already.
    """

    attribute: str
    argument: str
    wire: str
    instead: str | None
    where: str
    plain: Plain
    read: Callable[[Any], object] | None


@frozen
class _Plan:
    """What is done with the fields of one class."""

    label: str
    steps: tuple[_Step, ...]
    names: frozenset[str]
    examine: Callable[[bytes], object]

    def extra(self, given: object) -> dict[str, object]:
        found = plain_json(given, f"{self.label}: extra")
        if not isinstance(found, dict):
            raise EventError(f"{self.label}: extra must be an object, not {described(given)}")
        for name in found:
            if name in self.names:
                raise EventError(f"{self.label}: extra has {name}, which is declared: use its own argument")
        return found


_plans: dict[object, _Plan] = {}


def _plan_of(value: Value) -> _Plan:
    """Made once for each class, when the first value of it is."""
    value_type = value.__class__
    plan = _plans.get(value_type)
    if plan is None:
        plan = _plans[value_type] = _make_plan(value_type)
    return plan


def _make_plan(value_type: Any) -> _Plan:
    is_event = hasattr(value_type, "type")
    label = value_type.type if is_event else value_type.__name__
    fields = fields_of(value_type)
    return _Plan(
        label,
        tuple(
            _Step(
                entry.attribute,
                entry.argument,
                entry.wire,
                entry.instead,
                f"{label}: {entry.argument}",
                plain_of(entry.hint),
                _reader(entry),
            )
            for entry in fields
        ),
        frozenset(entry.wire for entry in fields) | ({"type"} if is_event else set()),
        msgspec.json.Decoder(struct_of(value_type)).decode,
    )


def _reader(entry: Field) -> Callable[[Any], object] | None:
    bare = entry.bare
    if bare is float:
        return float  # JSON may have written 1
    if get_origin(bare) is Sequence:
        inner = get_args(bare)[0]._from_wire
        return lambda items: tuple(map(inner, items))
    if isinstance(bare, type) and issubclass(bare, Value):
        return bare._from_wire
    return None
