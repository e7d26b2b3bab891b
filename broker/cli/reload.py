"""`broker reload`: have the daemon on this machine read its settings again."""

from __future__ import annotations

import os
from pathlib import Path

import click

from broker.controlcall import call, find_control_socket


@click.command(name="reload")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    envvar="BROKER_CONFIG",
    metavar="FILE",
    help="The file that the daemon was started with: it says where its control socket is. [BROKER_CONFIG]",
)
@click.option("--control-socket", type=click.Path(path_type=Path), metavar="PATH", help="The control socket itself.")
def command(file: Path | None, control_socket: Path | None) -> None:
    """Have the daemon read its file, environment and flags again.

    Prints what has changed, and what needs a restart. Where something is wrong with the new settings, those before
    stay, every problem is a line on standard error, and the exit status is 1.
    """
    answer = call(control_socket or find_control_socket(file, os.environ), "reload")
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
