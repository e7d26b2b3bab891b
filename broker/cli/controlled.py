"""Which daemon of this machine a command is for, by its control socket."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from broker.controlcall import find_control_socket


def control_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which. Give what they bring to `control_socket_of`."""
    socket = click.option(
        "--control-socket", type=click.Path(path_type=Path), metavar="PATH", help="The control socket itself."
    )
    file = click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path),
        envvar="BROKER_CONFIG",
        metavar="FILE",
        help="The file that the daemon was started with: it says where its control socket is. [BROKER_CONFIG]",
    )
    return file(socket(command))


def control_socket_of(file: Path | None, control_socket: Path | None) -> Path:
    """
    Raises:
        ControlError: there is none, by the settings.
    """
    return control_socket or find_control_socket(file, os.environ)
