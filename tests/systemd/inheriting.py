"""A process that takes sockets as the daemon does, case after case, each in a child of its own; one JSON line each.

Started with what is wanted as arguments: the number in LISTEN_FDS, `=` and what is opened as descriptor 3.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile

from broker.errors import ListenError
from broker.systemd import inherited_sockets

OTHER_PID = "1"


def opened(kind: str, folder: str) -> socket.socket | int | None:
    """The thing that a unit hands over."""
    match kind:
        case "tcp":
            return socket.create_server(("127.0.0.1", 0))
        case "unix" | "short":
            server = socket.socket(socket.AF_UNIX)
            server.bind(f"{folder}/s")
            server.listen()
            return server
        case "abstract":
            server = socket.socket(socket.AF_UNIX)
            server.bind(f"\0broker-test-{os.getpid()}")
            server.listen()
            return server
        case "datagram":
            return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        case "packets":
            return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        case "connection":
            return socket.socketpair()[0]
        case "not_listening":
            return socket.socket()
        case "file":
            return os.open("/dev/null", os.O_RDONLY)
    return None


def tried(count: str, kind: str, pid: str) -> object:
    """What `inherited_sockets` makes of it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        thing = opened(kind, folder)
        if thing is not None:
            number = thing if isinstance(thing, int) else thing.fileno()
            if number != 3:
                os.dup2(number, 3)
        else:
            os.close(3)
        environ = {"LISTEN_FDS": count, "LISTEN_PID": pid, "LISTEN_FDNAMES": "broker.socket", "HOME": "/"}
        before = os.get_inheritable(3) if thing is not None else None
        try:
            taken = inherited_sockets(environ)
        except ListenError as error:
            return [str(error), environ]
        return [[[one.fileno(), before, one.get_inheritable()] for one in taken], environ]


def main() -> None:
    devnull = os.open("/dev/null", os.O_RDONLY)
    while os.dup(devnull) < 10:  # so that what is opened later gets a number that is not 3
        pass
    for argument in sys.argv[1:]:
        count, _, kind = argument.partition("=")
        sys.stdout.flush()
        child = os.fork()
        if not child:
            pid = OTHER_PID if kind == "of_another" else str(os.getpid())
            os.dup2(devnull, 3)
            print(json.dumps(tried(count, kind, pid)), flush=True)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
