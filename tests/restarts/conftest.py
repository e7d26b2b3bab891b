"""Daemons on a port that is known before, so that another one can take it over."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import Factory, define

from tests.actors import peers
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import free_port
from tests.conftest import errors_of
from tests.systemd.manager import Service


@define(eq=False)
class Row:
    """Daemons that follow one another; each is stopped at the end, and none may have logged an error."""

    folder: Path
    daemons: list[DaemonProcess] = Factory(list)
    services: list[Service] = Factory(list)

    def first(self, redis_url: str | None, *flags: str, environ: dict[str, str] | None = None) -> DaemonProcess:
        """A daemon on a free port; started."""
        daemon = self.first_of(redis_url, *flags, environ=environ)
        daemon.start()
        return daemon

    def first_of(self, redis_url: str | None, *flags: str, environ: dict[str, str] | None = None) -> DaemonProcess:
        """As `first`; not started yet."""
        return self._add(redis_url, f"127.0.0.1:{free_port()}", flags, environ or {})

    def after(self, daemon: DaemonProcess, *flags: str, redis_url: str | None = None) -> DaemonProcess:
        """One of the same settings that takes over; not started yet."""
        return self._add(
            redis_url or daemon.redis_url, daemon.listen, (*daemon.flags, *flags, "--takeover"), daemon.environ
        )

    def _add(
        self, redis_url: str | None, listen: str, flags: tuple[str, ...], environ: dict[str, str]
    ) -> DaemonProcess:
        log = self.folder / f"daemon-{len(self.daemons)}.log"
        flags = flags if "json" in flags else ("--log-format", "json", *flags)
        environ = {"XDG_RUNTIME_DIR": str(self.folder), **environ}
        daemon = DaemonProcess(redis_url, log, flags, environ, listen)
        self.daemons.append(daemon)
        return daemon

    def close(self) -> None:
        started = [daemon for daemon in (*self.daemons, *self.services) if hasattr(daemon, "process")]
        for daemon in started:
            daemon.stop()
        for daemon in started:
            assert errors_of(daemon) == []  # type: ignore[arg-type]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for a socket's path, however the tests are run."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        yield Path(name)


@pytest.fixture
def row(folder: Path) -> Iterator[Row]:
    row = Row(folder)
    yield row
    peers.close_all()
    row.close()
