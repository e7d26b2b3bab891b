"""The options of channel types: how they are written, which of them holds, what is refused."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.assignment import Assignment
from broker.config.document import show
from broker.config.names import type_setting
from broker.config.sections import Channels, Config
from broker.config.sources import load
from broker.config.types import BUILT_IN_TYPES, TypeOptions
from broker.errors import ConfigError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "broker.toml"


def problems(
    *lines: str, flags: tuple[str, ...] = (), types: str = "", at: Path | None = None
) -> list[tuple[str, str]]:
    if at is not None:
        at.write_text("\n".join(lines))
    with pytest.raises(ConfigError) as caught:
        load(flags={"types": flags}, environ={"BROKER_TYPES": types}, file=at)
    prefix = f"{at.parent}/" if at else ""
    return [(problem.where.removeprefix(prefix), problem.what) for problem in caught.value.problems]


def test_nobody_named_a_type() -> None:
    config = load(flags={"types": ()}, environ={"BROKER_TYPES": " "}, file=None).config
    assert config == Config()
    assert config.types == BUILT_IN_TYPES == dict.fromkeys(BUILT_IN_TYPES, TypeOptions(validate="json"))


def test_a_flag_wins_over_the_environment_over_the_file_for_each_type(file: Path) -> None:
    file.write_text(
        "[types.job_progress]\nvalidate = 'off'\n[types.alerts]\nvalidate = 'off'\n[types.note]\n"
        "[types.ai_stream]\nvalidate = 'event'\n[types.'a.b=c']\nvalidate = 'off'\n"
    )
    effective = load(
        flags={"types": ("job_progress.validate=event",)},
        environ={"BROKER_TYPES": "job_progress.validate=json, alerts.validate=event,x.y.validate=off"},
        file=file,
    )
    assert effective.config.types == {
        **BUILT_IN_TYPES,
        "job_progress": TypeOptions(validate="event"),
        "alerts": TypeOptions(validate="event"),
        "x.y": TypeOptions(validate="off"),
        "note": TypeOptions(validate="json"),
        "ai_stream": TypeOptions(validate="event"),
        "a.b=c": TypeOptions(validate="off"),
    }
    changed = {name: origin for name, origin in effective.origins.items() if origin != "default"}
    assert changed == {
        "types.job_progress.validate": "flag --type",
        "types.alerts.validate": "environment BROKER_TYPES",
        "types.ai_stream.validate": str(file),
        'types."x.y".validate': "environment BROKER_TYPES",
        'types."a.b=c".validate': str(file),
    }
    assert effective.origins["types.note.validate"] == "default"
    assert [line for line in show(effective).splitlines() if line.startswith("types.") and "default" not in line] == [
        'types.job_progress.validate = "event"  # flag --type',
        f'types.ai_stream.validate = "event"  # {file}',
        'types.alerts.validate = "event"  # environment BROKER_TYPES',
        'types."x.y".validate = "off"  # environment BROKER_TYPES',
        f'types."a.b=c".validate = "off"  # {file}',
    ]


def test_what_is_declared() -> None:
    config = load(
        flags={"types": ("note.validate=off",), "channels.declared": ("task", "note")}, environ={}, file=None
    ).config
    assert config.channels == Channels(declared=("task", "note"))
    assert config.declared_types == {
        **BUILT_IN_TYPES,
        "note": TypeOptions(validate="off"),
        "task": TypeOptions(validate="json"),
    }


def test_everything_wrong_with_the_tables_is_said_at_once(file: Path) -> None:
    assert problems(
        "[type.job_progress]",
        "[types]",
        "validate = 'event'",
        "[types.job_progress]",
        "validat = 1",
        "colour = 3",
        "[types.alerts]",
        "validate = 'evnt'",
        "[types.'job_progress:42']",
        "validate = 4",
        "[types.'a b']",
        "[channels]",
        "validate = 'off'",
        at=file,
    ) == [
        ("broker.toml: type", "is not a section; did you mean types?"),
        (
            "broker.toml: types.validate",
            "must be the table of a channel type, such as [types.job_progress], not the text 'event'",
        ),
        ("broker.toml: types.job_progress.validat", "is not an option of a channel type; did you mean validate?"),
        ("broker.toml: types.job_progress.colour", "is not an option of a channel type; there is validate"),
        ("broker.toml: types.alerts.validate", "'evnt' is not known; write one of off, json, event"),
        (
            "broker.toml: types.'job_progress:42'",
            "'job_progress:42' is more than a type; write the part before the first colon",
        ),
        ("broker.toml: types.'job_progress:42'.validate", "must be text in double quotes, not 4"),
        (
            "broker.toml: types.'a b'",
            "channel 'a b' has a character that is not allowed; use letters, digits and _ - . @ = + ~",
        ),
        (
            "broker.toml: channels.validate",
            "is not a setting; it belongs to a channel type: write it under a header such as [types.job_progress]",
        ),
    ]


def test_types_that_are_no_tables(file: Path) -> None:
    assert problems("types = 3", at=file) == [
        ("broker.toml: types", "must be a table for each type, such as [types.job_progress], not 3")
    ]
    assert problems("validate = 'off'", at=file) == [
        (
            "broker.toml: validate",
            "is not a setting; it belongs to a channel type: write it under a header such as [types.job_progress]",
        )
    ]


def test_everything_wrong_with_flags_and_the_variable_is_said_at_once() -> None:
    assert problems(
        flags=("job_progress=event", "a:1.validate=off", "alerts.validate=off", "alerts.validate=json"),
        types="job_progress.validate=event,, x.valdate=off,redis://:hunter2@db",
    ) == [
        ("flag --type", "'job_progress=event' is not TYPE.KEY=VALUE; write it such as job_progress.validate=event"),
        ("flag --type alerts.validate", "is given twice; leave one of them out"),
        ("environment BROKER_TYPES", "'' is not TYPE.KEY=VALUE; write it such as job_progress.validate=event"),
        (
            "environment BROKER_TYPES",
            "'redis://:***@db' is not TYPE.KEY=VALUE; write it such as job_progress.validate=event",
        ),
        ("flag --type 'a:1'", "'a:1' is more than a type; write the part before the first colon"),
        ("environment BROKER_TYPES x.valdate", "is not an option of a channel type; did you mean validate?"),
    ]


def test_a_misspelt_variable() -> None:
    with pytest.raises(ConfigError, match="did you mean BROKER_TYPES"):
        load(flags={}, environ={"BROKER_TYPE": "x"}, file=None)


@pytest.mark.parametrize(
    ("line", "read"),
    [
        ("a.validate=off", ("a", "validate", "off")),
        (" a.validate = off ", ("a", "validate", "off")),
        ("a.b.validate=off", ("a.b", "validate", "off")),
        ("a=b.validate=off", ("a=b", "validate", "off")),
        ("a.validate=b.validate=", ("a.validate=b", "validate", "")),
        ("..x=y", (".", "x", "y")),
    ],
)
def test_assignments(line: str, read: tuple[str, str, str]) -> None:
    assert Assignment.parse(line) == Assignment(*read)


TYPES = st.text(st.sampled_from("ab_-.@=+~"), min_size=1)


@given(st.dictionaries(TYPES, st.sampled_from(["off", "json", "event"])))
def test_every_type_can_be_written_in_every_source(types: Mapping[str, str]) -> None:
    lines = tuple(f"{type}.validate={value}" for type, value in types.items())
    expected = {**BUILT_IN_TYPES, **{type: TypeOptions(validate=value) for type, value in types.items()}}
    assert load(flags={"types": lines}, environ={}, file=None).config.types == expected
    assert load(flags={}, environ={"BROKER_TYPES": ",".join(lines)}, file=None).config.types == expected
    for type, value in types.items():
        written = tomllib.loads(f'{type_setting(type, "validate")} = "{value}"')
        assert written == {"types": {type: {"validate": value}}}
