"""Makes the npm package @broker/client of broker/browser/, and a tarball of it.

    python conf/npm/package.py --output dist        makes dist/npm/ and dist/broker-client-<version>.tgz

What is in it: the modules as they are, which need no build step; declarations that TypeScript makes of their JSDoc;
the types of the events; a README. The console is not: it belongs to its daemon.

It needs npm, and TypeScript in tests/browser/node_modules, which tests/browser/install gets.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CLIENT = ROOT / "broker" / "browser"
TSC = ROOT / "tests" / "browser" / "node_modules" / ".bin" / "tsc"
DOCS = ROOT / "docs" / "browser.md"
CHECKED = ROOT / "tests" / "browser" / "tsconfig.json"
_COMMENT = re.compile(r"/\*\*.*?\*/", re.DOTALL)
_TAG = re.compile(r"@\w+\s*\{")
_NEXT_LINE = re.compile(r"\s*\n\s*\*\s*")
# A link to another file of the repository leads nowhere from the package: its text stays.
_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|#)[^)]+\)")
_IMAGE = re.compile(r"^!\[[^\]]*\]\([^)]*\)\n", re.MULTILINE)


class PackageError(Exception):
    """The package cannot be made; `str()` says why and what to do."""


def make(output: Path) -> Path:
    """Make the folder `npm` and the tarball in `output`. Returns the tarball's path.

    Raises:
        PackageError: a tool is missing, or says that the modules are wrong.
    """
    folder = lay_out(output / "npm")
    npm = shutil.which("npm")
    if npm is None:
        raise PackageError("npm is not there; on Debian: apt install nodejs npm")
    # No script of the package is run, and nothing is asked of a registry.
    name = _run(npm, "pack", "--ignore-scripts", "--silent", "--pack-destination", str(output), cwd=folder)
    return output / name.split()[-1]


def lay_out(folder: Path) -> Path:
    """Make what the package has, in place of what is in `folder`."""
    if not TSC.exists():
        raise PackageError("TypeScript is not there; tests/browser/install gets it")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sources = {
        source.relative_to(CLIENT): source.read_text(encoding="utf-8")
        for source in sorted(CLIENT.rglob("*"))
        if "console" not in source.parts and source.name.endswith((".js", ".d.ts"))
    }
    # TypeScript 7 leaves the stars of a type's further lines in its declarations: so it sees those types on one line.
    _write(folder, {name: types_on_one_line(text) for name, text in sources.items()})
    (folder / "tsconfig.json").write_text(json.dumps(_project(folder)))
    _run(str(TSC), "-p", str(folder), cwd=ROOT)
    (folder / "tsconfig.json").unlink()
    _write(folder, sources)
    shutil.copyfile(CLIENT / "package.json", folder / "package.json")
    shutil.copyfile(ROOT / "LICENSE", folder / "LICENSE")
    (folder / "README.md").write_text(_LINK.sub(r"\1", _IMAGE.sub("", DOCS.read_text(encoding="utf-8"))))
    return folder


def types_on_one_line(text: str) -> str:
    """A module whose JSDoc has the type behind each tag on one line."""
    return _COMMENT.sub(lambda comment: _joined(comment[0]), text)


def _joined(comment: str) -> str:
    at = 0
    while tag := _TAG.search(comment, at):
        end = tag.end()
        depth = 1
        while depth and end < len(comment):
            depth += {"{": 1, "}": -1}.get(comment[end], 0)
            end += 1
        type = _NEXT_LINE.sub(" ", comment[tag.end() : end])
        comment = comment[: tag.end()] + type + comment[end:]
        at = tag.end() + len(type)
    return comment


def _project(folder: Path) -> dict[str, object]:
    """How the declarations are made: checked as the tests check the modules."""
    options = {"noEmit": False, "declaration": True, "emitDeclarationOnly": True, "rootDir": str(folder)}
    return {"extends": str(CHECKED), "compilerOptions": options, "include": [f"{folder}/**/*.js", f"{folder}/*.d.ts"]}


def _write(folder: Path, files: Mapping[Path, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def _run(*command: str, cwd: Path) -> str:
    """Raises PackageError with what the command says."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise PackageError(f"{Path(command[0]).name}: {(done.stdout + done.stderr).strip()}")
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "dist")
    arguments = parser.parse_args()
    try:
        print(make(arguments.output.absolute()))
    except PackageError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
