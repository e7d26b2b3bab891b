"""A worker: one of several processes of a daemon, started by its supervisor with a pipe.

It is a whole daemon but for what the supervisor has: the addresses, the embedded Valkey, the service manager and the
control socket. A signal of the terminal does not reach it; SIGTERM drains it alone, and another takes its place.
"""

from __future__ import annotations

import faulthandler
import socket
from pathlib import Path

import structlog
import trio

from broker import __version__
from broker.daemon import Ready, run_daemon
from broker.errors import BrokerError
from broker.log import name_process, open_log
from broker.post.launch import Launch
from broker.post.pipe import WorkerPipe, unpacked
from broker.post.post import Post
from broker.post.siblings import Siblings

log = structlog.get_logger(__name__)


def run_worker(descriptor: int) -> int:
    """Serve until the supervisor says stop, or is gone. Returns the exit status.

    Args:
        descriptor: of the pipe to the supervisor.
    """
    # On SIGABRT, by which the supervisor ends a worker that is stuck, it writes where.
    faulthandler.enable()
    pipe = WorkerPipe(socket.socket(fileno=descriptor))
    pipe.socket.set_inheritable(False)
    first = pipe.receive_first()
    if first is None:
        return 0
    if first.get("version") != __version__:
        why = f"this is broker {__version__}, and its supervisor is {first.get('version')}: restart the daemon"
        pipe.say_last({"is": "failed", "why": why})
        return 1
    launch: Launch = unpacked(first["launch"])
    name_process(worker=launch.slot)
    open_log(launch.effective.config.log)
    failures: list[str] = []
    try:
        trio.run(_run, _post(launch, pipe))
    except* BrokerError as group:
        failures = _messages(group)
    if failures:
        pipe.say_last({"is": "failed", "why": "\n".join(failures)})
    return 1 if failures else 0


async def _run(post: Post) -> None:
    def ready(it: Ready) -> None:
        post.ready(redis_connected=it.redis_connected, max_connections=it.max_connections)

    await run_daemon(post.effective, dev=False, on_ready=ready, post=post)


def _post(launch: Launch, pipe: WorkerPipe) -> Post:
    return Post(
        launch.slot,
        launch.effective,
        Siblings(Path(launch.folder), launch.slot, launch.slots),
        pipe,
        [[passed.opened() for passed in slot] for slot in launch.listeners],
        [passed.opened() for passed in launch.shared],
        launch.is_dev,
    )


def _messages(group: BaseExceptionGroup[BrokerError]) -> list[str]:
    found: list[str] = []
    for error in group.exceptions:
        found += _messages(error) if isinstance(error, BaseExceptionGroup) else [str(error)]
    return found
