"""What a client comes back with: positions, cursors, `Last-Event-ID` of evaluations; and what it is told with them."""

from __future__ import annotations

import re

from broker import eventstream
from broker.cursor import CURSOR_MAX_BYTES, Cursor, since_of
from broker.gap import Gap
from broker.inquiry import PATHS, watch_of
from broker.position import NOWHERE, Position
from broker.request import RequestRefused
from broker.wireformat import EVENT_STREAM_BARE, WEBSOCKET_V1
from tests.fuzz.reading import events_of, frames_of, object_of
from tests.fuzz.target import Target
from tests.fuzz.targets.heads import check_refusal

A, B, C = NAMES = (b"job_progress:1", b"alerts:7", b"feed:x")
_POSITION = re.compile(rb"[0-9]{1,10}:[0-9]{1,15}:[0-9]{1,10}")


def check(data: bytes) -> str:
    text = data.decode("latin-1")
    position = Position.from_text(text)
    if position is not None:
        check_position(position)
    known = 0
    for names in ((A,), (A, B), (C, B, A)):
        found = since_of(text, names)
        assert found and set(found) <= set(names)
        cursor = Cursor()
        for name, since in found.items():
            if since.position is None:
                continue
            known += 1
            check_position(since.position)
            cursor.set(name, since.position.text)
        if any(since.position for since in found.values()):
            (event,) = events_of(eventstream.block(b"{}", id=cursor.id.decode()))
            assert event["id"] == cursor.id.decode() and len(cursor.id) <= CURSOR_MAX_BYTES
            again = since_of(cursor.id.decode(), names)
            assert {name: since for name, since in found.items() if since.position} == again
    watched = "none"
    for path in PATHS:
        try:
            watch = watch_of(path, text)
        except RequestRefused as refused:
            assert check_refusal(refused) == 400
        else:
            watched = "all" if watch is None else "one"
            assert watch is None or (len(watch.id) == 32 and 0 <= watch.offset < 10**15)
    return f"{position is not None} {min(known, 4)} {watched}"


def check_position(position: Position) -> None:
    assert _POSITION.fullmatch(position.text), position
    again = Position.from_text(position.text.decode())
    assert again is not None and again.is_same(position)
    gap = Gap("trimmed", position.text, NOWHERE, 0.0)
    ((opcode, body),) = frames_of(WEBSOCKET_V1.encode_gap(A, gap))
    assert opcode == 1 and object_of(body)["from"] == position.text.decode()
    (event,) = events_of(EVENT_STREAM_BARE.encode_gap(A, gap))
    assert event["event"] == "gap" and event["id"] == NOWHERE.decode()


def cursor(*positions: bytes) -> bytes:
    made = Cursor()
    for name, position in zip(NAMES, positions, strict=False):
        made.set(name, position)
    return made.id


TARGET = Target(
    "cursors",
    check,
    (
        b"1:2:3",
        NOWHERE,
        cursor(b"1:2:3"),
        cursor(b"1:2:3", b"4:5:6"),
        cursor(b"1:2:3", b"4:5:6", b"7:8:9"),
        b"0123456789abcdef0123456789abcdef:7",
        b"end",
        b"",
        b"9999999999:999999999999999:9999999999",
    ),
    (b"c1,", b"c2,", b",", b"=", b":", b"0:0:0", b"1:2:3", b"\xb2", b"\xa0", b"+1:2:3", b" 1:2:3", b"1_0:2:3", b"end"),
    frozenset({"True 1 none", "False 1 none", "False 4 none", "False 0 one", "False 0 all"}),
)
