"""The supervisor: one daemon as several worker processes, where `daemon.workers` asks for more than one.

It opens the listening sockets, the embedded Valkey and the control socket, speaks with the service manager, and keeps
a worker in every slot. It accepts nothing and holds no client, so nothing that a client does can stop it.

A worker that dies is replaced, at once the first time and later each time when it dies again soon. While a slot has
no worker, or one that does not answer, the others accept for it. If the supervisor dies, the workers notice by their
pipes, drain and end.

Bounds: `_PAUSE_LEAST_SECONDS` doubling to `_PAUSE_MOST_SECONDS` before a replacement, from the beginning again after
`_STEADY_SECONDS`; where for `_DESERTED_SECONDS` no worker serves and those that are started end, the daemon ends, so
that the service manager sees it; workers that drain have `_DRAIN_MARGIN_SECONDS` more than their clients.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import structlog
import trio
from attrs import define, field, frozen

from broker import __version__
from broker.config.sources import Effective
from broker.daemon import Ready, for_development, open_upstream
from broker.demo import publish_demo
from broker.errors import TakeoverError, WorkerError
from broker.keysource import KeySource
from broker.lifecycle import Lifecycle
from broker.log import open_log
from broker.maintenance import Maintenance
from broker.openfiles import raise_open_file_limit
from broker.post.launch import Launch, PassedListener, share_of
from broker.post.pipe import packed
from broker.reload import Reloader
from broker.signals import Signals
from broker.succession import offer_of, open_control, open_own_listeners, open_takeover
from broker.systemd import Notifier, Vitals
from broker.tls import Certificate
from broker.upstream.embedded import EmbeddedServer
from broker.workers.process import WorkerProcess
from broker.workers.slots import Slots, open_slots

log = structlog.get_logger(__name__)

_PAUSE_LEAST_SECONDS = 0.1
_PAUSE_MOST_SECONDS = 5.0
_STEADY_SECONDS = 30.0
_DESERTED_SECONDS = 30.0
_DRAIN_MARGIN_SECONDS = 10.0
# Of the longest name of a worker's socket behind that of the folder; macOS has room for 103 bytes.
_FOLDER_MAX_BYTES = 60


async def run_supervisor(
    effective: Effective,
    *,
    workers: int,
    dev: bool,
    on_ready: Callable[[Ready], None],
    inherited: Sequence[socket.socket] = (),
    notifier: Notifier | None = None,
    takes_over: bool = False,
    load_again: Callable[[], Effective] | None = None,
) -> None:
    """Serve with so many workers until SIGTERM or SIGINT, then have them drain. A second signal ends them at once.

    Args: as of `run_daemon`.

    Raises:
        ConfigError, ListenError, UpstreamError, TakeoverError: it cannot start; the message says why.
        WorkerError: a worker cannot start, or did not end cleanly.
    """
    given = attrs.evolve(effective, config=for_development(effective.config)) if dev else effective
    config = given.config
    open_files = raise_open_file_limit()
    lifecycle = Lifecycle()
    notifier = notifier or Notifier()
    async with (
        Signals.open(lifecycle) as signals,
        open_takeover(config, wanted=takes_over) as takeover,
        open_own_listeners(effective, config, inherited, takeover, lifecycle) as listeners,
        open_upstream(config, [one.name for one in listeners]) as (config, embedded),
    ):
        with (
            open_slots(
                listeners, workers, config.listen.backlog, inherited, is_taking_over=takeover is not None
            ) as slots,
            _private_folder() as folder,
        ):
            supervisor = Supervisor(attrs.evolve(given, config=config), slots, folder, open_files, lifecycle, dev)

            def load() -> Effective:
                found = load_again() if load_again is not None else given
                return attrs.evolve(found, config=for_development(found.config)) if dev else found

            async with trio.open_nursery() as life:
                async with trio.open_nursery() as keepers:
                    for slot in range(workers):
                        keepers.start_soon(supervisor.keep, slot)
                    await supervisor.started.wait()
                    supervisor.check_start()
                    ready = supervisor.ready(embedded)
                    if takeover is not None and not ready.redis_connected:
                        raise TakeoverError("Redis does not answer the new process; the daemon before goes on")
                    lifecycle.serve()
                    if takeover is not None:
                        await takeover.ready()
                        if not notifier.address:
                            notifier = Notifier.from_environ(dict(takeover.environ))
                    life.start_soon(notifier.serve, supervisor.look)
                    notifier.ready(supervisor.look().told())
                    reloader = Reloader(supervisor.follow, given, config, load)
                    maintenance = Maintenance(supervisor.status, supervisor.dump, reloader, life, notifier)
                    maintenance.heed(signals)
                    offer = offer_of(slots.everything, embedded, lifecycle, notifier)
                    verbs = {**maintenance.verbs(), "takeover": offer.serve}
                    await open_control(config, listeners, takeover, verbs, life)
                    if dev:
                        demo = partial(publish_demo, config.redis.url, channel_prefix=config.redis.channel_prefix)
                        life.start_soon(demo)
                    on_ready(ready)
                    await lifecycle.stopping.wait()
                    section = supervisor.effective.config.daemon
                    log.info("stopping", clients=supervisor.look().clients, drain_seconds=section.drain_seconds)
                    seconds = section.unready_seconds * (not lifecycle.is_taken_over) + section.drain_seconds
                    if not lifecycle.is_taken_over:
                        notifier.stopping(seconds)
                    supervisor.stop()
                    keepers.cancel_scope.deadline = trio.current_time() + seconds + _DRAIN_MARGIN_SECONDS
                life.cancel_scope.cancel()
            supervisor.check_end()
            log.info("stopped")


@frozen
class _End:
    """How a worker has ended: `pid` None where it was never there, `why` what it said itself."""

    pid: int | None
    how: str
    why: str
    is_clean: bool = False


@define(eq=False)
class Supervisor:
    """Keeps a worker in every slot.

    Args:
        effective: the settings in force, of the whole daemon; new workers get their share of them.
        folder: where the workers listen for each other.
        open_files: how many each process may have.
        is_dev: whether the daemon was started with `--dev`.
        started: all serve, or one cannot.
    """

    effective: Effective
    _slots: Slots
    _folder: Path
    _open_files: int
    _lifecycle: Lifecycle
    _is_dev: bool = False
    started: trio.Event = field(init=False, factory=trio.Event)
    _workers: dict[int, WorkerProcess] = field(init=False, factory=dict)
    _failure: str = field(init=False, default="")
    _unclean: list[str] = field(init=False, factory=list)
    _deserted_since: float = field(init=False, default=math.inf)
    _addresses: tuple[str, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._addresses = tuple(dict.fromkeys(listener.name for listener in self._slots.everything))

    async def keep(self, slot: int) -> None:
        """Keep a worker in a slot. Runs until the daemon stops and its last one has ended."""
        pause = _PAUSE_LEAST_SECONDS
        while not self._lifecycle.stopping.is_set():
            began_at = trio.current_time()
            end = await self._employ(slot)
            if self._lifecycle.stopping.is_set():
                if not end.is_clean:
                    self._unclean.append(f"worker {slot} {end.how} while it drained; its log says more")
                return
            if not self.started.is_set():
                self._failure = end.why or f"worker {slot} {end.how} while it started; its log says why"
                self.started.set()
                return
            if trio.current_time() - self._deserted_since >= _DESERTED_SECONDS:
                self._unclean.append(f"no worker serves, and none can be started: worker {slot} {end.how}: {end.why}")
                self._lifecycle.stop()
                return
            if trio.current_time() - began_at >= _STEADY_SECONDS:
                pause = _PAUSE_LEAST_SECONDS
            facts = {"worker": slot, "pid": end.pid, "how": end.how, "pause_seconds": pause}
            if end.is_clean:
                log.warning("a worker has ended; another takes its place", **facts)
            else:
                log.error("a worker has died; another takes its place", **facts, why=end.why or None)
            with trio.move_on_after(pause):
                await self._lifecycle.stopping.wait()
            pause = min(2 * pause, _PAUSE_MOST_SECONDS)

    async def _employ(self, slot: int) -> _End:
        """One worker, from its start to its end."""
        effective = self.effective
        try:
            worker = await WorkerProcess.start(self._launch(slot))
        except OSError as error:  # of descriptors, processes or memory there may be more in a moment
            return _End(None, "was not started", f"worker {slot} cannot be started: {error}")
        self._workers[slot] = worker
        try:
            if self._lifecycle.stopping.is_set():
                worker.say({"do": "stop"})
            elif self.effective is not effective:
                self._tell_settings(slot, worker)
            status = await worker.attend(self._arrange)
            return _End(worker.pid, _told(status), worker.why, is_clean=status == 0)
        finally:
            del self._workers[slot]
            self._arrange()

    def check_start(self) -> None:
        """Once `started`.

        Raises:
            WorkerError: one of them cannot start.
        """
        if self._failure:
            raise WorkerError(self._failure)

    def check_end(self) -> None:
        """Once all have ended.

        Raises:
            WorkerError: not all of them have drained.
        """
        if self._unclean:
            raise WorkerError("\n".join(self._unclean))

    def ready(self, embedded: EmbeddedServer | None) -> Ready:
        """What the daemon tells once all workers serve."""
        workers = self._workers.values()
        return Ready(
            self._addresses,
            embedded,
            all(worker.redis_connected for worker in workers),
            sum(worker.max_connections for worker in workers),
            self.effective.config,
        )

    def look(self) -> Vitals:
        """How all of them do. A channel counts once for each worker that has clients on it."""
        all_of_them = [worker.vitals for worker in self._workers.values() if worker.vitals is not None]
        return Vitals(
            sum(vitals.clients for vitals in all_of_them),
            sum(vitals.channels for vitals in all_of_them),
            sum(vitals.messages for vitals in all_of_them),
            any(vitals.is_waiting for vitals in all_of_them),
            self._lifecycle.stopping.is_set(),
        )

    def follow(
        self, effective: Effective, changed: Sequence[str], keys: KeySource | None, certificate: Certificate | None
    ) -> None:
        """Give new settings to all workers, and to those that come. That what they name can be read was checked."""
        self.effective = effective
        if any(setting.startswith("log.") for setting in changed):
            open_log(effective.config.log)
        for slot, worker in self._workers.items():
            self._tell_settings(slot, worker)

    def _tell_settings(self, slot: int, worker: WorkerProcess) -> None:
        worker.silence_seconds = self.effective.config.daemon.worker_silence_seconds
        worker.say({"do": "settings", "launch": packed(self._launch(slot))})

    async def dump(self) -> str:
        """Have each worker write its tasks and clients to the log. Returns what is written, in words."""
        for slot, worker in sorted(self._workers.items()):
            log.warning("dump: worker", worker=slot, **worker.state())
            # Not by signal: one that still starts would die of it.
            worker.say({"do": "dump"})
        await trio.lowlevel.checkpoint()
        return f"each of {len(self._workers)} workers writes its own"

    def status(self) -> dict[str, Any]:
        """How the daemon does, and each of its workers."""
        vitals = self.look()
        return {
            "pid": os.getpid(),
            "version": __version__,
            "state": self._lifecycle.state,
            "addresses": list(self._addresses),
            "clients": vitals.clients,
            "redis": "away" if vitals.is_waiting else "connected",
            "workers": [{"slot": slot, **worker.state()} for slot, worker in sorted(self._workers.items())],
        }

    def stop(self) -> None:
        """Have all workers drain and end; who connects is theirs alone from here on. Synchronous."""
        for worker in self._workers.values():
            worker.say({"do": "stop", "is_taken_over": self._lifecycle.is_taken_over})
        self._slots.close()

    def _launch(self, slot: int) -> Launch:
        config = self.effective.config
        share = share_of(config, slot, len(self._slots.own), self._open_files, len(self._slots.everything))
        return Launch(
            attrs.evolve(self.effective, config=share),
            slot,
            tuple(tuple(map(PassedListener.of, listeners)) for listeners in self._slots.own),
            tuple(map(PassedListener.of, self._slots.shared)),
            str(self._folder),
            self._is_dev,
        )

    def _arrange(self) -> None:
        """Say who accepts for whom. Synchronous."""
        serving = {slot for slot, worker in self._workers.items() if worker.is_serving}
        if serving:
            self._deserted_since = math.inf
        elif math.isinf(self._deserted_since):
            self._deserted_since = trio.current_time()
        everyone = set(range(len(self._slots.own)))
        if not self.started.is_set():
            if serving == everyone:
                self.started.set()
            return
        # While it stops, too: until its doors close, who comes is served.
        for slot in serving:
            worker, deserted = self._workers[slot], everyone - serving
            for other in deserted - worker.stands_in_for:
                worker.say({"do": "stand_in", "slot": other})
            for other in worker.stands_in_for - deserted:
                worker.say({"do": "stand_down", "slot": other})
            worker.stands_in_for = deserted


@contextmanager
def _private_folder() -> Iterator[Path]:
    """A new folder for this user alone, with a name that has room for a socket's behind it."""
    parent = tempfile.gettempdir()
    if len(os.fsencode(parent)) > _FOLDER_MAX_BYTES:
        parent = "/tmp"
    with tempfile.TemporaryDirectory(prefix="broker-workers-", dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _told(status: int) -> str:
    """How a process has ended, in words."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
