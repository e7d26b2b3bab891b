"""`broker config`: the settings written down, as they are by default and as they are in force."""

from __future__ import annotations

import os
from pathlib import Path

import click

from broker.config.document import markdown_table, show, toml_document
from broker.config.sources import load
from broker.errors import ConfigError


@click.group(name="config")
def command() -> None:
    """Show the settings: every default, or what is in force and why."""


@command.command(name="defaults")
def defaults() -> None:
    """Print conf/broker.toml: every setting explained, none changed."""
    click.echo(toml_document(), nl=False)


@command.command(name="table")
def table() -> None:
    """Print the tables of docs/settings.md."""
    click.echo(markdown_table(), nl=False)


@command.command(name="show")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, readable=False),
    envvar="BROKER_CONFIG",
    metavar="FILE",
    help="The TOML file that the daemon would read; BROKER_CONFIG is read too.",
)
def show_effective(file: Path | None) -> None:
    """Print every setting with its value and where that comes from; passwords are masked."""
    try:
        effective = load(flags={}, environ=os.environ, file=file)
    except ConfigError as error:
        click.echo(str(error), err=True)
        raise SystemExit(1) from None
    click.echo(show(effective), nl=False)
