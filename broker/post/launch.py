"""The launch: what a worker is told at its start, and its share of what holds for the whole daemon.

Law: the shares of all workers add up to no more than the daemon may have, unless a share would be less than one
client needs. Limits of one user and one address are no shares: `seats` has those of users, over all daemons.
"""

from __future__ import annotations

import socket

import attrs
from attrs import frozen

from broker.config.process import OFF
from broker.config.sections import Config
from broker.config.sources import Effective
from broker.listening import Listener
from broker.openfiles import RESERVED


@frozen
class PassedListener:
    """A listening socket as it is told to a child process that inherits its descriptor."""

    descriptor: int
    is_tls: bool
    expects_proxy: bool

    @classmethod
    def of(cls, listener: Listener) -> PassedListener:
        return cls(listener.socket.fileno(), listener.is_tls, listener.expects_proxy)

    def opened(self) -> Listener:
        """The listener, in the process that has inherited the descriptor and owns it from here on."""
        opened = socket.socket(fileno=self.descriptor)
        opened.setblocking(False)
        opened.set_inheritable(False)
        return Listener(opened, self.is_tls, self.expects_proxy)


@frozen
class Launch:
    """What a worker is told.

    Args:
        effective: its share of the settings, with a Redis URL in them.
        listeners: of every slot, its own among them.
        shared: those that all workers accept from.
        folder: where the workers listen for each other.
        is_dev: whether the daemon was started with `--dev`.
    """

    effective: Effective
    slot: int
    listeners: tuple[tuple[PassedListener, ...], ...]
    shared: tuple[PassedListener, ...]
    folder: str
    is_dev: bool = False

    @property
    def slots(self) -> int:
        return len(self.listeners)


def share_of(config: Config, slot: int, slots: int, open_files: int, descriptors: int) -> Config:
    """The settings of one worker.

    Args:
        open_files: how many a process may have.
        descriptors: what each has of the listening sockets.
    """
    wanted = config.clients.max_connections
    room = max(1, open_files - RESERVED - descriptors)
    # A connection that the kernel gives to this worker cannot go to another that has room.
    connections = min(room, max(1, wanted // slots + (slot < wanted % slots))) if wanted else room
    outbox_bytes = max(config.limits.outbox_total_bytes // slots, config.clients.outbox_max_bytes)
    return attrs.evolve(
        config,
        daemon=attrs.evolve(config.daemon, control_socket=OFF),
        clients=attrs.evolve(config.clients, max_connections=connections),
        limits=attrs.evolve(config.limits, outbox_total_bytes=outbox_bytes),
    )
