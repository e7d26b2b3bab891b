"""Assets: the files of `broker/browser/` as a browser gets them, each in full and compressed.

Laws: a file has a name of plain letters below its folder, or one folder deeper, with an ending that is listed here;
nothing else is ever looked for, so no path leads out. What has changed on the disk (a working tree, an upgrade) is
read anew; what has not is read and compressed once.

Bounds: memory for the files that the package has, twice. Reads are synchronous: a few kilobytes from the package.

Source: RFC 9110, 8.8.3 (the two encodings of a file have two entity tags), 13.1.2.
"""

from __future__ import annotations

import gzip
import re
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from attrs import define, field, frozen

CLIENT_ROOT = "/client"

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*(?P<ending>\.(?:d\.ts|js|css|html|svg))")
_INNER = re.compile(r"[a-z]+")
_CONTENT_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".d.ts": "text/plain; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".svg": "image/svg+xml",
}
_GZIP_LEVEL = 9


@frozen
class Asset:
    """One file.

    Args:
        state: tells whether the file is still the one that was read.
        etag: without quotes, of the file itself; compressed it has another.
    """

    state: tuple[int, int]
    content_type: str
    body: bytes
    gzipped: bytes
    etag: str

    @property
    def gzipped_etag(self) -> str:
        return f"{self.etag}-gzip"


@define(eq=False)
class Assets:
    """The files of a folder of `broker/browser/`, and of the folders in it.

    Args:
        folder: its name below `broker/browser/`; empty for that itself.
        without: a folder in it whose files do not belong to it.
    """

    _folder: str = ""
    _without: str = ""
    _found: dict[str, Asset] = field(init=False, factory=dict)

    def get(self, name: str) -> Asset | None:
        """The file of that name, such as `index.js` or `react/channel.js`; None where there is none."""
        inner, slash, plain = name.rpartition("/")
        match = _NAME.fullmatch(plain)
        if match is None or (slash and (inner == self._without or not _INNER.fullmatch(inner))):
            return None
        file = files("broker") / "browser"
        for part in (self._folder, inner, plain):
            file = file / part if part else file
        return self._read(name, file, _CONTENT_TYPES[match["ending"]])

    def _read(self, name: str, file: Traversable, content_type: str) -> Asset | None:
        known = self._found.get(name)
        try:
            state = _state_of(file)
            if known is not None and known.state == state:
                return known
            body = file.read_bytes()
        except OSError:
            # Gone, never there, or a folder.
            self._found.pop(name, None)
            return None
        etag = sha256(body).hexdigest()[:20]
        found = Asset(state, content_type, body, gzip.compress(body, _GZIP_LEVEL, mtime=0), etag)
        self._found[name] = found
        return found


def _state_of(file: Traversable) -> tuple[int, int]:
    """Another one when the file is written anew. Files in an archive stay as they are."""
    if not isinstance(file, Path):
        return (0, 0)
    status = file.stat()
    return (status.st_mtime_ns, status.st_size)
