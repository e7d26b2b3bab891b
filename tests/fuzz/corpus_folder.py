"""The kept corpus, `corpus/<target>/`: inputs that, together with the seeds, take every branch that campaigns found.

A file is called by the SHA-1 of what it holds, as libFuzzer does. What broke a promise is in it too, with `BROKE`
before its name, and stays. Bounds, for each target, of the others: `FILES_MAX` and `BYTES_MAX`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
FILES_MAX = 150
BYTES_MAX = 50_000
BROKE = "broke-"


def kept(target: str) -> Sequence[bytes]:
    """The inputs, in the order of their names."""
    return [file.read_bytes() for file in sorted((CORPUS / target).glob("*"))]


def is_full(target: str) -> bool:
    """Whether there are too many."""
    sizes = [file.stat().st_size for file in _replaceable(target)]
    return len(sizes) > FILES_MAX or sum(sizes) > BYTES_MAX


def keep(target: str, data: bytes, prefix: str = "") -> Path:
    """Add an input, however many there are. `prefix`: `BROKE` for one that broke a promise."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    return write(folder, data, prefix)


def replace(target: str, inputs: Sequence[bytes]) -> None:
    """Keep these, what broke a promise, and no others; of too many, the shortest."""
    for file in _replaceable(target):
        file.unlink()
    size = 0
    for data in sorted(inputs, key=lambda data: (len(data), data))[:FILES_MAX]:
        size += len(data)
        if size <= BYTES_MAX:
            keep(target, data)


def _replaceable(target: str) -> Sequence[Path]:
    return [file for file in (CORPUS / target).glob("*") if not file.name.startswith(BROKE)]


def write(folder: Path, data: bytes, prefix: str = "") -> Path:
    """A file of a corpus."""
    file = folder / f"{prefix}{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"
    file.write_bytes(data)
    return file
