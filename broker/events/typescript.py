"""The events as TypeScript types, for `broker/browser/events.d.ts`: what a page gets of each.

    python -m broker.events.typescript      writes the file's text to standard output; `make events-types` has it kept

Laws: the classes are the only statement of what an event is; a test compares the file with this. A field may be
missing, or null, exactly where its class lets it be None. Fields beside the declared ones may come, and have no type.
Nothing in the text depends on the machine. Source: `docs/events.md`; TypeScript Handbook, "Discriminated unions".
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Literal, get_args, get_origin

import attrs

from broker.events.registry import EVENT_TYPES
from broker.events.rules import Field, Object, bare_of, fields_of

_WIDTH = 100
_HEAD = """\
// The events that a page can get, as the classes in broker/events/ declare them.
// Written by `make events-types` from those classes: change them, not this file.
//
// A field with `?` may be missing or null. An event may have more fields than its type says:
// producers add what they like. docs/events.md says when each is sent.

/** An object whose fields are the producer's own. */
export type JsonObject = { [name: string]: unknown };
"""
_UNION = """\
/** Any event. Its `type` tells which: `if (event.type === "alert") event.severity`. */
export type BrokerEvent = EventMap[EventType];

/** The `type` of an event. */
export type EventType = keyof EventMap;

/** The event of one type: `EventOf<"alert">`. */
export type EventOf<Type extends EventType> = EventMap[Type];
"""
_RENAMED = {"Error": "ErrorEvent"}
_PLAIN = {bool: "boolean", int: "number", float: "number", str: "string"}
_ATTRIBUTE = re.compile(r" The attribute is [^.]*?(?:, as [^.]*)?\.")
_ARGUMENT = re.compile(r"    (\w+(?:, \w+)*): (.*)")


def event_types_text() -> str:
    """The whole file."""
    every = list(EVENT_TYPES.values())
    inner = dict.fromkeys(found for event_type in every for found in _values_in(event_type))
    names = [f'  "{event_type.type}": {_name(event_type)};' for event_type in every]
    table = ["/** The events by their `type`. */", "export interface EventMap {", *names, "}", ""]
    interfaces = ("\n".join(_interface(value_type)) for value_type in (*inner, *every))
    return "\n".join([_HEAD, *interfaces, "\n".join(table), _UNION])


def _values_in(value_type: Any) -> Iterator[Any]:
    """The classes of the objects inside, the innermost first."""
    for field in fields_of(value_type):
        inner = get_args(field.bare)[0] if get_origin(field.bare) is Sequence else field.bare
        if attrs.has(inner):
            yield from _values_in(inner)
            yield inner


def _interface(value_type: Any) -> Iterator[str]:
    sentences, arguments = _documentation(value_type)
    yield from _comment(sentences, "")
    yield f"export interface {_name(value_type)} {{"
    if hasattr(value_type, "type"):
        yield f'  type: "{value_type.type}";'
    for field in fields_of(value_type):
        yield from _comment(arguments.get(field.attribute, arguments.get(field.argument, "")), "  ")
        yield from _property(field)
    yield "}"
    yield ""


def _property(field: Field) -> Iterator[str]:
    may_be_missing = field.optional or field.instead is not None
    head, choices = f"  {field.wire}{'?' if may_be_missing else ''}:", _choices(field.hint)
    if may_be_missing:
        choices.append("null")
    line = f"{head} {' | '.join(choices)};"
    if len(line) <= _WIDTH:
        yield line
    else:
        yield head
        yield from (f"    | {choice}{';' if choice is choices[-1] else ''}" for choice in choices)


def _choices(hint: Any) -> list[str]:
    """The types that the union of a field has."""
    bare = bare_of(hint)
    if get_origin(bare) is Literal:
        return [f'"{choice}"' for choice in get_args(bare)]
    if get_origin(bare) is Sequence:
        (inner,) = _choices(get_args(bare)[0])
        return [f"{inner}[]"]
    if hint == Object:
        return ["JsonObject"]
    return [_PLAIN.get(bare) or _name(bare)]


def _name(value_type: Any) -> str:
    """That of the class, unless JavaScript has another thing of that name everywhere."""
    return _RENAMED.get(value_type.__name__, str(value_type.__name__))


def _documentation(value_type: Any) -> tuple[str, dict[str, str]]:
    """What the class says of itself, and of its fields; without what only concerns Python."""
    sentences: list[str] = []
    arguments: dict[str, str] = {}
    named: tuple[str, ...] = ()
    is_listing = False
    wires = {field.attribute: field.wire for field in fields_of(value_type)}
    for line in inspect.cleandoc(value_type.__doc__).splitlines():
        match = _ARGUMENT.fullmatch(line) if is_listing else None
        if line == "Args:":
            is_listing = True
        elif match:
            named = tuple(match[1].split(", "))
            arguments.update(dict.fromkeys(named, _as_wire(match[2], wires)))
        elif is_listing and line.startswith("        "):
            arguments.update({name: _as_wire(f"{arguments[name]} {line.strip()}", wires) for name in named})
        elif line.strip():
            is_listing = False
            sentences.append(line.strip())
    return _as_wire(" ".join(sentences), wires), arguments


def _as_wire(text: str, wires: dict[str, str]) -> str:
    """A sentence about Python as one about JSON."""
    text = _ATTRIBUTE.sub("", text)
    for attribute, wire in wires.items():
        text = text.replace(f"`{attribute}`", f"`{wire}`")
    return re.sub(r"\bNone\b", "null", text)


def _comment(text: str, indent: str) -> Iterator[str]:
    """Documentation as JSDoc. Nothing for nothing."""
    if not text:
        return
    text = text.replace("*/", "* /")
    text = text[0].upper() + text[1:]
    if len(line := f"{indent}/** {text} */") <= _WIDTH:
        yield line
        return
    yield f"{indent}/**"
    for line in textwrap.wrap(text, _WIDTH - len(indent) - 3, break_long_words=False, break_on_hyphens=False):
        yield f"{indent} * {line}"
    yield f"{indent} */"


if __name__ == "__main__":
    sys.stdout.write(event_types_text())
