"""The kept corpus, `corpus/<target>/`: inputs that, together with the seeds, take every branch that campaigns found.

What was found to break a promise is in it too. A file is called by the SHA-1 of what it holds, as libFuzzer does.
Bounds, for each target: `FILES_MAX` and `BYTES_MAX`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
FILES_MAX = 150
BYTES_MAX = 50_000


def kept(target: str) -> Sequence[bytes]:
    """The inputs, in the order of their names."""
    return [file.read_bytes() for file in sorted((CORPUS / target).glob("*"))]


def is_full(target: str) -> bool:
    """Whether there are too many."""
    found = kept(target)
    return len(found) > FILES_MAX or sum(map(len, found)) > BYTES_MAX


def keep(target: str, data: bytes) -> Path:
    """Add an input, however many there are."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    return write(folder, data)


def replace(target: str, inputs: Sequence[bytes]) -> None:
    """Keep these and no others; of too many, the shortest."""
    for file in (CORPUS / target).glob("*"):
        file.unlink()
    size = 0
    for data in sorted(inputs, key=lambda data: (len(data), data))[:FILES_MAX]:
        size += len(data)
        if size <= BYTES_MAX:
            keep(target, data)


def write(folder: Path, data: bytes) -> Path:
    """A file of a corpus."""
    file = folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()
    file.write_bytes(data)
    return file
