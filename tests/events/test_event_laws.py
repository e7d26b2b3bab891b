"""Laws over all events: there and back again, one set of rules, and nothing but EventError."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import EventError
from broker.events import EVENT_TYPES, Event, check, decode
from broker.events.rules import Name, Object, Progress, Timestamp, fields_of
from tests.events.examples import EXAMPLES

# Text as Python has it, half surrogate pairs too: what the factory takes of it must come back.
TEXT = st.text(max_size=20) | st.text(max_size=20) | st.text(st.characters(exclude_categories=[]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=3)
TIMES = st.datetimes(timezones=st.timezones()).map(lambda time: time.isoformat())


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values for a field, most of them good."""
    if hint is Timestamp:
        return TIMES
    if hint is Progress:
        return st.floats(0, 1) | st.integers(0, 1)
    if hint is Name:
        return st.text(min_size=1, max_size=20) | st.text(min_size=1, max_size=20) | TEXT
    if hint == Object:
        return OBJECT
    if get_origin(hint) is Literal:
        return st.sampled_from(get_args(hint))
    if get_origin(hint) is Sequence:
        return st.lists(values(get_args(hint)[0]), max_size=3)
    if attrs.has(hint):
        return arguments(hint).map(lambda given: build(hint, given))
    return {
        str: TEXT,
        bool: st.booleans(),
        int: st.integers(),
        float: st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.floats(),
    }[hint]


def arguments(value_type: Any) -> st.SearchStrategy[dict[str, Any]]:
    fields = {field.argument: values(field.hint) for field in fields_of(value_type)}
    optional = {field.argument for field in fields_of(value_type) if field.optional} | {"timestamp", "alert_id"}
    return st.fixed_dictionaries(
        {name: strategy for name, strategy in fields.items() if name not in optional},
        optional={name: strategy for name, strategy in fields.items() if name in optional} | {"extra": OBJECT},
    )


def build(value_type: Any, given: dict[str, Any]) -> Any:
    """The value, or None where the factory refuses."""
    try:
        return value_type(**given)
    except EventError as error:
        assert len(str(error)) < 400
        return None


@pytest.mark.parametrize("event_type", EVENT_TYPES.values())
def test_what_a_factory_takes_comes_back_equal(event_type: type[Event]) -> None:
    taken = 0

    @settings(max_examples=50)
    @given(arguments(event_type))
    def there_and_back(given: dict[str, Any]) -> None:
        nonlocal taken
        event = build(event_type, given)
        if event is None:
            return
        taken += 1
        payload = event.encode()
        assert check(payload) is None
        again = decode(payload)
        assert again == event
        assert again.encode() == payload
        assert json.loads(payload) == json.loads(again.encode())

    there_and_back()
    assert taken > 0


@given(st.sampled_from(EXAMPLES), st.dictionaries(st.text(max_size=8), JSON, max_size=3), st.data())
def test_arbitrary_changes_of_an_event(example: Any, more: dict[str, Any], data: st.DataObject) -> None:
    wire = example.whole_wire | more
    changed = data.draw(st.dictionaries(st.sampled_from(sorted(wire)), JSON, max_size=2))
    agree(json.dumps(wire | changed))


@given(JSON | st.builds(lambda type, rest: {**rest, "type": type}, st.sampled_from(list(EVENT_TYPES)), OBJECT))
def test_arbitrary_json(value: Any) -> None:
    agree(json.dumps(value))


@given(st.sampled_from(EXAMPLES), st.data())
def test_arbitrary_damage(example: Any, data: st.DataObject) -> None:
    payload = bytearray(json.dumps(example.whole_wire).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    agree(bytes(payload))


@given(st.binary(max_size=60))
def test_arbitrary_bytes(payload: bytes) -> None:
    assert check(payload) is not None
    agree(payload)


def agree(payload: str | bytes) -> None:
    """`decode` takes what `check` takes, but for what cannot be built; and what it takes goes there and back."""
    why = check(payload.encode() if isinstance(payload, str) else payload)
    try:
        event = decode(payload)
    except EventError as error:
        assert len(str(error)) < 400
        assert why == str(error) or (why is None and str(error).startswith("not JSON that can be read: "))
    else:
        assert why is None
        assert decode(event.encode()) == event
