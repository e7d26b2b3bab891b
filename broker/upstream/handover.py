"""The hand-over: a recorder that leaves lets another go on under the same generation, and nothing is missed.

    who leaves                              who waits
    offer <token> <patterns>            ─▶  subscribes to what is recorded
                                        ◀─  listening <token> <who>, the first one counts
    marker <token> <who>                ─▶  drops what it heard before the marker, holds what comes behind it
    records up to the marker, waits for the answers, then passes the lease on
    passed <token> <generation>         ─▶  records what it held, and goes on

All this is said on one channel. Redis brings what is published to all in the same order, so that who leaves and
who comes have the same messages before the marker, and the same behind it.

Laws: the lease is passed on only if it is still that of the generation, and all that came before the marker is
answered; where anything else happens who leaves says `free`, or nothing, and the next recorder begins a new generation,
which tells of a gap. Only one that listens to the same patterns counts.

`parting.py` is who leaves, `heir.py` and `standby.py` are who waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from attrs import frozen

OFFER = "offer"
LISTENING = "listening"
MARKER = "marker"
PASSED = "passed"
FREE = "free"


def channel_of(prefix: str) -> str:
    """Where recorders hear each other."""
    return f"{prefix}broker:recorder"


def digest_of(patterns: Iterable[bytes]) -> str:
    """The same for who records the same."""
    return sha256(b"\n".join(sorted(patterns))).hexdigest()[:16]


@frozen
class Notice:
    """What one recorder says to the others.

    Args:
        token: of one hand-over.
        about: whom or what it is about, as shown above; `-` for nothing.
    """

    verb: str
    token: str
    about: str

    @classmethod
    def parse(cls, text: bytes) -> Notice | None:
        """None for what nobody of us said."""
        parts = text.decode("utf-8", "replace").split(" ")
        return cls(*parts) if len(parts) == 3 else None

    @property
    def is_number(self) -> bool:
        """Whether it is about a generation."""
        return self.about.isdecimal() and len(self.about) < 20

    def __str__(self) -> str:
        return f"{self.verb} {self.token} {self.about}"
