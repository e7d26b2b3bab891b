"""`broker check`: whether the daemon would take these settings."""

from __future__ import annotations

import os
from pathlib import Path

import click

from broker.config.sources import load
from broker.errors import ConfigError


@click.command(name="check")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, readable=False),
    envvar="BROKER_CONFIG",
    metavar="FILE",
    help="The TOML file to check; BROKER_CONFIG is read too. Without one, only the environment is checked.",
)
def command(file: Path | None) -> None:
    """Check the settings: the file, the environment, and both together.

    Every problem is a line on standard error, and the exit status is then 1.
    """
    try:
        load(flags={}, environ=os.environ, file=file)
    except ConfigError as error:
        click.echo(str(error), err=True)
        raise SystemExit(1) from None
    click.echo(f"{click.format_filename(file) if file else 'environment'}: ok")
