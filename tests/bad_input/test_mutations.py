"""Mutated handshakes and frames. `BROKER_FUZZ_SEED=7` repeats a run, `BROKER_FUZZ_TIMES=50` does fifty times as many.

Every answer is one that the contract knows; the process stays, its log is clean, those beside lose nothing.
"""

from __future__ import annotations

import os
import random

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import (
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawClient,
    close_frame,
    descriptors_of,
    frame,
    head,
    resident_bytes,
    text,
    upgrade,
    wait_until,
)
from tests.actors.refusal import assert_refusal
from tests.fuzz.mutation import mutated

SEED = int(os.environ.get("BROKER_FUZZ_SEED", "0")) or random.randrange(1, 1 << 32)
TIMES = int(os.environ.get("BROKER_FUZZ_TIMES", "1"))
HANDSHAKES = 3_000
CONNECTIONS, FRAMES_EACH = 1_000, 20
GROWTH_BYTES = 20 << 20

SEEDS = [
    upgrade(),
    upgrade(b"/ws?userId=a%20b", b"Origin: http://localhost", b"Sec-WebSocket-Extensions: permessage-deflate"),
    head(b"GET /health HTTP/1.1"),
    head(b"GET /api/realtime/stats?clients=3 HTTP/1.1", b"Accept: */*", b"Cookie: a=b; c=d"),
    head(b"GET /api/stream?channel=fuzz:1&userId=u HTTP/1.1", b"Last-Event-ID: 7"),
    head(b"GET /api/stream/render-progress/fuzz HTTP/1.1"),
    head(b"POST /health HTTP/1.1", b"Content-Length: 5") + b"hello",
    head(b"POST /health HTTP/1.1", b"Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    head(b"POST /nothing HTTP/1.1", b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 2") + b"{}",
    head(b"OPTIONS * HTTP/1.1", b"Access-Control-Request-Method: GET"),
    upgrade(b"/ws?token=eyJhbGciOiJIUzI1NiJ9.e30.AA", b"Sec-WebSocket-Protocol: broker.v1, bearer.a.b.c"),
    head(b"GET /api/stream?channel=fuzz:1 HTTP/1.1", b"Authorization: Bearer a.b.c", b"Cookie: token=a.b.c"),
    head(b"GET /api/realtime/explain?action=subscribe&channel=fuzz:1 HTTP/1.1", b"X-Forwarded-For: 192.0.2.1"),
    head(b"POST /api/realtime/disconnect HTTP/1.1", b"Content-Length: 17") + b'{"client":"none"}',
]
SPLICES = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b":", b",", b"\t", b";", b"[::1]", b"@", b"?", b"#", b"//", b"..", b"\xff",
    b"\xc3\xa9", b"%0d%0a", b"Host: b\r\n", b"Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n", b"9" * 20,
    b"Connection: close\r\n", b"Upgrade: websocket\r\n", b"Expect: 100-continue\r\n", b"HTTP/1.0", b"a" * 70,
    b"a" * 5000, b"HEAD ",
]  # fmt: skip
PAYLOADS = [
    b"", b"a", b'{"type":"ping"}', b'{"type":"subscribe","channel":"fuzz:1"}',
    b'{"type":"unsubscribe","channel":"fuzz"}',
    b'{"type":"subscribe","channel":{"type":"fuzz","id":null,"userId":"u"}}',
    b'{"type":"authenticate","token":"a.b.c"}', b'{"type":"publish","channel":"fuzz:1","event":{"a":1}}',
    b"\xff\xfe", b"[" * 2000, b"\xe2\x82", b'{"type":"subscribe","channel":{"type":[' + b'{"a":' * 300, b"\x03\xe8",
    b"\x03", b"*" * 126, b"*" * 70000,
]  # fmt: skip


def random_frame(dice: random.Random) -> bytes:
    if dice.random() < 0.6:
        fine = frame(TEXT, dice.choice(PAYLOADS[:6]))
        return dice.choice([text({"type": "ping"}), frame(PONG), frame(PING, b"p"), fine])
    made = frame(
        dice.choice([TEXT, TEXT, 2, CONTINUATION, 9, 10, CLOSE, dice.randrange(16)]),
        dice.choice(PAYLOADS),
        fin=dice.random() < 0.8,
        rsv=dice.choice([0, 0, 0, 0, dice.randrange(8)]),
        masked=dice.random() < 0.95,
        length=dice.choice([None] * 9 + [dice.randrange(1 << 64)]),
    )
    return mutated(dice, made, SPLICES) if dice.random() < 0.3 else made


def test_mutated_handshakes(port: int, served: DaemonProcess) -> None:
    print(f"BROKER_FUZZ_SEED={SEED}")
    dice = random.Random(SEED)
    before, descriptors = resident_bytes(served.process.pid), descriptors_of(served.process.pid)
    for _ in range(HANDSHAKES * TIMES):
        sent = mutated(dice, dice.choice(SEEDS), SPLICES)
        with RawClient.connect(port) as client:
            if dice.random() < 0.3:
                cut = dice.randrange(len(sent) + 1)
                client.try_send(sent[:cut])
                client.try_send(sent[cut:])
            else:
                client.try_send(sent)
            if dice.random() < 0.1:
                client.reset()
                continue
            client.finish()
            client.sock.settimeout(0.1)
            check_answers(client, sent)
    assert resident_bytes(served.process.pid) - before < GROWTH_BYTES
    wait_until(lambda: served.stats()["websocket"]["totalConnections"] == 1)
    # That which asks for the stats is one.
    wait_until(lambda: descriptors_of(served.process.pid) <= descriptors + 1)


def check_answers(client: RawClient, sent: bytes) -> None:
    """Every answer that comes is an upgrade, a stream, JSON, a page, an error with its three fields, or nothing."""
    try:
        while True:
            answer = client.answer(to_head=b"HEAD " in sent)
            if answer.status in (100, 101, 204) or answer.headers.get("content-type") == "text/event-stream":
                return
            if b"HEAD " in sent:
                return
            if answer.status == 200 and answer.headers.get("content-type") == "text/html; charset=utf-8":
                assert answer.body.startswith(b"<!doctype html>"), (sent, answer)
            elif answer.status == 200:
                assert answer.json(), (sent, answer)
            else:
                assert_refusal(answer, answer.status)
                assert 400 <= answer.status < 500 or answer.status == 505, (sent, answer)
    except (EOFError, TimeoutError):
        return


def test_mutated_frames(port: int, served: DaemonProcess) -> None:
    print(f"BROKER_FUZZ_SEED={SEED}")
    dice = random.Random(SEED + 1)
    before, descriptors = resident_bytes(served.process.pid), descriptors_of(served.process.pid)
    for _ in range(CONNECTIONS * TIMES):
        with RawClient.websocket(port) as client:
            client.try_send(b"".join(random_frame(dice) for _ in range(FRAMES_EACH)))
            if dice.random() < 0.1:
                client.reset()
                continue
            client.try_send(close_frame(1000))
            client.finish()
            frames = client.frames()
            assert all(got.opcode in (TEXT, PONG) for got in frames[:-1])
            if frames and frames[-1].opcode == CLOSE:
                assert frames[-1].code in (None, 1000, 1002, 1007, 1009) or frames[-1].code > 1000
    assert resident_bytes(served.process.pid) - before < GROWTH_BYTES
    wait_until(lambda: served.stats()["websocket"]["totalConnections"] == 1)
    # That which asks for the stats is one.
    wait_until(lambda: descriptors_of(served.process.pid) <= descriptors + 1)
    wait_until(lambda: not [name for name in served.stats()["channels"]["channels"] if name.startswith("fuzz")])
