"""The command line: `broker COMMAND`, a file a command; each is imported only when it is asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping

import click

from broker import __version__
from broker.errors import BrokerError

COMMANDS: Mapping[str, str] = {
    "serve": "Run the daemon.",
    "pub": "Publish an event through Redis.",
    "sub": "Print the events of channels as they come.",
    "evaluate": "Run a worker that evaluates with models.",
    "doctor": "Try a running daemon as a client would.",
    "stats": "Show the figures of a running daemon.",
    "top": "Watch a running daemon: rates, channels, slow clients, Redis.",
    "clients": "List who is connected, the slowest first.",
    "channels": "List channels, the busiest first.",
    "reload": "Have the running daemon read its settings again.",
    "dump": "Have the running daemon write what it is doing to its log.",
    "check": "Say what is wrong with a settings file.",
    "token": "Make tokens, or see what one says.",
    "explain": "Say what a token allows, by which rule, and why.",
    "key": "Make API keys for services.",
    "config": "Show the settings: defaults, and what is in force.",
    "schema": "Print the JSON Schema of the events, AsyncAPI or OpenAPI.",
}


HIDDEN = frozenset({"worker"})
"""Commands that only the broker itself calls."""


class _Commands(click.Group):
    """Lists all commands without importing any."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS and name not in HIDDEN:
            return None
        command = importlib.import_module(f"broker.cli.{name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="broker %(version)s")
def group() -> None:
    """An event-broker daemon: from Redis to browsers and services, over WebSocket and SSE."""


def main() -> None:
    """Run a command. What the broker raises on purpose is printed as it is, without a traceback."""
    try:
        group()
    except BrokerError as error:
        click.echo(f"broker: {error}", err=True)
        sys.exit(1)
