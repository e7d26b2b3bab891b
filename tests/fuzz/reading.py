"""What comes out, read as a strict client reads it: lines of an event stream, frames, the head of an answer.

Each raises AssertionError where something is in it that the sender did not mean to send.
"""

from __future__ import annotations

import json
import re
from typing import Any

_LINE_END = re.compile(rb"\r\n|\r|\n")
_HEADER = re.compile(rb"[A-Za-z0-9-]+: [\t\x20-\x7e\x80-\xff]*")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 [1-5][0-9]{2} [A-Za-z' -]*")


def is_one_line(text: str) -> bool:
    """Whether no terminal, log or protocol takes it for more than one line, nor as an order."""
    return text.isascii() and text.isprintable()


def events_of(stream: bytes) -> list[dict[str, str]]:
    """The events of a stream of whole blocks (WHATWG HTML, 9.2.6), each as its fields; it holds nothing else."""
    assert stream == b"" or stream.endswith(b"\n\n")
    found: list[dict[str, str]] = []
    fields: dict[str, list[str]] = {}
    for line in _LINE_END.split(stream)[:-1]:
        if not line:
            assert fields, "an empty block"
            assert all(len(values) == 1 for name, values in fields.items() if name != "data")
            found.append({name: "\n".join(values) for name, values in fields.items()})
            fields = {}
            continue
        name, colon, value = line.partition(b": ")
        assert colon and name in (b"data", b"id", b"event", b"retry", b""), line
        if name != b"data":
            assert b"\0" not in value
        if name:
            fields.setdefault(name.decode(), []).append(value.decode())
    assert not fields, "an open block"
    return found


def as_lines(payload: bytes) -> str:
    """What an event stream's client gets of a payload: every line end is a newline."""
    return _LINE_END.sub(b"\n", payload).decode()


def frames_of(data: bytes) -> list[tuple[int, bytes]]:
    """Opcode and payload of each frame of a server: whole, unmasked, no bits reserved (RFC 6455, 5.2)."""
    found = []
    at = 0
    while at < len(data):
        first, size = data[at], data[at + 1]
        at += 2
        assert first & 0x80 and not first & 0x70, "not a whole frame, or reserved bits"
        assert not size & 0x80, "a masked frame"
        opcode = first & 0xF
        if size > 125:
            assert opcode == 1, "a long control frame"
            width = 2 if size == 126 else 8
            size = int.from_bytes(data[at : at + width], "big")
            at += width
        payload = data[at : at + size]
        assert len(payload) == size, "a frame cut off"
        assert opcode in (1, 8, 9, 10), opcode
        if opcode == 1:
            payload.decode()
        found.append((opcode, payload))
        at += size
    return found


def head_of(answer: bytes) -> tuple[dict[str, str], bytes]:
    """The headers and the body of an answer: every line one that was meant to be (RFC 9112, 4 and 5)."""
    head, end, body = answer.partition(b"\r\n\r\n")
    assert end
    status, *lines = head.split(b"\r\n")
    assert _STATUS_LINE.fullmatch(status), status
    headers: dict[str, str] = {}
    for line in lines:
        assert _HEADER.fullmatch(line), line
        name, _, value = line.decode("latin-1").partition(": ")
        assert name.lower() not in headers, f"{name} twice"
        headers[name.lower()] = value
    return headers, body


def object_of(body: bytes) -> dict[str, Any]:
    """A JSON object without a line end: what stands in a frame or a data line of ours."""
    assert not re.search(rb"[\x00-\x1f]", body), body
    found = json_of(body)
    assert isinstance(found, dict)
    return found


def json_of(text: str | bytes) -> Any:
    """Any JSON, as a browser reads it: Python's own reader refuses whole numbers of more than 4300 digits."""
    return json.loads(text, parse_int=str)
