"""The schemas say what `check` says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from broker.cli import group
from broker.events import EVENT_TYPES, check
from broker.events.schema import event_schema, every_event_schema
from tests.events.examples import BY_TYPE, EXAMPLES, Example

VALIDATORS = {type: Draft202012Validator(event_schema(type)) for type in EVENT_TYPES}
EVERY = Draft202012Validator(every_event_schema())
# No floats such as 1.0: JSON Schema calls them integers. No times: a validator need not look at formats.
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.sampled_from([0.5, -0.5, 2.5]) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def printed(*arguments: str) -> Any:
    done = CliRunner().invoke(group, ["schema", *arguments])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


@pytest.mark.parametrize("type", EVENT_TYPES)
def test_a_schema_of_each_event_is_valid_and_printed(type: str) -> None:
    schema = printed(type)
    Draft202012Validator.check_schema(schema)
    assert schema == event_schema(type)
    assert schema["$id"] == f"urn:broker:event:{type}"
    assert schema["properties"]["type"] == {"const": type}
    assert set(schema["required"]) == {"type", "timestamp", *BY_TYPE[type].required} - (
        {"message"} if type == "error" else set()
    )


def test_one_schema_of_all() -> None:
    schema = printed()
    Draft202012Validator.check_schema(schema)
    assert schema == every_event_schema()
    assert schema["$id"] == "urn:broker:events"
    assert len(schema["oneOf"]) == len(EXAMPLES)
    assert all(reference in [each["$ref"] for each in schema["oneOf"]] for reference in _references(schema["oneOf"]))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.event_type.type)
def test_good_and_bad_events(example: Example) -> None:
    type = example.event_type.type
    assert list(VALIDATORS[type].iter_errors(example.whole_wire)) == []
    assert list(EVERY.iter_errors(example.whole_wire)) == []
    assert [name for name, validator in VALIDATORS.items() if validator.is_valid(example.whole_wire)] == [type]
    for name in (*example.required, "timestamp", "type"):
        wire = example.whole_wire
        del wire[name]
        assert not VALIDATORS[type].is_valid(wire)
        assert not EVERY.is_valid(wire)


@pytest.mark.parametrize(
    ("type", "changes"),
    [
        ("job_progress", {"status": "done"}),
        ("job_progress", {"progress": 1.01}),
        ("job_progress", {"jobId": ""}),
        ("alert", {"actions": [{"label": "a"}]}),
        ("campaign_metrics", {"metrics": {"clicks": 1}}),
        ("council_score_stream", {"finalScore": {"composite": 1}}),
        ("ai_evaluation_stream", {"error": ["x"]}),
        ("error", {"message": None}),
    ],
)
def test_bad_fields(type: str, changes: dict[str, Any]) -> None:
    wire = BY_TYPE[type].whole_wire | changes
    assert not VALIDATORS[type].is_valid(wire)
    assert check(json.dumps(wire).encode()) is not None


@given(st.sampled_from(EXAMPLES), st.data())
def test_the_schema_takes_what_check_takes(example: Example, data: st.DataObject) -> None:
    wire = json.loads(json.dumps(example.whole_wire))
    wire["id"] = "x"
    paths = [path for path in _paths(wire) if path[-1] not in ("timestamp", "serverTime", "type")]
    holder = wire
    path = data.draw(st.sampled_from(paths))
    for step in path[:-1]:
        holder = holder[step]
    if data.draw(st.booleans()):
        holder[path[-1]] = data.draw(JSON)
    else:
        del holder[path[-1]]
    why = check(json.dumps(wire).encode())
    assert VALIDATORS[example.event_type.type].is_valid(wire) == (why is None), why
    assert EVERY.is_valid(wire) == (why is None)


def test_an_unknown_type_lists_the_known_ones() -> None:
    done = CliRunner().invoke(group, ["schema", "shout"])
    assert done.exit_code == 2
    assert all(type in done.output for type in EVENT_TYPES)


def _references(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        for name, value in document.items():
            if name == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(document, list):
        for value in document:
            yield from _references(value)


def _paths(value: Any) -> Iterator[tuple[Any, ...]]:
    """The way to every field of every object in `value`."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        if isinstance(value, dict):
            yield (step,)
        for path in _paths(inner):
            yield (step, *path)
