"""`broker dump`: have the daemon on this machine write what it is doing to its log."""

from __future__ import annotations

from pathlib import Path

import click

from broker.cli.controlled import control_options, control_socket_of
from broker.controlcall import call


@click.command(name="dump")
@control_options
def command(file: Path | None, control_socket: Path | None) -> None:
    """Have the daemon write its tasks and its slowest clients to its log, as SIGUSR1 does."""
    answer = call(control_socket_of(file, control_socket), "dump")
    click.echo(f"in the daemon's log: {answer['written']}")
