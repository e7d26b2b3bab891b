"""What Redis brings: plain messages and stamped ones, and what goes out: what came, whole."""

from __future__ import annotations

from broker import eventstream, frames
from broker.config.sections import Redis
from broker.gap import Gap
from broker.message import NOT_AN_EVENT, REFUSALS, TOO_BIG, explained, refusal
from broker.run import STAMP, Run
from broker.stream import last_index
from broker.upstream.link import Link
from broker.wireformat import EVENT_STREAM, EVENT_STREAM_BARE, WEBSOCKET, WEBSOCKET_V1
from tests.fuzz.reading import as_lines, events_of, frames_of, json_of
from tests.fuzz.target import Target

NAME = b"job_progress:42"
MAX_BYTES = 16_000


class Hub:
    """What the link hands on."""

    def __init__(self) -> None:
        self.plain: list[bytes] = []
        self.runs: list[Run] = []

    def dispatch(self, batch: dict[bytes, list[bytes]], now: float) -> None:
        for payloads in batch.values():
            self.plain += payloads

    def take(self, name: bytes, runs: list[Run], now: float) -> None:
        self.runs += runs

    def hands_on(self, name: bytes, *, is_stamped: bool) -> bool:
        return True


def check(data: bytes) -> str:
    said = [check_reasons(data)]
    link, hub = Link(Redis(), MAX_BYTES), Hub()
    link.take_plain(True)
    replies = [[b"message", NAME, message] for message in (data, data, STAMP + data, STAMP + b"s:1:5:9 " + data)]
    link._take(replies, hub, 0.0)  # type: ignore[arg-type]
    assert all(payload == data for payload in hub.plain)
    if hub.plain:
        check_formats(Run.without_positions(hub.plain))
    for run in hub.runs:
        check_run(run)
    said.append(f"{len(hub.plain)} {min(len(hub.runs), 3)}")
    return " ".join(said)


def check_reasons(data: bytes) -> str:
    reasons = []
    for name, check_payload in REFUSALS.items():
        reason = check_payload(data, MAX_BYTES)
        assert check_payload(data, len(data) - 1) == TOO_BIG
        if reason is None:
            data.decode()
            if name != "off":
                json_of(data)
        elif reason == NOT_AN_EVENT:
            why = explained(reason, data)
            assert why and why.isprintable() and "\n" not in why, why
        reasons.append(str(reason))
    return "/".join(reasons)


def check_run(run: Run) -> None:
    assert run.first <= run.last and len(run.positions) in (0, len(run.payloads))
    for position in (*run.positions, *([run.end] if run.end else ())):
        epoch, offset, tag = position.split(b":")
        assert epoch.isdigit() and offset.isdigit() and tag.isdigit(), position
    if run.payloads:
        check_formats(run)
    if run.last > run.first:
        assert run.after(run.first).first == run.first + 1
    gap = Gap("trimmed", run.end or None, run.end or None, 0.0)
    (event,) = events_of(EVENT_STREAM_BARE.encode_gap(NAME, gap))
    assert event["event"] == "gap"
    frames_of(WEBSOCKET.encode_gap(NAME, gap))


def check_formats(run: Run) -> None:
    """However a payload looks, each client gets it as one event, whole and alone."""
    payloads = run.payloads
    assert frames_of(WEBSOCKET.encoded(NAME, run)[0]) == [(1, payload) for payload in payloads]
    events = events_of(EVENT_STREAM_BARE.encoded(NAME, run)[0])
    assert [event["data"] for event in events] == [as_lines(payload) for payload in payloads]
    ids: list[str | None] = [position.decode() for position in run.positions]
    assert [event.get("id") for event in events] == (ids or [None] * len(payloads))
    assert all(set(event) <= {"data", "id"} for event in events)
    size, _, chunk = EVENT_STREAM.encoded(NAME, run)[0].partition(b"\r\n")
    assert int(size, 16) == len(chunk) - 2 and chunk.endswith(b"\r\n")
    for (opcode, envelope), payload in zip(frames_of(WEBSOCKET_V1.encoded(NAME, run)[0]), payloads, strict=True):
        assert opcode == 1
        read = json_of(envelope)
        assert set(read) == {"channel", "position", "event"} and read["channel"] == NAME.decode()
        is_json = refusal(payload, MAX_BYTES) is None
        assert envelope.endswith(b'"event":%b}' % payload) if is_json else read["event"] == payload.decode()
    found = last_index(payloads)
    assert found is None or json_of(payloads[found])["stage"] == "complete"
    for payload in payloads:
        assert frames_of(frames.text_frame(payload)) == [(1, payload)]
        assert len(events_of(eventstream.block(payload, event="complete", id="end"))) == 1


TARGET = Target(
    "payloads",
    check,
    (
        b'{"type":"job_progress","jobId":"42","status":"processing","stage":"x","progress":0.5,"message":"m",'
        b'"timestamp":"2026-01-31T12:00:00.000Z"}',
        b'{"type":"video_render_progress","jobId":"1","currentFrame":1,"totalFrames":2,"progress":1,"fps":30.0,'
        b'"estimatedTimeRemaining":0,"stage":"complete","timestamp":"2026-01-31T12:00:00.000Z"}',
        b'{\r\n"a": [1, 2],\n\r"b": null}\r\n',
        b'"text \\ud83d\\ude00 \\u2028"',
        '"grüße \u2028 \x85"'.encode(),
        b"s:1:2:3 {}",
        b"g7:4:5:6 {}",
        b"u {}",
        b"s:1:2:3",
        b"[]",
        b"null",
        b"data: x\n\n",
    ),
    (
        b"s:", b"g", b"u ", b":", b" ", b"{}", b"[]", b"\x01", b'"stage":"complete"', b'"type"', b'"timestamp":',
        b"1.0",
        b'"progress":2', b"\n\n", b"\r\n\r\n", b"id: 1\n", b"event: x\n", b"retry: 0\n", b": x\n", b"data:", b"\\u0000",
        b"0:0:0", '\u0661'.encode(), b"1e400", b"-", b"+1",
    ),
    frozenset({"None/None/None 2 1", "None/not_json/not_json 0 1", "not_utf8/not_utf8/not_utf8 0 1"}),
    max_bytes=20_000,
)  # fmt: skip
