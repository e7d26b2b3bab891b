"""The succession: what a daemon gets from the one before it, and leaves to the one after it.

`takeover` is how that goes over the control socket; here is what the daemon hands over, and takes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
import trio

from broker.config.access_agreement import check_access
from broker.config.process import OFF
from broker.config.sections import Config
from broker.config.sources import Effective
from broker.controlsocket import ControlSocket, Verb, control_path
from broker.errors import ControlError, TakeoverError
from broker.lifecycle import Lifecycle
from broker.listening import Listener, is_of, open_listeners
from broker.systemd import Notifier
from broker.takeover import Handed, Offer, Takeover, take
from broker.upstream.embedded import EmbeddedServer

log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_takeover(config: Config, *, wanted: bool) -> AsyncIterator[Takeover | None]:
    """What the daemon that runs hands over; None where nothing is wanted, or nobody is there.

    Raises:
        TakeoverError: somebody is there, and hands nothing over; or nobody could be.
    """
    if not wanted:
        yield None
        return
    if not config.redis.url:
        raise TakeoverError(
            "there is no takeover with the embedded Redis, whose data goes with its daemon; set --redis"
        )
    if config.daemon.control_socket == OFF:
        raise TakeoverError("daemon.control_socket is off: the daemon that runs cannot be found; restart it instead")
    path = _control_path(config, config.listen.addresses[0])
    takeover = await take(path)
    if takeover is None:
        log.warning("there is no daemon to take over from; this one starts as the first", control_socket=str(path))
    try:
        yield takeover
    finally:
        if takeover is not None:
            takeover.close()


@asynccontextmanager
async def open_own_listeners(
    effective: Effective,
    config: Config,
    inherited: Sequence[socket.socket],
    takeover: Takeover | None,
    lifecycle: Lifecycle,
) -> AsyncIterator[list[Listener]]:
    """Our own sockets, or those of the daemon before as far as the settings have their addresses still."""
    handed = takeover.take(lambda sock: is_of(config.listen, sock)) if takeover is not None else []
    with open_listeners(
        config.listen,
        config.listen_tls,
        effective.origins["listen.addresses"],
        [*inherited, *(one.socket for one in handed)],
        adopted=[one.name.removeprefix("unix:") for one in handed if one.owns_file],
        # Until we serve, the files are still those of the daemon before.
        keeps_files=lambda: lifecycle.keeps_files or (takeover is not None and not takeover.is_done),
    ) as listeners:
        check_access((one.name for one in listeners if one.is_given), config.auth, "a socket that systemd gave")
        yield listeners


def offer_of(
    listeners: Sequence[Listener], embedded: EmbeddedServer | None, lifecycle: Lifecycle, notifier: Notifier
) -> Offer:
    """What we hand over to the daemon after this one."""

    def objection() -> str | None:
        if embedded is not None:
            return "it runs the embedded Redis, whose data goes with it; restart it with --redis instead"
        return None if lifecycle.is_ready else "it is about to stop by itself; start the new one when it has"

    def hand_over() -> list[Handed]:
        lifecycle.is_handing_over = True
        return [Handed(each.name, each.socket, each.is_given, each.owns_file) for each in listeners]

    def handed_over(pid: int | None) -> None:
        lifecycle.is_handing_over = False
        if pid is not None:
            notifier.hand_on(pid)
            lifecycle.stop(is_taken_over=True)

    return Offer(
        hand_over,
        objection,
        handed_over,
        notifier.environ,
    )


async def open_control(
    config: Config,
    listeners: Sequence[Listener],
    takeover: Takeover | None,
    verbs: Mapping[str, Verb],
    life: trio.Nursery,
) -> None:
    """Answer on the control socket. A daemon that cannot have one runs all the same."""
    if config.daemon.control_socket == OFF:
        return
    first = config.listen.addresses[0]
    try:
        # Where the system chose the port, that is its name.
        path = _control_path(config, listeners[0].name if first.endswith(":0") else first)
        control = await ControlSocket.open(path, replaces=takeover is not None)
    except ControlError as error:
        log.warning("no `broker reload` and no takeover for this daemon", why=str(error))
        return
    await life.start(control.serve, verbs)


def _control_path(config: Config, address: str) -> Path:
    """Where the control socket is.

    Raises:
        ControlError: nowhere can it be.
    """
    return Path(config.daemon.control_socket) if config.daemon.control_socket else control_path(address, os.environ)
