"""Lays the daemon out as it is installed, with its units and settings, and makes a Debian package of that.

    python conf/debian/package.py install --destdir / --prefix /usr/local
    python conf/debian/package.py deb --output dist

What is copied is what runs here: the tree's `broker/`, and of the Python that runs this every distribution that
`install_requires` in setup.cfg leads to. Nothing is downloaded, neither now nor when it is installed. The copy is a
virtual environment of its own in PREFIX/lib/broker; its Python is the system's of the same version, as compiled
modules are for that version only.
"""

from __future__ import annotations

import argparse
import compileall
import configparser
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

try:
    from packaging.requirements import Requirement
except ImportError:  # where no tests are installed, pip brings it
    from pip._vendor.packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPTS = Path(__file__).resolve().parent
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
CONFFILES = ("/etc/broker/broker.toml", "/etc/broker/broker.env")
SET = {
    # The embedded server would be another one for each start, and lose what it keeps.
    '# url = ""\n': 'url = "redis://127.0.0.1:6379/0"\n',
    # Where `broker reload` finds it, whoever calls it.
    '# control_socket = ""\n': 'control_socket = "/run/broker/control.sock"\n',
}
ENV_FILE = """\
# What is secret, for broker.service: lines of VARIABLE=value, as the comments in broker.toml name them.
# Only root can read this file. `systemctl restart broker` makes a change count.
#BROKER_AUTH_SECRET=
#BROKER_REDIS_URL=redis://:PASSWORD@127.0.0.1:6379/0
"""


def distributions(version: str) -> list[Distribution]:
    """Everything that the daemon needs to run by a Python of that version, such as 3.11.2, without the daemon."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    found: dict[tuple[str, str], Distribution] = {}
    left = [(Requirement(line), "") for line in setup["options"]["install_requires"].split("\n") if line.strip()]
    while left:
        requirement, extra = left.pop()
        there = {"extra": extra, "python_full_version": version}
        if requirement.marker is not None and not requirement.marker.evaluate(there):
            continue
        for wanted in ("", *requirement.extras):
            key = (re.sub(r"[-_.]+", "-", requirement.name).lower(), wanted)
            if key in found:
                continue
            try:
                found[key] = distribution(requirement.name)
            except PackageNotFoundError:
                sys.exit(
                    f"{requirement}, for Python {version}, is not installed in {sys.prefix}; "
                    f"make the venv anew of that Python: `make clean install PYTHON=/usr/bin/{PYTHON}`"
                )
            left += [(Requirement(line), wanted) for line in found[key].requires or ()]
    return list({one.metadata["Name"]: one for one in found.values()}.values())


def lay_out(root: Path, prefix: str, units: str, python: str, *, keeps_settings: bool) -> None:
    """Put every file below `root` where it belongs.

    Args:
        python: the program that runs it, by its absolute path there.
        keeps_settings: whether settings that are there stay.
    """
    home = Path(f"{prefix}/lib/broker")
    inside = _below(root, home)
    if inside.exists():
        shutil.rmtree(inside)
    site = inside / "lib" / PYTHON / "site-packages"
    site.mkdir(parents=True)
    for one in distributions(_version_of(python)):
        _copy_distribution(one, site)
    shutil.copytree(ROOT / "broker", site / "broker", ignore=shutil.ignore_patterns("__pycache__"))
    if not compileall.compile_dir(site, quiet=2, stripdir=root, prependdir="/", workers=1):
        sys.exit(f"{site}: not everything could be compiled")
    (inside / "bin").mkdir()
    (inside / "bin" / "python").symlink_to(python)
    _write(inside / "pyvenv.cfg", f"home = {os.path.dirname(python)}\ninclude-system-site-packages = false\n")
    starter = "import sys\nfrom broker.cli import main\nif __name__ == '__main__':\n    sys.exit(main())\n"
    _write(inside / "bin" / "broker", f"#!{home}/bin/python\n{starter}", 0o755)
    program = _below(root, Path(prefix) / "bin" / "broker")
    program.parent.mkdir(parents=True, exist_ok=True)
    program.unlink(missing_ok=True)
    program.symlink_to("../lib/broker/bin/broker")
    for name in ("broker.service", "broker.socket"):
        text = (ROOT / "conf" / name).read_text().replace("/usr/bin/broker", f"{prefix}/bin/broker")
        _write(_below(root, Path(units) / name), text)
    toml = (ROOT / "conf" / "broker.toml").read_text()
    for default, line in SET.items():
        if toml.count(default) != 1:
            sys.exit(f"conf/broker.toml has no line {default!r} to set; mend SET in {__file__}")
        toml = toml.replace(default, line)
    for path, text, mode in zip(CONFFILES, (toml, ENV_FILE), (0o644, 0o600), strict=True):
        target = _below(root, Path(path))
        if not (keeps_settings and target.exists()):
            _write(target, text, mode)
    texts = _below(root, Path(prefix) / "share" / "doc" / "broker")
    for source in (ROOT / "README.md", ROOT / "LICENSE", *sorted((ROOT / "docs").glob("*.md"))):
        _write(texts / source.name, source.read_text())


def _copy_distribution(one: Distribution, site: Path) -> None:
    """Its modules and metadata; scripts, which lie outside, are left."""
    for file in one.files or ():
        source = Path(str(file.locate()))
        if ".." in file.parts or file.is_absolute() or not source.exists():
            continue
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)  # with its time, which its compiled form is held against


def install(destdir: str, prefix: str, units: str) -> None:
    """`make install-systemd`."""
    if not prefix.startswith("/") or prefix != os.path.normpath(prefix):
        sys.exit(f"PREFIX is {prefix!r}; write an absolute path such as /usr/local")
    if not units:
        units = f"{prefix}/lib/systemd/system" if prefix in ("/usr", "/usr/local") else "/etc/systemd/system"
    lay_out(Path(destdir or "/").resolve(), prefix, units, _python_for_everybody(), keeps_settings=True)
    print(f"installed {prefix}/bin/broker, {units}/broker.service and broker.socket, {', '.join(CONFFILES)}")
    if destdir in ("", "/"):
        print("now: systemctl daemon-reload && systemctl enable --now broker.socket broker.service")


def _python_for_everybody() -> str:
    """The system's Python of this version; else the one that runs this, if the daemon's user can run it too."""
    system = f"/usr/bin/{PYTHON}"
    if os.access(system, os.X_OK):
        return system
    path = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    for folder in path.parents:
        if not folder.stat().st_mode & stat.S_IXOTH or folder in (Path("/root"), Path("/home")):
            sys.exit(
                f"{path} cannot be run by the daemon's own user, and there is no {system}; "
                "make the venv anew with `make clean install PYTHON=/usr/bin/python3`"
            )
    return str(path)


def make_package(output: Path, compression: str) -> Path:
    """`make deb`: build the package, and say where it is."""
    version, architecture = _version(), _printed("dpkg", "--print-architecture")
    system = f"/usr/bin/{PYTHON}"
    output.mkdir(parents=True, exist_ok=True)
    package = output / f"broker_{version}_{architecture}.deb"
    with tempfile.TemporaryDirectory(prefix="broker-deb-") as folder:
        root = Path(folder) / "root"
        root.mkdir(mode=0o755)
        lay_out(root, "/usr", "/usr/lib/systemd/system", system, keeps_settings=False)
        kilobytes = sum(file.lstat().st_size for file in root.rglob("*")) // 1024
        fields = {
            "Package": "broker",
            "Version": version,
            "Architecture": architecture,
            "Maintainer": "the broker's makers <broker@localhost>",
            "Installed-Size": str(kilobytes),
            # Compiled modules come as manylinux wheels, which want this C library.
            "Depends": f"{PYTHON} (>= {_version_of(system)}), libc6 (>= 2.28)",
            "Recommends": "redis-server | valkey-server",
            "Section": "net",
            "Priority": "optional",
            "Description": "event broker, from Redis to browsers\n"
            " A daemon that takes the events that services publish through Redis to browsers and services,\n"
            " over WebSocket and Server-Sent Events.",
        }
        _write(root / "DEBIAN" / "control", "".join(f"{name}: {text}\n" for name, text in fields.items()))
        _write(root / "DEBIAN" / "conffiles", "".join(f"{path}\n" for path in CONFFILES))
        for name in ("postinst", "prerm", "postrm"):
            _write(root / "DEBIAN" / name, (SCRIPTS / name).read_text(), 0o755)
        command = ["dpkg-deb", "--root-owner-group", f"-Z{compression}", "--build", str(root), str(package)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    print(package)
    return package


def _version() -> str:
    """The broker's, as Debian orders it: 1.0rc1 comes before 1.0."""
    sys.path.insert(0, str(ROOT))
    from broker import __version__

    return re.sub(r"\.?(a|b|rc|dev)(\d+)", r"~\1\2", __version__)


def _version_of(python: str) -> str:
    """Of the Python that runs what is installed: requirements may differ between 3.11.2 and 3.11.3."""
    if not os.access(python, os.X_OK):
        sys.exit(
            f"there is no {python}; what is made of {sys.prefix} runs with the system's Python of that version only. "
            "Make the venv anew of the system's: `make clean install PYTHON=/usr/bin/python3`"
        )
    return _printed(python, "-c", "import platform; print(platform.python_version())")


def _printed(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("install", help="copy everything into place")
    one.add_argument("--destdir", default="", help="a folder that stands for /")
    one.add_argument("--prefix", default="/usr/local")
    one.add_argument("--units", default="", help="the folder of the units; default: where systemd looks")
    two = commands.add_parser("deb", help="build a Debian package")
    two.add_argument("--output", type=Path, default=ROOT / "dist")
    two.add_argument("--compression", default="zstd", choices=("zstd", "xz", "gzip", "none"))
    options = parser.parse_args(arguments)
    os.umask(0o022)
    if options.command == "install":
        install(options.destdir, options.prefix, options.units)
    else:
        make_package(options.output, options.compression)


if __name__ == "__main__":
    main()
