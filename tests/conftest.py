"""Fixtures that every test may use: a real Redis, a real daemon, and no unexpected ERROR in its log."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.actors.roots import trust_one_root

trust_one_root()

# How fast a machine makes examples is no property of the code.
settings.register_profile("broker", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("broker")


# The files that take longest, those that wait among those that compute. One that began last would keep the others
# waiting.
LONGEST_FIRST = (
    "stories/test_evaluation_faults.py",
    "browser/test_example.py",
    "faults/test_soak.py",
    "browser/test_console.py",
    "stories/test_evaluations.py",
    "browser/test_core_delivery.py",
    "systemd/test_machine.py",
    "browser/test_core_faults.py",
    "upstream/test_recorder_handover.py",
    "workers/test_four_workers.py",
    "stress/test_stress.py",
    "browser/test_console_trouble.py",
    "stories/test_redis_faults.py",
    "workers/test_supervisor.py",
    "browser/test_tabs.py",
    "stories/test_startup.py",
    "browser/test_units.py",
    "subscriber/test_with_tokens.py",
    "tls/test_http2.py",
    "browser/test_types.py",
    "faults/test_resume.py",
    "nodes/test_nodes_that_go.py",
)


def pytest_xdist_auto_num_workers() -> int:
    """`-n auto`: five for two processors, as many a test waits for a time to pass."""
    return (os.cpu_count() or 1) * 5 // 2


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is collected stays to the end: to look through it for garbage, then and in every test, takes time."""
    gc.disable()
    found = yield
    gc.freeze()
    gc.enable()
    return found


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put `LONGEST_FIRST` in front, where several processes share the files."""
    if not hasattr(config, "workerinput"):
        return
    places = {file: place for place, file in enumerate(LONGEST_FIRST)}
    root = Path(__file__).parent
    items.sort(key=lambda item: places.get(item.path.relative_to(root).as_posix(), len(places)))


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A started server, without persistence."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """Starts daemons: `start_daemon(redis_url, *flags)`. A test whose daemon logs an error fails."""
    yield from daemons(tmp_path)


def daemons(folder: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """What starts daemons, for a fixture; their logs are in `folder`. In the end they are stopped, and looked at."""
    started: list[DaemonProcess] = []

    def start(
        redis_url: str | None, *flags: str, environ: dict[str, str] | None = None, is_forked: bool = True
    ) -> DaemonProcess:
        log = folder / f"daemon-{len(started)}.log"
        daemon = DaemonProcess(redis_url, log, ("--log-format", "json", *flags), environ or {}, is_forked=is_forked)
        started.append(daemon)
        daemon.start()
        return daemon

    yield start
    for daemon in started:
        if hasattr(daemon, "port"):
            daemon.stop()
    assert [error for daemon in started for error in errors_of(daemon)] == []


@pytest.fixture
def daemon(redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]) -> DaemonProcess:
    """A daemon on `redis_server`, with the defaults."""
    return start_daemon(redis_server.url)


def errors_of(daemon: DaemonProcess) -> list[object]:
    """What the daemon logged at level error, and every line that is no log line (a traceback, say)."""
    found: list[object] = []
    for line in daemon.log().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            found.append(line)
            continue
        if entry.get("level") in ("error", "critical") and entry.get("event") not in daemon.expected_errors:
            found.append(entry)
    return found
