"""The slots: each worker of a daemon has one, with a listening socket of its own for each TCP address.

The sockets of an address share its port by SO_REUSEPORT, and the kernel spreads new connections over them by their
addresses and ports. All are held open here, in the supervisor, so a worker that dies resets nothing that waits in a
queue, and the kernel's choice stays what it was. What can be opened once only is shared by all workers: a unix
socket, or one that systemd holds.

An address that somebody else listens on is refused: the first socket is bound and listens without SO_REUSEPORT, and
only then lets others in, of the same user. Source: socket(7); `inet_reuseport_add_sock` of Linux, which makes the
group when the second socket joins.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import attrs
from attrs import frozen

from broker.errors import ListenError
from broker.listening import Listener


@frozen
class Slots:
    """Every listener of the daemon: each slot's own, and those that all share."""

    own: tuple[tuple[Listener, ...], ...]
    shared: tuple[Listener, ...]

    @property
    def everything(self) -> list[Listener]:
        return [*(listener for slot in self.own for listener in slot), *self.shared]

    def close(self) -> None:
        """Close them in this process. Once is enough."""
        for listener in self.everything:
            listener.socket.close()


@contextmanager
def open_slots(
    listeners: Sequence[Listener],
    count: int,
    backlog: int,
    held_elsewhere: Collection[socket.socket] = (),
    *,
    is_taking_over: bool = False,
) -> Iterator[Slots]:
    """Give every slot its listeners; those that are missing are opened, and closed at the end.

    Args:
        listeners: one or more for each address; more where a daemon of several workers has handed them over. With
            more than there are slots, a slot has several: none may be closed, because connections wait in each.
        held_elsewhere: sockets whose copies systemd holds. It has none of those that would be opened beside them.
        is_taking_over: nothing is opened beside what was handed over, lest connections wait there for workers that do
            not serve yet, while the daemon before does. Where there are fewer than slots, all share them.

    Raises:
        ListenError: no further socket can be opened for an address.
    """
    own: list[list[Listener]] = [[] for _ in range(count)]
    shared: list[Listener] = []
    groups: dict[str, list[Listener]] = {}
    for listener in listeners:
        if listener.socket.family == socket.AF_UNIX or listener.socket in held_elsewhere:
            shared.append(listener)
        else:
            groups.setdefault(listener.name, []).append(listener)
    with ExitStack() as stack:
        for group in groups.values():
            if is_taking_over and len(group) < count:
                shared += group
                continue
            if count > 1:
                for listener in group:
                    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            while len(group) < count:
                group.append(_opened_beside(group[0], backlog, stack))
            for number, listener in enumerate(group):
                own[number % count].append(listener)
        yield Slots(tuple(map(tuple, own)), tuple(shared))


def _opened_beside(first: Listener, backlog: int, stack: ExitStack) -> Listener:
    """A further socket on the same address."""
    opened = socket.socket(first.socket.family, first.socket.type, first.socket.proto)
    stack.callback(opened.close)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if opened.family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(first.socket.getsockname())
        opened.setblocking(False)
        opened.listen(backlog)
    except OSError as error:
        raise ListenError(
            f"cannot listen on {first.name} once more for another worker: {error.strerror or error}; "
            "choose another address with --listen, or set --workers 1"
        ) from error
    return attrs.evolve(first, socket=opened)
