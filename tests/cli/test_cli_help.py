"""What the command line says of itself is made from the settings."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from broker import __version__
from broker.cli import COMMANDS, group
from broker.config.names import SETTINGS, TYPE_OPTIONS, TYPES_FLAG, TYPES_VARIABLE, bounds, flag, variable
from broker.config.sections import meaning


@pytest.fixture(scope="module")
def serve_help() -> str:
    done = CliRunner().invoke(group, ["serve", "--help"])
    assert done.exit_code == 0
    return " ".join(done.output.split())


@pytest.mark.parametrize("setting", SETTINGS)
def test_serve_has_a_flag_for_every_setting_in_the_settings_own_words(serve_help: str, setting: str) -> None:
    attribute = SETTINGS[setting]
    assert f"{flag(setting)} VALUE" in serve_help
    assert meaning(attribute) in serve_help
    assert bounds(attribute) in serve_help
    assert variable(setting) in serve_help


@pytest.mark.parametrize("key", TYPE_OPTIONS)
def test_serve_explains_every_option_of_channel_types_at_one_flag(serve_help: str, key: str) -> None:
    attribute = TYPE_OPTIONS[key]
    assert f"{key}: {meaning(attribute)} Takes {bounds(attribute)}." in serve_help
    assert (serve_help.count(f"{TYPES_FLAG} TYPE.KEY=VALUE"), serve_help.count(f"[{TYPES_VARIABLE}]")) == (1, 1)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    done = CliRunner().invoke(group, [name, "--help"])
    assert done.exit_code == 0
    assert f"Usage: group {name}" in done.output


def test_the_list_of_commands_and_the_version() -> None:
    done = subprocess.run([sys.executable, "-m", "broker", "--help"], capture_output=True, text=True, check=True)
    assert all(f"  {name} " in done.stdout and sentence in done.stdout for name, sentence in COMMANDS.items())
    done = subprocess.run([sys.executable, "-m", "broker", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"broker {__version__}\n"
