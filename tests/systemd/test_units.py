"""The units: known to systemd, hardened, and in step with the settings."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest

from broker.config.sections import Daemon, Listen

CONF = Path(__file__).resolve().parent.parent.parent / "conf"
EXPOSURE_MOST = 1.5
ANALYZE = shutil.which("systemd-analyze")

needs_systemd_analyze = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def section(name: str, title: str) -> dict[str, str]:
    """A section of a unit; of what is there twice, the last."""
    parser = RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(CONF / name)
    return dict(parser[title])


def analyzed(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, "--no-pager", *arguments], capture_output=True, text=True, timeout=30)


@needs_systemd_analyze
def test_the_exposure() -> None:
    done = analyzed("security", "--offline=true", str(CONF / "broker.service"))
    found = re.search(r"Overall exposure level for broker.service: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    print(found[0])
    assert float(found[1]) <= EXPOSURE_MOST


@needs_systemd_analyze
def test_systemd_knows_every_directive(tmp_path: Path) -> None:
    for name in ("broker.service", "broker.socket"):
        (tmp_path / name).write_text((CONF / name).read_text().replace("/usr/bin/broker", sys.executable))
    done = analyzed("verify", "--man=no", *map(str, sorted(tmp_path.iterdir())))
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "broker" in line]
    assert (done.returncode, ours) == (0, [])


def test_the_service_is_in_step_with_the_settings() -> None:
    service = section("broker.service", "Service")
    assert (service["Type"], service["KillMode"], service["NotifyAccess"]) == ("notify", "mixed", "main")
    assert int(service["TimeoutStopSec"]) >= 2 * Daemon().drain_seconds
    assert service["ExecStartPre"] == "/usr/bin/broker check --config /etc/broker/broker.toml"
    assert service["ExecStart"] == "/usr/bin/broker serve --config /etc/broker/broker.toml"
    assert service["ExecReload"] == "/usr/bin/broker reload --config /etc/broker/broker.toml"
    assert int(service["WatchdogSec"]) > 0
    assert service["DynamicUser"] == "yes"
    assert int(service["LimitNOFILE"]) > 100_000


def test_the_socket_is_in_step_with_the_settings() -> None:
    listened = section("broker.socket", "Socket")
    assert (listened["ListenStream"],) == Listen().addresses
    assert int(listened["Backlog"]) == Listen().backlog
    assert listened["NoDelay"] == "yes"
