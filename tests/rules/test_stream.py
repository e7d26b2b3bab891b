"""Which path is which stream, which streams end, and who may read them."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.channel import Channel
from broker.position import Position, Since
from broker.request import RequestRefused
from broker.stream import EndedStreams, Stream, last_index, stream_of
from broker.timestamp import timestamp


@pytest.mark.parametrize(
    ("path", "query", "stream"),
    [
        ("/api/stream/render-progress/7", [], Stream((Channel("video_render", "7"),), True)),
        ("/api/stream/campaign-metrics/7", [], Stream((Channel("campaign_metrics", "7"),), False)),
        ("/api/stream/ab-test-results/7", [("userId", "u")], Stream((Channel("ab_test_results", "7"),), False)),
        (
            "/api/stream",
            [("channel", "a:1"), ("userId", "u"), ("channel", "b"), ("channel", "a:1")],
            Stream((Channel("a", "1"), Channel("b")), False),
        ),
        (
            "/api/stream",
            [
                ("channel", "a:1"),
                ("channel", "b"),
                ("protocol", "broker.v1"),
                ("since", "a:1,7:3:11"),
                ("since", "b,x"),
            ],
            Stream(
                (Channel("a", "1"), Channel("b")),
                False,
                True,
                {b"a:1": Since(Position(b"7", 3, b"11")), b"b": Since(None)},
            ),
        ),
    ],
)
def test_the_endpoints(path: str, query: list[tuple[str, str]], stream: Stream) -> None:
    assert stream_of(path, query, None, 32) == stream


@pytest.mark.parametrize(
    ("path", "query", "status", "detail"),
    [
        ("/api/stream", [], 400, "Missing required parameters: channel"),
        ("/api/stream", [("channel", "a b")], 400, None),
        ("/api/stream", [("channel", f"a:{i}") for i in range(33)], 400, "33 channels; at most 32"),
        ("/api/stream", [("channel", "other")], 404, "channel type other is not served here"),
        ("/api/stream", [("channel", "a"), ("protocol", "v9")], 400, "no protocol 'v9'"),
        (
            "/api/stream",
            [("channel", "a"), ("since", "a:1,7:3:11")],
            400,
            "since is of 'a:1', which is no channel of this stream",
        ),
        ("/api/stream/render-progress", [], 404, "no stream at '/api/stream/render-progress'"),
        ("/api/stream/render-progress/", [], 404, "no stream at '/api/stream/render-progress/'"),
        ("/api/stream/render-progress/a\r\nb", [], 400, None),
        ("/api/stream/nothing/7", [], 404, "no stream at '/api/stream/nothing/7'"),
        ("/api/streams", [("channel", "a")], 404, "no stream at '/api/streams'"),
    ],
)
def test_what_is_refused(path: str, query: list[tuple[str, str]], status: int, detail: str | None) -> None:
    with pytest.raises(RequestRefused) as caught:
        stream_of(path, query, frozenset({"a", "video_render"}), 32)
    assert caught.value.status == status
    assert detail is None or caught.value.detail == detail


@pytest.mark.parametrize(
    ("payloads", "index"),
    [
        ([], None),
        ([b'{"stage":"rendering"}'], None),
        ([b'{"stage":"rendering"}', b'{"stage" : "complete"}', b'{"stage":"complete"}'], 1),
        ([b'{"message":"complete"}'], None),
        ([b'["complete"]', b'"complete"'], None),
    ],
)
def test_what_ends_a_render(payloads: list[bytes], index: int | None) -> None:
    assert last_index(payloads) == index


def test_ended_streams_are_remembered_for_a_while() -> None:
    ended = EndedStreams(60)
    ended.add(b"a", 100)
    assert ended.has(b"a", 159.9)
    assert not ended.has(b"a", 160)
    assert not ended.has(b"b", 100)


def test_ended_streams_are_bounded() -> None:
    ended = EndedStreams(60)
    for number in range(10_001):
        ended.add(b"%d" % number, 0)
    assert not ended.has(b"0", 0)
    assert ended.has(b"1", 0)
    assert ended.has(b"10000", 0)


@given(st.integers(0, 4_000_000_000), st.integers(0, 999))
def test_timestamps(second: int, millisecond: int) -> None:
    expected = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)) + f".{millisecond:03d}Z"
    assert timestamp(second + millisecond / 1000 + 0.0001) == expected
