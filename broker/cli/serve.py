"""`broker serve`: run the daemon until a signal ends it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from attrs import Attribute

from broker.cli.banner import banner
from broker.config.names import (
    RENAMED,
    SETTINGS,
    TYPE_OPTIONS,
    TYPES,
    TYPES_FLAG,
    TYPES_VARIABLE,
    bounds,
    flag,
    variable,
)
from broker.config.process import worker_count
from broker.config.sections import meaning
from broker.config.sources import Effective, load
from broker.daemon import run_daemon
from broker.errors import BrokerError
from broker.log import open_log
from broker.systemd import Notifier, inherited_sockets


def _options(command: click.Command) -> click.Command:
    """A flag for every setting, with the setting's own words as its help, and one for the options of types."""
    for setting, attribute in SETTINGS.items():
        command.params.append(_option(setting, attribute))
    words = ["An option of a channel type, such as job_progress.validate=event; repeat it for more."]
    words += (f"{key}: {meaning(attribute)} Takes {bounds(attribute)}." for key, attribute in TYPE_OPTIONS.items())
    command.params.append(
        click.Option(
            [TYPES_FLAG, TYPES],
            help=" ".join([*words, f"[{TYPES_VARIABLE}]"]),
            multiple=True,
            metavar="TYPE.KEY=VALUE",
        )
    )
    # Not shown, and refused with the name that it has now.
    for old in RENAMED:
        command.params.append(click.Option([flag(old), old.replace(".", "__")], hidden=True, multiple=True))
    return command


def _option(setting: str, attribute: Attribute[Any]) -> click.Option:
    values = bounds(attribute)
    words = [meaning(attribute)]
    if values:
        words.append(f"Takes {values}.")
    default = attribute.default
    if default not in ("", ()):
        shown = ", ".join(default) if isinstance(default, tuple) else default
        words.append(f"[{variable(setting)}; default {shown}]")
    else:
        words.append(f"[{variable(setting)}]")
    return click.Option(
        [flag(setting), setting.replace(".", "__")],
        help=" ".join(words),
        multiple=isinstance(default, tuple),
        metavar="VALUE",
    )


@_options
@click.command("serve")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    envvar="BROKER_CONFIG",
    help="A TOML file of settings; conf/broker.toml explains every one. [BROKER_CONFIG]",
)
@click.option("--dev", is_flag=True, help="Publish demo events, and let pages of this machine read the answers.")
@click.option(
    "--takeover", is_flag=True, help="Have the daemon that runs hand over its connections to come, and leave."
)
def command(file: Path | None, dev: bool, takeover: bool, **flags: Any) -> None:
    """Run the daemon.

    Settings come from these flags, then the environment, then the file, then the defaults.
    SIGTERM or Ctrl-C drains and ends it; a second one ends it at once.
    """
    import trio

    load_again = partial(
        load,
        flags={setting: flags[setting.replace(".", "__")] for setting in (*SETTINGS, *RENAMED, TYPES)},
        environ=os.environ,
        file=file,
    )
    effective = load_again()
    open_log(effective.config.log)
    notifier = Notifier.from_environ(os.environ)
    lines: list[str] = []
    try:
        trio.run(_run, effective, dev, inherited_sockets(os.environ), notifier, takeover, load_again)
    except* BrokerError as group:
        lines = _messages(group)
    if lines:
        notifier.status(lines[0])
        # Not inside `except*`, which would put the SystemExit into a group: a traceback.
        for line in lines:
            click.echo(f"broker: {line}", err=True)
        sys.exit(1)


async def _run(
    effective: Effective,
    dev: bool,
    inherited: Sequence[socket.socket],
    notifier: Notifier,
    takes_over: bool,
    load_again: Callable[[], Effective],
) -> None:
    run: Callable[..., Awaitable[None]] = run_daemon
    if (workers := worker_count(effective.config.daemon.workers)) > 1:
        from broker.workers.supervisor import run_supervisor

        run = partial(run_supervisor, workers=workers)
    await run(
        effective,
        dev=dev,
        on_ready=lambda ready: click.echo(banner(ready, dev=dev)),
        inherited=inherited,
        notifier=notifier,
        takes_over=takes_over,
        load_again=load_again,
    )


def _messages(group: BaseExceptionGroup[BrokerError]) -> list[str]:
    lines: list[str] = []
    for error in group.exceptions:
        lines += _messages(error) if isinstance(error, BaseExceptionGroup) else str(error).splitlines()
    return lines
