"""JSON Schema (draft 2020-12) of the events, from the structs that check them.

Laws: what the schema accepts, `check` accepts, and the other way round, but for two things that JSON
Schema cannot say: that an integer is written without a point, and (where a validator does not look at
formats) what a time is. Fields beside the declared ones are allowed. The `$id`s are stable.

Source: JSON Schema 2020-12; `docs/events.md`.
"""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from broker.events.registry import EVENT_TYPES
from broker.events.rules import fields_of, struct_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def event_schema(type: str) -> dict[str, Any]:
    """The schema of one type of event. A type that is not in `EVENT_TYPES` is a KeyError."""
    event_type = EVENT_TYPES[type]
    definitions = definitions_of([event_type], "#/$defs/")
    schema = {"$schema": DIALECT, "$id": f"urn:broker:event:{type}", **definitions.pop(event_type.__name__)}
    return {**schema, "$defs": definitions} if definitions else schema


def every_event_schema() -> dict[str, Any]:
    """One schema that accepts every event. `discriminator` is for generators of code; validators pass over it."""
    names = {type: f"#/$defs/{event_type.__name__}" for type, event_type in EVENT_TYPES.items()}
    return {
        "$schema": DIALECT,
        "$id": "urn:broker:events",
        "title": "Event",
        "oneOf": [{"$ref": reference} for reference in names.values()],
        "discriminator": {"propertyName": "type", "mapping": names},
        "$defs": definitions_of(list(EVENT_TYPES.values()), "#/$defs/"),
    }


def definitions_of(value_types: list[Any], prefix: str) -> dict[str, Any]:
    """Schemas by the name of the class, of these classes and the objects inside them.

    Args:
        prefix: where a reference finds the others, such as `#/$defs/`.
    """
    _, definitions = msgspec.json.schema_components(map(struct_of, value_types), ref_template=prefix + "{name}")
    found: dict[str, Any] = {}
    for value_type in value_types:
        for inner in _classes_in(value_type):
            found[inner.__name__] = _finished(definitions[inner.__name__], inner)
    return found


def _classes_in(value_type: Any) -> list[Any]:
    inner = [field.bare for field in fields_of(value_type)]
    inner = [hint if attrs.has(hint) else (getattr(hint, "__args__", None) or [None])[0] for hint in inner]
    return [value_type, *(found for hint in inner if attrs.has(hint) for found in _classes_in(hint))]


def _finished(definition: dict[str, Any], value_type: Any) -> dict[str, Any]:
    """What msgspec wrote, with the type as a constant, and one sentence about the class instead of its docstring."""
    sentence = " ".join(value_type.__doc__.split("\n\n")[0].split())
    properties = dict(definition["properties"])
    if "type" in properties and hasattr(value_type, "type"):
        properties["type"] = {"const": value_type.type}
    definition = {**definition, "description": sentence, "properties": properties}
    for field in fields_of(value_type):
        if field.instead is not None:
            definition["anyOf"] = [
                {"required": [name], "properties": {name: {"type": "string"}}} for name in (field.wire, field.instead)
            ]
    return definition
