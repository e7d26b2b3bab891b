"""A file with keys: read at the start, and again when it has changed.

Law: a file that cannot be used any more leaves the keys that it had. Synchronous: the file is local and small.
Bound: `FILE_MAX_BYTES`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from attrs import define, field

from broker.auth.keyring import Keyring

FILE_MAX_BYTES = 1024 * 1024


@define(eq=False)
class KeyFile:
    """One file.

    Args:
        parse: what makes keys of its bytes; raises ValueError.

    Raises:
        ValueError: it cannot be used; the message says why.
    """

    path: Path
    _parse: Callable[[bytes], Keyring]
    keyring: Keyring = field(init=False)
    _seen: tuple[int, ...] | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.keyring = Keyring()
        self.look()

    def look(self) -> bool:
        """Read the file if it is another than last time. Returns whether it was read.

        Raises:
            ValueError: it has changed, and cannot be used; once for each change.
        """
        try:
            # Not waiting for a writer, should it be a pipe.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                found = os.fstat(descriptor)
                seen = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
                if seen == self._seen:
                    return False
                self._seen = seen
                if not stat.S_ISREG(found.st_mode):
                    raise ValueError("is no file")
                with open(descriptor, "rb", closefd=False) as file:
                    data = file.read(FILE_MAX_BYTES + 1)
            finally:
                os.close(descriptor)
        except OSError as error:
            if self._seen == ():
                return False
            self._seen = ()
            raise ValueError(f"cannot be read: {error.strerror}") from None
        if len(data) > FILE_MAX_BYTES:
            raise ValueError(f"is larger than {FILE_MAX_BYTES} bytes")
        self.keyring = self._parse(data)
        return True
