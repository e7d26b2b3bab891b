"""`broker check` and `broker config` as a person meets them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker.cli import check, config, group
from broker.config.document import markdown_table, show, toml_document
from broker.config.sources import load


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("BROKER_") or name == "REDIS_URL":
            monkeypatch.delenv(name)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    file = tmp_path / "good.toml"
    file.write_text('[redis]\nurl = "redis://:hunter2@db"\n')
    return file


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    file = tmp_path / "bad.toml"
    file.write_text('[redis]\nurl = "http://:hunter2@db"\n[sse]\nchanels_max = 3\n')
    return file


def bad_lines(file: Path) -> str:
    return (
        f"{file}: redis.url: 'http://:***@db' must start with redis://, rediss:// or unix://\n"
        f"{file}: sse.chanels_max: is not a setting; did you mean sse.channels_max?\n"
    )


def test_check_says_ok(good: Path) -> None:
    result = CliRunner().invoke(check.command, ["--config", str(good)])
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{good}: ok\n", "")


def test_check_takes_the_file_from_the_environment(good: Path) -> None:
    result = CliRunner().invoke(check.command, env={"BROKER_CONFIG": str(good)})
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{good}: ok\n", "")


def test_check_without_a_file_checks_the_environment() -> None:
    result = CliRunner().invoke(check.command, env={"REDIS_URL": "redis://db"})
    assert (result.exit_code, result.stdout, result.stderr) == (0, "environment: ok\n", "")


def test_check_prints_every_problem(bad: Path) -> None:
    result = CliRunner().invoke(check.command, ["--config", str(bad)], env={"BROKER_REDIS_ULR": "hunter2"})
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "environment BROKER_REDIS_ULR: is not a setting; did you mean BROKER_REDIS_URL?\n" + bad_lines(bad)
    )


def test_check_of_a_missing_file(tmp_path: Path) -> None:
    file = tmp_path / "none.toml"
    result = CliRunner().invoke(check.command, ["--config", str(file)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == f"{file}: cannot be read: No such file or directory; name a file that can be, or none\n"


def test_config_defaults_and_table() -> None:
    assert CliRunner().invoke(config.command, ["defaults"]).stdout == toml_document()
    assert CliRunner().invoke(config.command, ["table"]).stdout == markdown_table()


def test_config_show(good: Path) -> None:
    result = CliRunner().invoke(config.command, ["show", "--config", str(good)])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == show(load(flags={}, environ={}, file=good))
    assert f'redis.url = "redis://:***@db"  # {good}\n' in result.stdout
    assert "hunter2" not in result.stdout


def test_config_show_refuses_what_check_refuses(bad: Path) -> None:
    result = CliRunner().invoke(config.command, ["show"], env={"BROKER_CONFIG": str(bad)})
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", bad_lines(bad))


def test_serve_explains_the_options_of_types() -> None:
    done = CliRunner().invoke(group, ["serve", "--help"])
    words = " ".join(done.output.split())
    assert done.exit_code == 0
    assert "--type TYPE.KEY=VALUE" in words
    assert "validate: What an event from Redis is checked for: off, its size" in words
    assert "Takes one of off, json, event. history_length: How many past events of each channel are kept" in words
    assert "slow_clients: What becomes of a client that reads too slowly. disconnect: it is ended" in words
    assert "Takes one of auto, disconnect, drop_oldest, latest, catch_up. second_part:" in words
    assert "Takes one of id, user. [BROKER_TYPES]" in words
    assert "--listen-cors-origins" not in words


def test_serve_knows_the_old_name_of_a_setting() -> None:
    done = CliRunner().invoke(group, ["serve", "--listen-cors-origins", "*"])
    assert str(done.exception) == "flag --listen-cors-origins: has a new name; write --listen-allowed-origins"


def test_serve_refuses_a_bad_option() -> None:
    done = CliRunner().invoke(group, ["serve", "--type", "alerts.validate=x"])
    assert str(done.exception) == "flag --type alerts.validate: 'x' is not known; write one of off, json, event"


def test_check_says_what_does_not_fit_together(tmp_path: Path) -> None:
    file = tmp_path / "types.toml"
    file.write_text("[types.alerts]\nreplay = 101\n")
    result = CliRunner().invoke(check.command, ["--config", str(file)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"{file}: types.alerts.replay: 101 is more than types.alerts.history_length, which is 100 (default); "
        "lower this or raise that\n"
    )


def test_check_of_types_in_the_environment() -> None:
    result = CliRunner().invoke(check.command, env={"BROKER_TYPES": "alerts.validate=evnt"})
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "environment BROKER_TYPES alerts.validate: 'evnt' is not known; write one of off, json, event\n"
    )
