"""`broker dump`: have the daemon on this machine write what it is doing to its log."""

from __future__ import annotations

import os
from pathlib import Path

import click

from broker.controlcall import call, find_control_socket


@click.command(name="dump")
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
    """Have the daemon write its tasks and its slowest clients to its log, as SIGUSR1 does."""
    answer = call(control_socket or find_control_socket(file, os.environ), "dump")
    click.echo(f"in the daemon's log: {answer['written']}")
