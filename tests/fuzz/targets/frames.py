"""WebSocket frames: whatever comes, what goes out is whole frames, and what ends the client has a name."""

from __future__ import annotations

import trio
from attrs import define, field

from broker import ending as endings
from broker.auth.identity import OPEN, Identity
from broker.bucket import Bucket
from broker.config.sections import WebSocket
from broker.ending import Ending
from broker.frames import text_frame
from broker.session import Publish, Reply, Session, Subscribe
from broker.websocket import WebSocketConversation
from tests.actors.raw_client import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close_frame, frame, text
from tests.fuzz.reading import frames_of, object_of
from tests.fuzz.target import Target
from tests.fuzz.targets.commands import RULES

BOUNDS = WebSocket(message_max_bytes=4096)
ENDINGS = {endings.LEFT, endings.PROTOCOL_ERROR, endings.BAD_TEXT, endings.FRAME_TOO_BIG, endings.TOO_MANY_COMMANDS}
# Those of which no close frame is sent have none.
CODES = {1000, 1002, 1007, 1009, 4008}
COMMANDS_MAX = 30


@define(eq=False)
class Outbox:
    """What is sent."""

    sent: bytearray = field(factory=bytearray)

    def send(self, data: bytes, now: float) -> None:
        self.sent += data


@define(eq=False)
class Client:
    """As much of a client as a conversation needs."""

    outbox: Outbox = field(factory=Outbox)
    ending: Ending | None = None

    def end(self, ending: Ending) -> None:
        self.ending = self.ending or ending


@define(eq=False)
class Commands:
    """A session without a hub behind it."""

    client: Client
    session: Session = field(factory=lambda: Session(10, None, identity=Identity(OPEN, "ann"), rules=RULES))
    taken: int = 0
    channel_names: tuple[str, ...] = ()

    def opened(self) -> bytes:
        return b""

    def text(self, text: str) -> None:
        self.taken += 1
        assert len(text.encode()) <= BOUNDS.message_max_bytes
        for step in self.session.receive_text(text, 0.0):
            if isinstance(step, Reply):
                self.client.outbox.send(text_frame(step.body), 0.0)
            elif isinstance(step, Subscribe):
                self.session.refused(step.channel.name, "no", 0.0)
            elif isinstance(step, Publish):
                self.session.published(step.channel, 0.0)

    def binary(self, data: bytes) -> None:
        self.taken += 1
        assert len(data) <= BOUNDS.message_max_bytes
        for step in self.session.receive_binary(0.0):
            assert isinstance(step, Reply)
            self.client.outbox.send(text_frame(step.body), 0.0)

    def heartbeat(self) -> None: ...

    def tell(self, event: bytes) -> None: ...

    def farewell(self) -> bytes:
        return b""

    def closed(self) -> None: ...


def check(data: bytes) -> str:
    whole = talk([data])
    at = len(data) * 5 // 11
    pieces = talk([data[:at], data[at : at + 1], data[at + 1 :]])
    # However the bytes are cut on their way, they mean the same; of two things wrong with a frame, either is said.
    if {whole[0], pieces[0]} != {endings.BAD_TEXT.name, endings.FRAME_TOO_BIG.name}:
        assert pieces == whole, (pieces, whole)
    return whole[0] + f" {min(whole[1], 3)}"


def talk(pieces: list[bytes]) -> tuple[str, int, bytes]:
    """How it ended, how many messages were taken, what was sent."""
    client = Client()
    commands = Commands(client)
    bucket = Bucket(1e-9, COMMANDS_MAX)
    conversation = WebSocketConversation(client, BOUNDS, commands, b"", pieces[0], bucket)  # type: ignore[arg-type]
    conversation.opened()
    for piece in pieces[1:]:
        if piece:
            conversation.receive(piece)
    assert commands.taken <= COMMANDS_MAX
    held = conversation._parts or []
    assert sum(map(len, held)) <= BOUNDS.message_max_bytes
    assert client.ending is None or client.ending in ENDINGS, client.ending
    last = b""
    if client.ending is not None:
        last = conversation.goodbye(client.ending)
    for opcode, payload in frames_of(bytes(client.outbox.sent)):
        assert opcode in (1, 10)
        if opcode == 1:
            object_of(payload)
    for opcode, payload in frames_of(last):
        assert opcode == 8 and len(payload) <= 125
        payload[2:].decode()
        if payload and client.ending is not endings.LEFT:
            assert int.from_bytes(payload[:2], "big") in CODES, payload
    assert conversation.pulse(trio.current_time()) > 0
    # The reason may tell at which byte of a piece something was wrong, so only the code is compared.
    code = last[2:4]
    return "open" if client.ending is None else client.ending.name, commands.taken, bytes(client.outbox.sent) + code


TARGET = Target(
    "frames",
    check,
    (
        text({"type": "ping"}) + close_frame(1000),
        frame(TEXT, b'{"type":', fin=False) + frame(PING, b"p") + frame(CONTINUATION, b'"ping"}'),
        frame(TEXT, "grüße".encode()[:3], fin=False) + frame(CONTINUATION, "grüße".encode()[3:]),
        frame(BINARY, b"\0\1") + frame(PONG, b"") + text({"type": "subscribe", "channel": "chat:1"}),
        frame(TEXT, b"", fin=False) * 3 + frame(CONTINUATION, b""),
        frame(PING, b"p" * 125) * 3,
        frame(TEXT, b"a" * 126) + frame(TEXT, b"b" * 3000),
        frame(TEXT, b"a" * 3000, fin=False) + frame(CONTINUATION, b"b" * 3000),
        frame(TEXT, b"x" * 5000),
        frame(TEXT, b"x", length=1 << 63),
        frame(TEXT, b"x", rsv=4),
        frame(TEXT, b"x", masked=False),
        frame(PING, b"x", fin=False),
        frame(TEXT, b"\xff\xfe"),
        close_frame(1005) + text({"type": "ping"}),
        close_frame(3000, "grüße".encode()),
        close_frame(1000, b"\xff"),
        frame(CLOSE, b"\3"),
        text({"type": "ping"}) * 40,
    ),
    (
        b"\x81", b"\x01", b"\x80", b"\x00", b"\x82", b"\x88", b"\x89", b"\x8a", b"\x88\x80abcd",
        b"\x88\x82abcd\x62\x8a",
        b"\x81\xfeabcd", b"\x81\xff\x00\x00\x00\x00\x00\x01\x00\x00abcd", b"\x81\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x01\x80abcd", b"\x80\x80abcd", b"\xc1\x80abcd", b"\x83\x80abcd", b"\x81\x80\0\0\0\0",
        b"\x89\xfe\x00\x7eabcd",
        b'\x81\x8f\0\0\0\0{"type":"ping"}',
    ),
    frozenset({"open 1", "left 0", "left 1", "protocol_error 0", "bad_text 0", "frame_too_big 0",
    "too_many_commands 3"}),
)  # fmt: skip
