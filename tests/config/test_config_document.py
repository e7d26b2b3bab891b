"""What the settings are written down as: the file, the table, what is in force."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.document import markdown_table, show, toml_document
from broker.config.names import SETTINGS, bounds, flag, variable
from broker.config.secret import mask_url, shown
from broker.config.sections import Config
from broker.config.sources import load
from broker.config.types import BUILT_IN_TYPES

ROOT = Path(__file__).parents[2]
MARKER = "<!-- generated: broker config table -->\n"
SETTING_LINE = re.compile(r"# ([a-z_]+ = )")
TYPE_SETTINGS = [f"types.{type}.validate" for type in BUILT_IN_TYPES]
DEFAULTS = {
    section: {key: list(value) if isinstance(value, tuple) else value for key, value in body.items()}
    for section, body in attrs.asdict(Config(), filter=lambda attribute, _: attribute.name != "types").items()
}
TYPES = {type: attrs.asdict(options) for type, options in BUILT_IN_TYPES.items()}
LINES = toml_document().split("\n")
SETTING_LINES = [number for number, line in enumerate(LINES) if SETTING_LINE.match(line)]


def uncommented(numbers: set[int]) -> str:
    return "\n".join(line.removeprefix("# ") if number in numbers else line for number, line in enumerate(LINES))


def test_the_file_as_shipped_changes_nothing() -> None:
    assert tomllib.loads(toml_document()) == {
        **{section: {} for section in DEFAULTS},
        "types": {type: {} for type in TYPES},
    }


def test_the_file_has_a_line_for_every_setting() -> None:
    assert len(SETTING_LINES) == len(SETTINGS) + len(TYPE_SETTINGS)
    assert tomllib.loads(uncommented(set(SETTING_LINES))) == {**DEFAULTS, "types": TYPES}


@given(st.sets(st.sampled_from(SETTING_LINES)))
def test_any_lines_uncommented_are_the_defaults(numbers: set[int]) -> None:
    document = tomllib.loads(uncommented(numbers))
    types = document.pop("types")
    assert all(TYPES[type][key] == value for type, body in types.items() for key, value in body.items())
    assert sum(map(len, types.values())) + sum(map(len, document.values())) == len(numbers)
    assert all(DEFAULTS[section][key] == value for section, body in document.items() for key, value in body.items())


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


def test_the_table_of_a_section() -> None:
    section = markdown_table().partition("## [log]\n")[2].partition("\n## ")[0]
    assert section == (
        "\n"
        "What the daemon writes to standard error.\n"
        "\n"
        "| Setting | Default | Environment variable | Meaning |\n"
        "| --- | --- | --- | --- |\n"
        '| `log.level` | `"info"` | `BROKER_LOG_LEVEL` | The least level that is written. '
        "One of debug, info, warning, error. |\n"
        '| `log.format` | `"auto"` | `BROKER_LOG_FORMAT` | text, json, or auto: text on a terminal, else JSON lines. '
        "One of auto, text, json. |\n"
    )


def test_the_tables_of_types() -> None:
    section = markdown_table().partition("## [types]\n")[2]
    assert section.startswith("\nWhat each channel type is served with. ")
    assert '\n| `types.TYPE.validate` | `"json"` | What an event from Redis is checked for: off, ' in section
    assert section.endswith('\n| `council_score` | `"json"` |\n| `creative_evaluation` | `"json"` |\n')


def test_show_has_a_line_for_every_setting_and_no_password() -> None:
    effective = load(
        flags={"listen.addresses": ("[::1]:0", "unix:/run/b.sock")},
        environ={"REDIS_URL": "redis://u:hunter2@db:6379/0", "BROKER_CHANNELS_DECLARED": "note,task"},
        file=None,
    )
    lines = show(effective).splitlines()
    assert [line.partition(" = ")[0] for line in lines] == [*SETTINGS, *TYPE_SETTINGS]
    assert [line for line in lines if not line.endswith("  # default")] == [
        'listen.addresses = ["[::1]:0", "unix:/run/b.sock"]  # flag --listen',
        'redis.url = "redis://u:***@db:6379/0"  # environment REDIS_URL',
        'channels.declared = ["note", "task"]  # environment BROKER_CHANNELS_DECLARED',
    ]
    assert "clients.outbox_max_bytes = 1048576  # default" in lines


def test_names_of_a_setting() -> None:
    assert (variable("redis.channel_prefix"), flag("redis.channel_prefix")) == (
        "BROKER_REDIS_CHANNEL_PREFIX",
        "--redis-channel-prefix",
    )
    assert (flag("listen.addresses"), flag("redis.url")) == ("--listen", "--redis")
    assert len(set(map(variable, SETTINGS))) == len(set(map(flag, SETTINGS))) == len(SETTINGS)


def test_bounds_in_words() -> None:
    assert {setting: bounds(SETTINGS[setting]) for setting in ("embedded.port", "sse.channels_max", "log.format")} == {
        "embedded.port": "1 to 65535",
        "sse.channels_max": "at least 1",
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
