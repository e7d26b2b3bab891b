"""A machine for a moment: this one's files, with systemd as process 1, in namespaces of its own.

Whatever is written there is gone with it. It has its own processes, network (loopback only), host name and control
groups; the kernel's settings are read-only in it. For root on Linux with overlayfs and systemd.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from attrs import define, field

SYSTEMD = Path("/lib/systemd/systemd")
_START_SECONDS = 20.0

# $1: an empty folder; $2: where the machine's control group is; $3: what it shares with the tests.
# basic.target would mount, load and set what is the whole kernel's: sysinit.target is nothing here.
_BOOT = r"""
set -e
PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
root=$1/root
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
ln -s pts/ptmx "$root/dev/ptmx"
mkdir -m 1777 "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/sys"
mkdir -p "$root/sys/fs/cgroup"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mkdir -p "$root/mnt/shared"
mount --bind "$3" "$root/mnt/shared"
ip link set lo up
units=$root/etc/systemd/system
rm -rf "$units"
mkdir -p "$units"
printf '[Unit]\nDefaultDependencies=no\n' >"$units/sysinit.target"
rm -rf "$root"/usr/lib/systemd/system/*.target.wants
for unit in systemd-journald-audit.socket systemd-journal-flush.service dbus.service dbus.socket tmp.mount; do
    ln -s /dev/null "$units/$unit"
done
cp -r "$3/units/." "$units/"
mkdir "$root/old"
cd "$root"
pivot_root . old
umount -l /old
exec /usr/bin/env -i container=broker PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=basic.target --log-target=console --log-level=info --show-status=no
"""


class NoMachine(Exception):
    """There can be none here; the message says why."""


@define(eq=False)
class Machine:
    """Blocks. `stop` it.

    Args:
        folder: an empty one, for a mount that only the machine sees.
        shared: a folder that the machine has as /mnt/shared; what is in `units` in it are units of the machine.
    """

    folder: Path
    shared: Path
    _group: Path = field(init=False)
    _process: subprocess.Popen[bytes] = field(init=False)
    _first: int = field(init=False)  # its process 1, as it is numbered here

    def start(self) -> None:
        """Boot, until systemd answers.

        Raises:
            NoMachine: this is no place for one.
        """
        if os.geteuid() != 0:
            raise NoMachine("only root can start systemd in namespaces")
        if not SYSTEMD.exists():
            raise NoMachine("systemd is not installed")
        self._group = _own_group() / f"broker-test-{os.getpid()}"
        try:
            self._group.mkdir()
        except OSError as error:
            raise NoMachine(f"no control group can be made: {error}") from error
        # Whatever happens to this process, nothing of the machine stays.
        enter = (
            'echo $$ >"$2/cgroup.procs" && exec setpriv --pdeathsig KILL '
            'unshare --mount --pid --ipc --uts --net --cgroup --kill-child --fork bash -c "$4" bash "$@"'
        )
        with open(self.shared / "console.log", "wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", enter, "bash", self.folder, self._group, self.shared, _BOOT],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_up():
            if time.monotonic() > deadline or self._process.poll() is not None:
                said = self.console()
                self.stop()
                raise NoMachine(f"systemd did not start in namespaces: {said[-500:]}")
            time.sleep(0.02)

    def _is_up(self) -> bool:
        try:
            self._first = int((self._group / "init.scope" / "cgroup.procs").read_text().split()[0])
        except (OSError, IndexError):
            return False
        return self.run("systemctl", "is-system-running", seconds=5).stdout.strip() in ("running", "degraded")

    def run(self, *command: str, check: bool = False, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """A command on the machine, to its end."""
        return subprocess.run(self.inside(*command), capture_output=True, text=True, timeout=seconds, check=check)

    def inside(self, *command: str) -> list[str]:
        """The command line that runs a command on the machine."""
        enter = ["nsenter", "-t", str(self._first), "-m", "-p", "-n", "-i", "-u", "-C", "-r", "-w"]
        return [*enter, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *command]

    def shown(self, unit: str, *properties: str) -> dict[str, str]:
        """What systemd says of a unit."""
        done = self.run("systemctl", "show", unit, *(f"--property={name}" for name in properties), check=True)
        return dict(line.split("=", 1) for line in done.stdout.splitlines())

    def console(self) -> str:
        """What systemd said."""
        return (self.shared / "console.log").read_text(errors="replace")

    def stop(self) -> None:
        """End all that runs there."""
        self._process.kill()
        self._process.wait()
        deadline = time.monotonic() + 5
        for group in sorted([*self._group.rglob("*/"), self._group], key=lambda path: -len(path.parts)):
            while group.is_dir():
                try:
                    group.rmdir()
                except OSError:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.01)


def _own_group() -> Path:
    """The folder of this process's control group, version 2."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    at = next((fields[1] for fields in mounts if fields[2] == "cgroup2"), None)
    path = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"), None)
    if at is None or path is None:
        raise NoMachine("there are no control groups of version 2")
    return Path(at + path)
