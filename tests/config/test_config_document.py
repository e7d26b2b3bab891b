"""What the settings are written down as: the file, the table, what is in force."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.agreement import disagreements
from broker.config.document import markdown_table, show, toml_document
from broker.config.names import SECTIONS, SETTINGS, TYPE_OPTIONS, bounds, flag, section_field, variable
from broker.config.secret import mask_url, shown
from broker.config.sections import Config
from broker.config.sources import load
from broker.config.types import BUILT_IN_TYPES, TypeOptions

ROOT = Path(__file__).parents[2]
MARKER = "<!-- generated: broker config table -->\n"
SETTING_LINE = re.compile(r"# ([a-z_]+ = )")
TYPE_SETTINGS = [f"types.{type}.{key}" for type in BUILT_IN_TYPES for key in TYPE_OPTIONS]
DEFAULTS = {
    section: {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in attrs.asdict(getattr(Config(), section_field(section))).items()
    }
    for section in SECTIONS
}
TYPES = {type: attrs.asdict(options) for type, options in BUILT_IN_TYPES.items()}
ANYWHERE = dict.fromkeys([*SETTINGS, *TYPE_SETTINGS], "somewhere")
LINES = toml_document().split("\n")
SETTING_LINES = [number for number, line in enumerate(LINES) if SETTING_LINE.match(line)]


def uncommented(numbers: set[int]) -> str:
    return "\n".join(line.removeprefix("# ") if number in numbers else line for number, line in enumerate(LINES))


def read(text: str) -> dict[str, Any]:
    """The sections of a file, with `[listen.tls]` beside `[listen]`."""
    document = tomllib.loads(text)
    document["listen.tls"] = document["listen"].pop("tls")
    return document


def test_the_file_as_shipped_changes_nothing() -> None:
    assert read(toml_document()) == {
        **{section: {} for section in DEFAULTS},
        "types": {type: {} for type in TYPES},
    }


def test_the_file_has_a_line_for_every_setting() -> None:
    assert len(SETTING_LINES) == len(SETTINGS) + len(TYPE_SETTINGS)
    assert read(uncommented(set(SETTING_LINES))) == {**DEFAULTS, "types": TYPES}


@given(st.sets(st.sampled_from(SETTING_LINES)))
def test_any_lines_uncommented_are_the_defaults(numbers: set[int]) -> None:
    document = read(uncommented(numbers))
    types = document.pop("types")
    assert all(TYPES[type][key] == value for type, body in types.items() for key, value in body.items())
    assert sum(map(len, types.values())) + sum(map(len, document.values())) == len(numbers)
    assert all(DEFAULTS[section][key] == value for section, body in document.items() for key, value in body.items())
    # What is given as it is by default contradicts nothing.
    assert list(disagreements({**document, "types": types}, ANYWHERE, ())) == []


def test_every_line_uncommented_loads_as_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "broker.toml"
    file.write_text(uncommented(set(SETTING_LINES)))
    effective = load(flags={}, environ={}, file=file)
    assert effective.config == Config()
    assert effective.origins == dict.fromkeys([*SETTINGS, *TYPE_SETTINGS], str(file))


def test_a_setting_is_explained_above_its_line() -> None:
    number = LINES.index("# port = 6399")
    assert LINES[number - 5 : number + 1] == [
        "# The Valkey that comes with the broker, used where no Redis is configured.",
        "[embedded]",
        "",
        "# Its port on 127.0.0.1, for services to publish to; the next free one if taken. 1 to 65535.",
        "# Environment: BROKER_EMBEDDED_PORT",
        "# port = 6399",
    ]


def test_conf_is_what_the_code_generates() -> None:
    assert (ROOT / "conf/broker.toml").read_text() == toml_document(), "run: broker config defaults > conf/broker.toml"


def test_docs_end_with_what_the_code_generates() -> None:
    before, marker, table = (ROOT / "docs/settings.md").read_text().partition(MARKER)
    assert before and marker
    assert table == markdown_table(), "put the output of `broker config table` below the marker in docs/settings.md"


def test_the_example_in_docs_is_right(tmp_path: Path) -> None:
    text = (ROOT / "docs/settings.md").read_text()
    (example,) = re.findall(r"(?m)^    \[types\.\w+\]\n(?:(?:    .*)?\n)+", text)
    file = tmp_path / "broker.toml"
    file.write_text(example.replace("\n    ", "\n").strip())
    types = load(flags={}, environ={}, file=file).config.types
    assert {type: options for type, options in types.items() if options != BUILT_IN_TYPES.get(type)} == {
        "job_progress": TypeOptions(history_length=500, history_seconds=86400.0, replay=1),
        "gauges": TypeOptions(slow_clients="latest"),
    }


def test_the_table_of_a_section() -> None:
    section = markdown_table().partition("## [log]\n")[2].partition("\n## ")[0]
    assert section == (
        "\n"
        "What the daemon writes to standard error.\n"
        "\n"
        "| Setting | Default | Environment variable | Meaning |\n"
        "| --- | --- | --- | --- |\n"
        '| `log.requests` | `"off"` | `BROKER_LOG_REQUESTS` | on: a line for every request and stream when it is over, '
        "tokens masked. One of off, on. |\n"
        '| `log.level` | `"info"` | `BROKER_LOG_LEVEL` | The least level that is written. '
        "One of debug, info, warning, error. |\n"
        '| `log.format` | `"auto"` | `BROKER_LOG_FORMAT` | text, json, or auto: text on a terminal, else JSON lines. '
        "One of auto, text, json. |\n"
    )


def test_the_tables_of_types() -> None:
    section = markdown_table().partition("## [types]\n")[2]
    assert section.startswith("\nWhat each channel type is served with. ")
    assert '\n| `types.TYPE.validate` | `"json"` | What an event from Redis is checked for: off, ' in section
    assert "\n| `types.TYPE.history_length` | `0` | How many past events of each channel are kept, " in section
    assert re.search(r"\n\| `types.TYPE.history_seconds` \| `0.0` \| .* 0.0 to 31622400.0. \|\n", section)
    _, columns, built_in = section.partition(
        "\n| Type | `validate` | `history_length` | `history_seconds` | `replay` | `slow_clients` | "
        "`second_part` |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n"
    )
    assert columns
    assert built_in.splitlines() == [
        '| `job_progress` | `"json"` | `100` | `3600.0` | `1` | `"auto"` | `"id"` |',
        '| `video_render` | `"json"` | `100` | `3600.0` | `1` | `"auto"` | `"id"` |',
        '| `ai_stream` | `"json"` | `1000` | `900.0` | `0` | `"auto"` | `"id"` |',
        '| `campaign_metrics` | `"json"` | `100` | `3600.0` | `1` | `"auto"` | `"id"` |',
        '| `ab_test_results` | `"json"` | `100` | `3600.0` | `1` | `"auto"` | `"id"` |',
        '| `alerts` | `"json"` | `100` | `86400.0` | `0` | `"auto"` | `"user"` |',
        '| `live_metrics` | `"json"` | `100` | `3600.0` | `1` | `"auto"` | `"id"` |',
        '| `council_score` | `"json"` | `0` | `0.0` | `0` | `"auto"` | `"id"` |',
        '| `creative_evaluation` | `"json"` | `0` | `0.0` | `0` | `"auto"` | `"id"` |',
    ]


def test_show_has_a_line_for_every_setting_and_no_password() -> None:
    effective = load(
        flags={"listen.addresses": ("[::1]:0", "unix:/run/b.sock")},
        environ={
            "REDIS_URL": "redis://u:hunter2@db:6379/0",
            "BROKER_CHANNELS_DECLARED": "note,task",
            "BROKER_TYPES": "alerts.history_seconds=1e4,alerts.replay=5",
            "BROKER_AUTH_SECRET": "redis://not/a/URL?but=all@secret",
            "BROKER_AUTH_ADMIN_KEYS": f"ops:{'0' * 64}",
        },
        file=None,
    )
    lines = show(effective).splitlines()
    assert [line.partition(" = ")[0] for line in lines] == [*SETTINGS, *TYPE_SETTINGS]
    assert [line for line in lines if not line.endswith("  # default")] == [
        'listen.addresses = ["[::1]:0", "unix:/run/b.sock"]  # flag --listen',
        'auth.secret = "***"  # environment BROKER_AUTH_SECRET',
        'auth.admin_keys = ["ops:***"]  # environment BROKER_AUTH_ADMIN_KEYS',
        'redis.url = "redis://u:***@db:6379/0"  # environment REDIS_URL',
        'channels.declared = ["note", "task"]  # environment BROKER_CHANNELS_DECLARED',
        "types.alerts.history_seconds = 10000.0  # environment BROKER_TYPES",
        "types.alerts.replay = 5  # environment BROKER_TYPES",
    ]
    assert "clients.outbox_max_bytes = 1048576  # default" in lines


def test_names_of_a_setting() -> None:
    assert (variable("redis.channel_prefix"), flag("redis.channel_prefix")) == (
        "BROKER_REDIS_CHANNEL_PREFIX",
        "--redis-channel-prefix",
    )
    assert (flag("listen.addresses"), flag("redis.url")) == ("--listen", "--redis")
    assert len(set(map(variable, SETTINGS))) == len(set(map(flag, SETTINGS))) == len(SETTINGS)


def test_names_of_a_setting_in_a_section_inside_another() -> None:
    assert (variable("listen.tls.key"), flag("listen.tls.key")) == ("BROKER_LISTEN_TLS_KEY", "--listen-tls-key")


def test_bounds_in_words() -> None:
    assert {
        setting: bounds(SETTINGS[setting])
        for setting in ("embedded.port", "sse.channels_max", "sse.ended_seconds", "log.format")
    } == {
        "embedded.port": "1 to 65535",
        "sse.channels_max": "1 to 32",
        "sse.ended_seconds": "at least 0",
        "log.format": "one of auto, text, json",
    }
    assert bounds(SETTINGS["redis.url"]) == ""


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("", ""),
        ("redis://db:6379/0", "redis://db:6379/0"),
        ("redis://:hunter2@db", "redis://:***@db"),
        ("rediss://user:hunter2@db:6380/1?db=2", "rediss://user:***@db:6380/1?db=2"),
        ("redis://user:a/b?c#d@e@db", "redis://user:***@db"),
        ("redis://hunter2@db", "redis://***@db"),
        ("redis://db?password=hunter2&db=1", "redis://db?password=***&db=1"),
        ("unix:///run/r@1.sock?db=1&password=hun&ter2", "unix:///run/r@1.sock?db=1&password=***"),
        ("redis://db?sentinel_password=hunter2", "redis://db?sentinel_password=***"),
        ("redis://u:p@db?password=hun@ter2", "redis://***"),
        (":hunter2@db", "***@db"),
        ("hunter2", "***"),
    ],
)
def test_mask_url(url: str, masked: str) -> None:
    assert mask_url(url) == masked


# Marks that no part of the rest of a URL holds, so that any piece of the password would be seen.
PASSWORDS = st.text(st.sampled_from("ÄÖÜ/?#@:&=% "), min_size=1).filter(lambda text: set(text) & set("ÄÖÜ"))


@given(
    PASSWORDS, st.sampled_from(["redis://:{}@db/0", "rediss://u:{}@db:1", "redis://{}@db", "redis://db?password={}"])
)
def test_no_piece_of_a_password_is_shown(password: str, form: str) -> None:
    if form == "redis://{}@db":
        # Before a colon it is a user, which is shown.
        password = password.replace(":", "")
    assert not set(mask_url(form.format(password))) & set("ÄÖÜ")
    assert "\\x" not in shown(form.format(password))


def test_shown_is_one_short_line() -> None:
    assert shown("a\nb") == r"'a\nb'"
    assert shown("x" * 100) == "'" + "x" * 80 + "...'"
