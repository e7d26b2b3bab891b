"""Row 8: conversations of RFC 6455, right and wrong, each answered to the last byte as the RFC wants it."""

from __future__ import annotations

import struct
from collections.abc import Callable

import websockets.sync.client

from tests.actors.echo_process import open_echo
from tests.actors.raw_client import CLOSE, CONTINUATION, TEXT, Frame, RawClient, frame, upgrade
from tests.faults.row import Row
from tests.faults.stage import Stage
from tests.rfc6455.cases import BYE, CASES, MIB, echoed, failures

BYTEWISE_MAX_BYTES = 600
LIBRARY_SIZES = (0, 125, 126, 65535, 65536, 16 * MIB)
CLOSED = Frame(CLOSE, struct.pack("!H", 1000))


def play(stage: Stage) -> None:
    bytewise = [case for case in CASES if sum(map(len, case.sent)) < BYTEWISE_MAX_BYTES]
    wrong = 0
    with open_echo(stage.folder / "echo.log") as port:
        for case in CASES:
            found = failures(case, port)
            wrong += bool(found)
            stage.faults += found
        for case in bytewise:
            found = [f"byte by byte, {line}" for line in failures(case, port, bytewise=True)]
            wrong += bool(found)
            stage.faults += found
        for conversation in CONVERSATIONS:
            conversation(port)
        for size in LIBRARY_SIZES:
            talk_as_the_websockets_library(port, size)
    count = len(CASES) + len(bytewise) + len(CONVERSATIONS) + len(LIBRARY_SIZES)
    stage.at_least("cases", count, 750)
    stage.exactly("failed cases", wrong, 0)


def send_16_mib_a_mebibyte_at_a_time(port: int) -> None:
    payload = b"0123456789abcdef" * MIB
    with RawClient.websocket(port, greeted=False) as client:
        client.send(frame(TEXT, payload[:MIB], fin=False))
        for at in range(MIB, 15 * MIB, MIB):
            client.send(frame(CONTINUATION, payload[at : at + MIB], fin=False))
        client.send(frame(CONTINUATION, payload[15 * MIB :]) + BYE)
        assert client.frames() == [echoed(payload), CLOSED]


def send_frames_with_the_handshake(port: int) -> None:
    with RawClient.connect(port) as client:
        client.send(upgrade() + frame(TEXT, b"early") + BYE)
        client.expect_upgrade()
        assert client.frames() == [echoed(b"early"), CLOSED]


def close_without_waiting_for_the_answer(port: int) -> None:
    with RawClient.websocket(port, greeted=False) as client:
        client.send(BYE)
        client.finish()
        assert client.frames() == [CLOSED]


def end_without_a_close(port: int) -> None:
    with RawClient.websocket(port, greeted=False) as client:
        client.send(frame(TEXT, b"a"))
        client.finish()
        assert client.frames() == [echoed(b"a")]


CONVERSATIONS = (
    send_16_mib_a_mebibyte_at_a_time,
    send_frames_with_the_handshake,
    close_without_waiting_for_the_answer,
    end_without_a_close,
)


def talk_as_the_websockets_library(port: int, size: int) -> None:
    """A client that nobody here wrote: text, binary, fragments, ping, close. It offers deflate; nobody takes it."""
    with websockets.sync.client.connect(f"ws://127.0.0.1:{port}/", max_size=None) as client:
        assert client.protocol.extensions == []
        words = "\u20ac" * (size // 3) + "a" * (size % 3)
        client.send(words)
        assert client.recv(10) == words
        client.send(b"\xff" * size)
        assert client.recv(10) == b"\xff" * size
        client.send(iter([words[:10], words[10:]]))
        assert client.recv(10) == words
        assert client.ping().wait(10)
    assert (client.close_code, client.close_reason) == (1000, "")


ROW = Row(
    8,
    "WebSocket is spoken as RFC 6455 wants it",
    "every case of a conformance suite, whole and a byte at a time, and a library of others, through `tests.echo`",
    "no failed case",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
