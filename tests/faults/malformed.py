"""Malformed input: request heads and WebSocket frames made wrong with dice, and what may be answered to them."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tests.actors.raw_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Answer,
    Frame,
    RawClient,
    close_frame,
    frame,
    head,
    upgrade,
)
from tests.fuzz.mutation import Mutator, mutated

HANDSHAKES = (
    upgrade(),
    upgrade(b"/ws?userId=a%20b", b"Origin: http://localhost", b"Sec-WebSocket-Extensions: permessage-deflate"),
    upgrade(b"/ws?token=eyJhbGciOiJIUzI1NiJ9.e30.AA", b"Sec-WebSocket-Protocol: broker.v1, bearer.a.b.c"),
    upgrade(b"/ws", b"Sec-WebSocket-Protocol: broker.v1", b"Cookie: a=b; c=d", b"X-Forwarded-For: 192.0.2.1"),
)
REQUESTS = (
    head(b"GET /health HTTP/1.1"),
    head(b"GET /api/realtime/stats?clients=3 HTTP/1.1", b"Accept: */*", b"Cookie: a=b; c=d"),
    head(b"GET /api/stream?channel=fuzz:1&userId=u HTTP/1.1", b"Last-Event-ID: 7"),
    head(b"GET /api/stream/render-progress/fuzz HTTP/1.1"),
    head(b"POST /health HTTP/1.1", b"Content-Length: 5") + b"hello",
    head(b"POST /health HTTP/1.1", b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    head(b"POST /nothing HTTP/1.1", b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 2") + b"{}",
    head(b"OPTIONS * HTTP/1.1", b"Access-Control-Request-Method: GET"),
    head(b"GET /api/stream?channel=fuzz:1 HTTP/1.1", b"Authorization: Bearer a.b.c", b"Cookie: token=a.b.c"),
    head(b"GET /api/realtime/explain?action=subscribe&channel=fuzz:1 HTTP/1.1", b"X-Forwarded-For: 192.0.2.1"),
    head(b"POST /api/realtime/disconnect HTTP/1.1", b"Content-Length: 17") + b'{"client":"none"}',
    head(b"POST /api/publish HTTP/1.1", b"Content-Length: 34") + b'{"channel":"fuzz:1","event":{"a":1}',
)
WORDS = (
    b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b",", b"\t", b";", b"[::1]", b"@", b"?", b"#", b"//", b"..", b"\xff",
    b"\xc3\xa9", b"%0d%0a", b"Host: b\r\n", b"Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n", b"9" * 20,
    b"Connection: close\r\n", b"Upgrade: websocket\r\n", b"Expect: 100-continue\r\n", b"HTTP/1.0", b"a" * 70,
    b"a" * 5000, b"HEAD ",
)  # fmt: skip
COMMANDS = (
    b'{"type":"ping"}',
    b'{"type":"subscribe","channel":"fuzz:1"}',
    b'{"type":"subscribe","channel":"fuzz:1","since":"251715305:3:449151372"}',
    b'{"type":"unsubscribe","channel":"fuzz"}',
    b'{"type":"subscribe","channel":{"type":"fuzz","id":null,"userId":"u"}}',
    b'{"type":"authenticate","token":"a.b.c"}',
    b'{"type":"publish","channel":"fuzz:1","event":{"a":1}}',
)
PAYLOADS = (
    b"",
    b"a",
    b"\xff\xfe",
    b"[" * 2000,
    b"\xe2\x82",
    b"\x03\xe8",
    b"\x03",
    b"*" * 126,
    b"*" * 65537,
    b"*" * 70000,
    *COMMANDS,
)
COMMAND_MAX_BYTES = 2000
CODES = (None, 1000, 1002, 1003, 1007, 1009)


class Malformer:
    """Makes them, the same ones from the same dice."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._commands = Mutator(dice, WORDS, COMMAND_MAX_BYTES)

    def head(self, sound: tuple[bytes, ...]) -> bytes:
        """One of the sound ones, with one to four bytes changed, cut out, doubled or put in."""
        return mutated(self._dice, self._dice.choice(sound), WORDS)

    def frames(self, count: int) -> bytes:
        """One of them, anywhere, is wrong as a frame, and nearly always ends the connection: nothing behind it is read.

        The others are sound ones with mutated commands.
        """
        wrong_at = self._dice.randrange(count)
        return b"".join(self._wrong_frame() if at == wrong_at else self._sound_frame() for at in range(count))

    def _sound_frame(self) -> bytes:
        dice = self._dice
        kind = dice.randrange(20)
        if kind == 0:
            return frame(dice.choice((PING, PONG)), dice.randbytes(dice.randrange(126)))
        command = self._commands.next(COMMANDS)
        if kind == 1:
            cut = dice.randrange(len(command) + 1)
            return frame(TEXT, command[:cut], fin=False) + frame(CONTINUATION, command[cut:])
        # What is no UTF-8 would end the connection in a text frame.
        return frame(TEXT if _is_text(command) else BINARY, command)

    def _wrong_frame(self) -> bytes:
        dice = self._dice
        made = frame(
            dice.choice([TEXT, TEXT, BINARY, CONTINUATION, PING, PONG, CLOSE, dice.randrange(16)]),
            dice.choice(PAYLOADS),
            fin=dice.random() < 0.8,
            rsv=dice.choice([0, 0, 0, 0, dice.randrange(8)]),
            masked=dice.random() < 0.95,
            length=dice.choice([None] * 9 + [dice.randrange(1 << 64)]),
        )
        return mutated(dice, made, WORDS) if dice.random() < 0.5 else made


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def answers_to(client: RawClient, sent: bytes) -> tuple[int, list[str]]:
    """Read until the daemon closes. How many answers came; whatever is no upgrade, stream, JSON, page or refusal."""
    is_bodiless = b"HEAD " in sent
    wrong: list[str] = []
    count = 0
    while True:
        try:
            answer = client.answer(to_head=is_bodiless)
        except EOFError:
            return count, wrong
        count += 1
        if answer.status == 101 or answer.headers.get("content-type") == "text/event-stream" or is_bodiless:
            return count, wrong  # what comes behind it is nothing that this reads
        if not _is_known(answer):
            wrong.append(f"{sent[:300]!r} was answered {answer}")


def _is_known(answer: Answer) -> bool:
    if answer.status in (100, 204):
        return True
    if answer.status == 200:
        if "allow" in answer.headers:  # OPTIONS of a page that needs no preflight
            return not answer.body
        kind = answer.headers.get("content-type")
        if kind == "text/html; charset=utf-8":
            return answer.body.startswith(b"<!doctype html>")
        return bool(answer.json())
    if not (400 <= answer.status < 500 or answer.status == 505):
        return False
    said = answer.json()
    return list(said)[:3] == ["error", "detail", "hint"] and all(said.values())


def wrong_frames(frames: list[Frame]) -> Iterator[str]:
    """Text and pongs may be sent, and behind them a close frame with a reason that there is."""
    for index, got in enumerate(frames):
        if got.opcode == CLOSE:
            if index != len(frames) - 1:
                yield f"a frame behind the close: {frames[index + 1]}"
            # A client's own close is answered as it was.
            if got.code not in CODES and not (got.code or 0) > 1000:
                yield f"closed as nothing known: {got}"
        elif got.opcode not in (TEXT, PONG):
            yield f"neither text nor pong: {got}"


GOODBYE = close_frame(1000)
