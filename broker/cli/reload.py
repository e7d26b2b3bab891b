"""`broker reload`: have the daemon on this machine read its settings again."""

from __future__ import annotations

from pathlib import Path

import click

from broker.cli.controlled import control_options, control_socket_of
from broker.controlcall import call


@click.command(name="reload")
@control_options
def command(file: Path | None, control_socket: Path | None) -> None:
    """Have the daemon read its file, environment and flags again.

    Prints what has changed, and what needs a restart. Where something is wrong with the new settings, those before
    stay, every problem is a line on standard error, and the exit status is 1.
    """
    answer = call(control_socket_of(file, control_socket), "reload")
    for problem in answer["problems"]:
        click.echo(f"broker: {problem}", err=True)
    if answer["problems"]:
        click.echo("broker: nothing has changed", err=True)
        raise SystemExit(1)
    for line in answer["changed"]:
        click.echo(line)
    for setting in answer["waiting"]:
        click.echo(f"{setting}: needs a restart")
    if not answer["changed"] and not answer["waiting"]:
        click.echo("nothing has changed")
