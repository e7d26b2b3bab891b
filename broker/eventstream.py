"""Server-Sent Events: blocks of an event stream, bare or inside an HTTP/1.1 chunk.

Laws: CR, LF and CRLF each end a line in every client, so a payload is split on exactly those and
nothing in it can begin a field of its own. A NUL in an `id` voids it, so an id never has one.
Source: WHATWG HTML, 9.2.5 and 9.2.6; RFC 9112, 7.1 (chunks).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_LINE_END = re.compile(rb"\r\n|\r|\n")

END_OF_CHUNKS = b"0\r\n\r\n"


def block(
    data: bytes, *, event: str | None = None, id: str | None = None, retry_milliseconds: int | None = None
) -> bytes:
    """One event: `retry`, `id` and `event` lines where given, then a `data` line for each line of `data`.

    Args:
        event, id: without CR, LF or NUL; the caller makes them, never a client.
    """
    parts: list[bytes] = []
    if retry_milliseconds is not None:
        parts.append(b"retry: %d\n" % retry_milliseconds)
    if id is not None:
        parts.append(b"id: %s\n" % id.encode())
    if event is not None:
        parts.append(b"event: %s\n" % event.encode())
    parts.append(_data_lines(data))
    return b"".join(parts)


def blocks(payloads: Iterable[bytes]) -> bytes:
    """An event for each payload, joined in their order."""
    return b"".join(map(_data_lines, payloads))


def blocks_with_ids(ids: Sequence[bytes], payloads: Sequence[bytes]) -> bytes:
    """As `blocks`, each with its `id`."""
    return b"".join([b"id: %b\n%b" % (id, _data_lines(payload)) for id, payload in zip(ids, payloads, strict=True)])


def comment(text: str) -> bytes:
    """A line that clients ignore and proxies count as traffic. `text` has no line end."""
    return b": %s\n\n" % text.encode()


def chunk(data: bytes) -> bytes:
    """`data`, not empty, as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _data_lines(payload: bytes) -> bytes:
    if b"\n" in payload or b"\r" in payload:
        return b"".join(b"data: %b\n" % line for line in _LINE_END.split(payload)) + b"\n"
    return b"data: %b\n\n" % payload
