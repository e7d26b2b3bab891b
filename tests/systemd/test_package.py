"""What `make install-systemd` puts where; nothing of this machine is changed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from broker import __version__

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def made(target: str, *variables: str) -> subprocess.CompletedProcess[str]:
    """A target of the Makefile, with the Python that runs this, and nothing installed anew."""
    command = ["make", "--silent", "--old-file=.venv/installed", f"BIN={Path(sys.executable).parent}", target]
    return subprocess.run([*command, *variables], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_installed_tree(tmp_path: Path) -> None:
    """It runs by itself, from where it is, and keeps settings that are there."""
    kept = tmp_path / "etc" / "broker" / "broker.env"
    kept.parent.mkdir(parents=True)
    kept.write_text("BROKER_LOG_LEVEL=debug\n")
    done = made("install-systemd", f"DESTDIR={tmp_path}", "PREFIX=/opt/broker")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "installed /opt/broker/bin/broker, /etc/systemd/system/broker.service and broker.socket, "
        "/etc/broker/broker.toml, /etc/broker/broker.env\n"
    )
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*/*")} == {
        "etc/broker/broker.env",
        "etc/broker/broker.toml",
        "etc/systemd/system",
        "opt/broker/bin",
        "opt/broker/lib",
        "opt/broker/share",
    }
    assert kept.read_text() == "BROKER_LOG_LEVEL=debug\n"
    service = (tmp_path / "etc/systemd/system/broker.service").read_text()
    assert service == (ROOT / "conf/broker.service").read_text().replace("/usr/bin/broker", "/opt/broker/bin/broker")
    assert (tmp_path / "opt/broker/bin/broker").readlink() == Path("../lib/broker/bin/broker")
    home = tmp_path / "opt/broker/lib/broker"
    assert (home / "bin/broker").read_text().startswith("#!/opt/broker/lib/broker/bin/python\n")
    # As its own: not a module comes from this checkout.
    code = "import broker, redis, broker.cli; print(broker.__version__, broker.__file__, redis.__file__)"
    seen = subprocess.run(
        [home / "bin/python", "-I", "-c", code], cwd="/", capture_output=True, text=True, check=True, timeout=30
    )
    version, *files = seen.stdout.split()
    assert (version, [file.startswith(f"{home}/lib/python") for file in files]) == (__version__, [True, True])
    shown = subprocess.run(
        [home / "bin/python", "-m", "broker", "config", "show", "--config", tmp_path / "etc/broker/broker.toml"],
        cwd="/", capture_output=True, text=True, timeout=30, env={},
    )  # fmt: skip
    assert (shown.returncode, shown.stderr) == (0, "")
    words = next(line.split() for line in shown.stdout.splitlines() if line.startswith("redis.url"))
    assert '"redis://127.0.0.1:6379/0"' in words


def test_a_prefix_that_is_none(tmp_path: Path) -> None:
    prefix = "/usr/../local"
    done = made("install-systemd", f"DESTDIR={tmp_path}", f"PREFIX={prefix}")
    assert done.returncode != 0
    assert done.stderr.startswith(f"PREFIX is '{prefix}'; write an absolute path such as /usr/local\n")
    assert list(tmp_path.iterdir()) == []
