"""Pages of history: whatever stands in our keys in Redis, a page of it is told in whole events, or it is none."""

from __future__ import annotations

from typing import Any

from broker.message import refusal
from broker.position import Position, Since
from broker.run import Run
from broker.topic.page import Page, page_of
from broker.wireformat import EVENT_STREAM_BARE, WEBSOCKET, WEBSOCKET_V1
from tests.fuzz.reading import events_of, frames_of, json_of
from tests.fuzz.target import Target
from tests.fuzz.targets.payloads import check_run

NAME = b"job_progress:42"
MAX_BYTES = 16_000
# What comes back with what, and who comes for the first time.
READERS = (None, Since(None), Since(Position(b"7", 2, b"20")), Since(Position(b"6", 2, b"20")))


def check(data: bytes) -> str:
    """Lines: the newest position, the recorder's generation, then an event each: its id, how it came, what it is."""
    top, generation, *lines = [*data.split(b"\n"), b""]
    found: list[list[Any]] = []
    for line in filter(None, lines):
        id, came, payload = [*line.split(b" ", 2), b"", b""][:3]
        found.append([id, [came, payload]])
    said = [page([top, generation, found], since) for since in READERS]
    return " ".join(said)


def page(reply: list[Any], since: Since | None) -> str:
    try:
        page = page_of(reply, since, 2, lambda payload: refusal(payload, MAX_BYTES) is None, 0.0)
    except ValueError:
        return "odd"  # who reads history says so, and serves the channel without
    check_page(page)
    return f"{min(len(page.items), 3)} {page.recovered}"


def check_page(page: Page) -> None:
    for position in (page.begin, page.end):
        again = Position.from_text(position.text.decode())
        assert again is not None and again.text == position.text, position
    for item in page.items:
        if isinstance(item, Run):
            check_run(item)
            assert all(Position.from_text(position.decode()) for position in item.positions)
    count = sum(len(item.payloads) if isinstance(item, Run) else 1 for item in page.items)
    assert len(events_of(page.encoded(EVENT_STREAM_BARE, NAME)[0])) == count
    assert len(frames_of(page.encoded(WEBSOCKET, NAME)[0])) <= count
    for _, body in frames_of(page.encoded(WEBSOCKET_V1, NAME)[0]):
        assert isinstance(json_of(body), dict)


TARGET = Target(
    "pages",
    check,
    (
        b'7 3 30 0\n0\n1-10 s {"a": 1}\n2-20 s {}\n3-30 s []',
        b"7 3 30 1\n2\n1-10 s {}\n2-20 p {}\n3-30 g2 {}",
        b"7 9 90 0\n0\n5-50 s {}\n9-90 s not json",
        b"7 2 21 0\n0\n2-21 s {}",
        b"7 0 5 0\n0",
        b"8 4 40 4\n5\n3-30 g5 {}\n4-40 p {}",
        b"7 99 1 0\n",
        b"",
    ),
    (
        b"0", b"7 ", b"-", b" ", b"\n", b"s ", b"p ", b"g1 ", b"g99999999999999999999 ", b"u ", b"{}", b"data: x",
        b"9" * 16, b"+1", b"1_0", b"\x0c", b"\r", b"\r\ndata: x\r\n", b"1-10", b"-0", b"7:2:20",
    ),
    frozenset({"1 True 2 False 2 False 2 False", "0 True 1 False 1 False 1 False", "odd odd odd odd"}),
    max_bytes=3_000,
)  # fmt: skip
