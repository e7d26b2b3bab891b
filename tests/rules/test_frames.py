"""Frames and event-stream blocks: what clients that nobody here wrote read back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from broker import eventstream
from broker.frames import PING, envelopes, text_frame, text_frames


def texts_of(data: bytes) -> list[str]:
    """What a WebSocket client reads."""
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(data)
    texts = [""]
    for event in client.events():
        assert isinstance(event, TextMessage), event
        texts[-1] += event.data
        if event.message_finished:
            texts.append("")
    return texts[:-1]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1024 * 1024])
def test_a_frame_at_every_length_boundary(size: int) -> None:
    assert texts_of(text_frame(b"x" * size)) == ["x" * size]


@given(st.lists(st.text(max_size=300), min_size=1, max_size=20))
def test_frames_are_joined_in_order(texts: list[str]) -> None:
    payloads = [text.encode() for text in texts]
    assert text_frames(payloads) == b"".join(map(text_frame, payloads))
    assert texts_of(text_frames(payloads)) == texts


def test_the_ping_is_an_empty_ping() -> None:
    assert bytes((0x80 | 0x9, 0)) == PING


def read_event_stream(data: bytes) -> list[tuple[str, str, str]]:
    """(event, data, id) as WHATWG HTML 9.2.6 reads them; written from the standard, not from the encoder."""
    text = data.decode().replace("\r\n", "\n").replace("\r", "\n")
    events, last_id = [], ""
    kind, lines = "", []
    for line in text.split("\n")[:-1]:
        if line == "":
            if lines:
                events.append((kind or "message", "\n".join(lines), last_id))
            kind, lines = "", []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            lines.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return events


@given(st.lists(st.text(st.sampled_from("ab:\r\n \u0085\u2028\u2029\0\ufeffé\U0001f680{}"), max_size=40), max_size=8))
def test_no_payload_makes_a_field_of_its_own(texts: list[str]) -> None:
    read = read_event_stream(eventstream.blocks([text.encode() for text in texts]))
    assert read == [("message", text.replace("\r\n", "\n").replace("\r", "\n"), "") for text in texts]


def test_a_block_with_everything() -> None:
    data = eventstream.block(b"1\n2", event="complete", id="end", retry_milliseconds=5)
    assert data == b"retry: 5\nid: end\nevent: complete\ndata: 1\ndata: 2\n\n"


def test_chunks_and_comments() -> None:
    assert eventstream.chunk(b"x" * 17) == b"11\r\n" + b"x" * 17 + b"\r\n"
    assert eventstream.comment("keep-alive now") == b": keep-alive now\n\n"
    assert read_event_stream(eventstream.comment("data: no")) == []


def test_an_envelope_has_the_events_own_bytes() -> None:
    payloads = [b'{"a":  1}', b"[]", b"no json \xc3\xa9"]
    found = envelopes(b"job:1", [b"7:3:11", None, b"7:4:12"], payloads)
    assert found == [
        b'{"channel":"job:1","position":"7:3:11","event":{"a":  1}}',
        b'{"channel":"job:1","position":null,"event":[]}',
        '{"channel":"job:1","position":"7:4:12","event":"no json é"}'.encode(),
    ]
    assert all(json.loads(envelope)["channel"] == "job:1" for envelope in found)
