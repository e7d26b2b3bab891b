"""The options of channel types: how they are written, which of them holds, what is refused."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
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


def built_in(type: str, **changes: Any) -> TypeOptions:
    return attrs.evolve(BUILT_IN_TYPES[type], **changes)


def problems(
    *lines: str, flags: tuple[str, ...] = (), types: str = "", at: Path | None = None
) -> list[tuple[str, str]]:
    if at is not None:
        at.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        load(flags={"types": flags}, environ={"BROKER_TYPES": types}, file=at)
    prefix = f"{at.parent}/" if at else ""
    return [(problem.where.removeprefix(prefix), problem.what) for problem in caught.value.problems]


def test_nobody_named_a_type() -> None:
    config = load(flags={"types": ()}, environ={"BROKER_TYPES": " "}, file=None).config
    assert config == Config()
    assert config.types == BUILT_IN_TYPES
    assert {type: (options.keeps_history, options.slow_policy) for type, options in config.types.items()} == {
        **dict.fromkeys(BUILT_IN_TYPES, (True, "catch_up")),
        **dict.fromkeys(["council_score", "creative_evaluation"], (False, "disconnect")),
    }


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
        "job_progress": built_in("job_progress", validate="event"),
        "alerts": built_in("alerts", validate="event"),
        "x.y": TypeOptions(validate="off"),
        "note": TypeOptions(validate="json"),
        "ai_stream": built_in("ai_stream", validate="event"),
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
        (
            "broker.toml: types.job_progress.colour",
            "is not an option of a channel type; there is validate, "
            "history_length, history_seconds, replay, slow_clients, second_part",
        ),
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


def test_numbers_are_read_from_every_source(file: Path) -> None:
    file.write_text("[types.job_progress]\nhistory_length = 7\nhistory_seconds = 60\n[types.note]\nreplay = 0\n")
    effective = load(
        flags={"types": ("job_progress.history_seconds=1.5", "note.slow_clients=latest")},
        environ={"BROKER_TYPES": "job_progress.history_length=5, job_progress.replay=5,ai_stream.history_seconds=1e3"},
        file=file,
    )
    assert effective.config.types == {
        **BUILT_IN_TYPES,
        "job_progress": TypeOptions(history_length=5, history_seconds=1.5, replay=5),
        "ai_stream": built_in("ai_stream", history_seconds=1000.0),
        "note": TypeOptions(slow_clients="latest"),
    }
    assert [type(value) for value in attrs.astuple(effective.config.types["job_progress"])] == [
        *(str, int, float, int, str, str)
    ]
    lines = show(effective).splitlines()
    assert [line for line in lines if line.startswith(("types.job_progress.", "types.note."))] == [
        'types.job_progress.validate = "json"  # default',
        "types.job_progress.history_length = 5  # environment BROKER_TYPES",
        "types.job_progress.history_seconds = 1.5  # flag --type",
        "types.job_progress.replay = 5  # environment BROKER_TYPES",
        'types.job_progress.slow_clients = "auto"  # default',
        'types.job_progress.second_part = "id"  # default',
        'types.note.validate = "json"  # default',
        "types.note.history_length = 0  # default",
        "types.note.history_seconds = 0.0  # default",
        f"types.note.replay = 0  # {file}",
        'types.note.slow_clients = "latest"  # flag --type',
        'types.note.second_part = "id"  # default',
    ]


def test_numbers_that_are_none_or_out_of_bounds(file: Path) -> None:
    assert problems(
        "[types.alerts]",
        "history_length = 1.5",
        "history_seconds = '60'",
        "replay = true",
        "slow_clients = 'drop'",
        "[types.note]",
        "history_length = 100001",
        "history_seconds = 31622400.5",
        "replay = -1",
        at=file,
        flags=("memo.history_length=1e3", "memo.history_seconds=long"),
        types="memo.replay=,memo.history_seconds=-0.5",
    ) == [
        ("flag --type memo.history_length", "must be a whole number such as 0, not the text '1e3'"),
        ("flag --type memo.history_seconds", "must be a number such as 0.0, not the text 'long'"),
        ("environment BROKER_TYPES memo.replay", "must be a whole number such as 0, not the text ''"),
        ("environment BROKER_TYPES memo.history_seconds", "-0.5 is out of bounds; write 0.0 to 31622400.0"),
        ("broker.toml: types.alerts.history_length", "must be a whole number such as 0, not 1.5"),
        ("broker.toml: types.alerts.history_seconds", "must be a number such as 0.0, not the text '60'"),
        ("broker.toml: types.alerts.replay", "must be a whole number such as 0, not true"),
        (
            "broker.toml: types.alerts.slow_clients",
            "'drop' is not known; write one of auto, disconnect, drop_oldest, latest, catch_up",
        ),
        ("broker.toml: types.note.history_length", "100001 is out of bounds; write 0 to 100000"),
        ("broker.toml: types.note.history_seconds", "31622400.5 is out of bounds; write 0.0 to 31622400.0"),
        ("broker.toml: types.note.replay", "-1 is out of bounds; write 0 to 100000"),
    ]


@pytest.mark.parametrize(
    ("options", "wrong", "what"),
    [
        (
            ("note.history_length=5",),
            "note.history_length",
            "keeps nothing without history_seconds, which is 0 (default); set that too, or this to 0",
        ),
        (
            ("note.history_seconds=60",),
            "note.history_seconds",
            "keeps nothing without history_length, which is 0 (default); set that too, or this to 0",
        ),
        (
            ("note.history_length=5", "note.history_seconds=0", "note.replay=9", "note.slow_clients=catch_up"),
            "note.history_seconds",
            "0 keeps nothing, but there is types.note.history_length, which is 5 (flag --type); "
            "raise this, or set that to 0 too",
        ),
        (
            ("alerts.history_length=0", "alerts.history_seconds=60"),
            "alerts.history_length",
            "0 keeps nothing, but there is types.alerts.history_seconds, which is 60.0 (flag --type); "
            "raise this, or set that to 0 too",
        ),
        (
            ("note.replay=1",),
            "note.replay",
            "1, but the type has no history to replay; set history_length and history_seconds, or this to 0",
        ),
        (
            ("alerts.history_length=0", "alerts.replay=1"),
            "alerts.replay",
            "1, but the type has no history to replay; set history_length and history_seconds, or this to 0",
        ),
        (
            ("note.slow_clients=catch_up",),
            "note.slow_clients",
            "catch_up, but the type has no history to read; set history_length and history_seconds, "
            "or write another policy",
        ),
        (
            ("alerts.slow_clients=catch_up", "alerts.history_seconds=0"),
            "alerts.slow_clients",
            "catch_up, but the type has no history to read; set history_length and history_seconds, "
            "or write another policy",
        ),
        (
            ("alerts.replay=101",),
            "alerts.replay",
            "101 is more than types.alerts.history_length, which is 100 (default); lower this or raise that",
        ),
        (
            ("alerts.replay=4", "alerts.history_length=3"),
            "alerts.replay",
            "4 is more than types.alerts.history_length, which is 3 (flag --type); lower this or raise that",
        ),
    ],
)
def test_options_that_contradict_each_other(options: tuple[str, ...], wrong: str, what: str) -> None:
    assert problems(flags=options) == [(f"flag --type {wrong}", what)]


@pytest.mark.parametrize(
    ("options", "keeps_history", "policy"),
    [
        (("job_progress.history_length=0",), False, "disconnect"),
        (("job_progress.history_seconds=0",), False, "disconnect"),
        (("job_progress.history_length=0", "job_progress.history_seconds=0", "job_progress.replay=0"), False, None),
        (("job_progress.history_length=1",), True, "catch_up"),
        (("job_progress.history_length=1", "job_progress.slow_clients=catch_up"), True, "catch_up"),
        (("job_progress.history_length=0", "job_progress.slow_clients=latest"), False, "latest"),
        (("job_progress.replay=100",), True, "catch_up"),
        (("job_progress.history_seconds=0.0001",), True, "catch_up"),
    ],
)
def test_options_that_are_not_given_contradict_nothing(
    options: tuple[str, ...], keeps_history: bool, policy: str | None
) -> None:
    found = load(flags={"types": options}, environ={}, file=None).config.types["job_progress"]
    assert (found.keeps_history, found.slow_policy) == (keeps_history, policy or "disconnect")
    assert not keeps_history or found.history_milliseconds > 0


def test_what_contradicts_across_sources_is_said_where_it_was_given(file: Path) -> None:
    assert problems(
        "[types.note]",
        "history_seconds = 60",
        "[types.'a.b']",
        "history_length = 5",
        "replay = 6",
        "[types.task]",
        "replay = 1",
        at=file,
        flags=("a.b.history_seconds=5", "log.replay=3"),
        types="note.history_length=0",
    ) == [
        (
            "broker.toml: types.'a.b'.replay",
            f'6 is more than types."a.b".history_length, which is 5 ({file}); lower this or raise that',
        ),
        (
            "flag --type log.replay",
            "3, but the type has no history to replay; set history_length and history_seconds, or this to 0",
        ),
        (
            "environment BROKER_TYPES note.history_length",
            f"0 keeps nothing, but there is types.note.history_seconds, which is 60 ({file}); "
            "raise this, or set that to 0 too",
        ),
        (
            "broker.toml: types.task.replay",
            "1, but the type has no history to replay; set history_length and history_seconds, or this to 0",
        ),
    ]


def test_options_of_which_one_is_wrong_or_unread_are_not_compared(file: Path) -> None:
    flags = ("note.history_length=5", "memo.history_length=5")
    assert [where for where, _ in problems("[types.note]", "history_second = 5", at=file, flags=flags)] == [
        "broker.toml: types.note.history_second",
        "flag --type memo.history_length",
    ]
    for text in ("types = 3", "[types.memo", "[types]\n# \udcff"):
        (problem,) = problems(text, at=file, flags=flags)
        assert problem[0].startswith("broker.toml: ")


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
