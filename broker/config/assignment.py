"""One option of one channel type, in the one line that flags and variables have: `job_progress.validate=event`.

The grammar of channels lets a type have dots and equals signs of its own, so the key is what stands
between the last dot before the last equals sign, and that sign.
"""

from __future__ import annotations

import re

from attrs import frozen

from broker.config.secret import shown

_ASSIGNMENT = re.compile(r"(?P<type>.+)\.(?P<key>[A-Za-z0-9_-]+)\s*=\s*(?P<text>[^=]*)")


@frozen
class Assignment:
    """`TYPE.KEY=VALUE`, read but not checked: neither is the type known to be one, nor the key, nor the value."""

    type: str
    key: str
    text: str

    @classmethod
    def parse(cls, line: str) -> Assignment:
        """Read `TYPE.KEY=VALUE`.

        Raises:
            ValueError: it has another form; the message says what to write.
        """
        match = _ASSIGNMENT.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"{shown(line)} is not TYPE.KEY=VALUE; write it such as job_progress.validate=event")
        return cls(match["type"], match["key"], match["text"])
