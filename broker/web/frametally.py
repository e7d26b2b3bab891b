"""What a peer's HTTP/2 frames cost, told by their heads alone, before h2 reads them.

h2 checks what frames say. It does not mind how many of them say nothing, and keeps a request head of any
size that its frames allow until the head is whole. So frames that carry neither a request nor data have a budget:
it grows with time and with what was sent to the peer, since who reads much tells us so in many frames.

Laws: synchronous; no clock. Bounds: `BUDGET` frames at once, `PER_SECOND` on average; a request head, as it is on the
wire, of `head_max_bytes`; a frame of `FRAME_BYTES`.
Source: RFC 9113, 4.1 and 10.5; CVE-2019-9512 to 9518, CVE-2023-44487, CVE-2024-27316.
"""

from __future__ import annotations

from attrs import define, field

PREFACE_BYTES = 24
FRAME_BYTES = 16 * 1024  # what SETTINGS_MAX_FRAME_SIZE is unless it is set
BUDGET = 2000.0
PER_SECOND = 200.0
BYTES_PER_FRAME = 1024  # so many bytes sent are good for one more frame
RESET_COST = 10

_HEAD_BYTES = 9
_DATA, _HEADERS, _SETTINGS, _CONTINUATION = 0, 1, 4, 9
_END_STREAM, _END_HEADERS = 1, 4
_COST = {_SETTINGS: 10}


class TooMuch(Exception):
    """The peer sends more than it may; its connection ends. `str()` says of what."""


@define(eq=False)
class FrameTally:
    """Reads the heads of frames in the bytes of one connection.

    Args:
        now: the time, in seconds.
    """

    _head_max_bytes: int
    _now: float
    _budget: float = field(init=False, default=BUDGET)
    _to_skip: int = field(init=False, default=PREFACE_BYTES)
    _head: bytearray = field(init=False, factory=bytearray)
    _block_bytes: int = field(init=False, default=0)
    has_frames: bool = field(init=False, default=False)
    in_block: bool = field(init=False, default=False)  # a request head has begun and is not whole

    def take(self, data: bytes, now: float) -> None:
        """Count the frames that begin in `data`.

        Raises:
            TooMuch: they are too many, or one is too large.
        """
        self._budget = min(BUDGET, self._budget + (now - self._now) * PER_SECOND)
        self._now = now
        at, size = 0, len(data)
        while at < size:
            if self._to_skip:
                step = min(self._to_skip, size - at)
                self._to_skip -= step
                at += step
                continue
            step = min(_HEAD_BYTES - len(self._head), size - at)
            self._head += data[at : at + step]
            at += step
            if len(self._head) == _HEAD_BYTES:
                self._begin(int.from_bytes(self._head[:3], "big"), self._head[3], self._head[4])
                self._head.clear()

    def sent(self, bytes: int) -> None:
        """The peer was sent so much."""
        self._budget = min(BUDGET, self._budget + bytes / BYTES_PER_FRAME)

    def charge(self, cost: float, what: str) -> None:
        """
        Raises:
            TooMuch: the budget is spent.
        """
        self._budget -= cost
        if self._budget < 0:
            raise TooMuch(what)

    def _begin(self, length: int, kind: int, flags: int) -> None:
        if length > FRAME_BYTES:
            raise TooMuch(f"a frame of {length} bytes")
        self.has_frames = True
        self._to_skip = length
        if kind in (_HEADERS, _CONTINUATION):
            self._block_bytes = length if kind == _HEADERS else self._block_bytes + length
            if self._block_bytes > self._head_max_bytes:
                raise TooMuch("a request head over the limit")
            self.in_block = not flags & _END_HEADERS
        if kind == _HEADERS or (kind == _DATA and (length or flags & _END_STREAM)):
            return
        self.charge(_COST.get(kind, 1), "frames that carry nothing")
