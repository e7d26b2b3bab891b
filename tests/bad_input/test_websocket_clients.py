"""WebSocket clients that open wrongly, or say what they should not."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    PING,
    PONG,
    TEXT,
    Frame,
    RawClient,
    close_frame,
    frame,
    head,
    resident_bytes,
    text,
    upgrade,
    wait_until,
)
from tests.actors.refusal import assert_refused

LINE = b"GET /ws HTTP/1.1"
UPGRADING = (b"Connection: Upgrade", b"Upgrade: websocket")
VERSION = b"Sec-WebSocket-Version: 13"
WITH_KEY = b"Sec-WebSocket-Key: " + KEY

BAD_HANDSHAKES = {
    "no-upgrade": (head(LINE), 426),
    "no-connection-upgrade": (head(LINE, b"Upgrade: websocket", VERSION, WITH_KEY), 426),
    "upgrade-to-something-else": (head(LINE, b"Connection: Upgrade", b"Upgrade: h2c", VERSION, WITH_KEY), 426),
    "no-key": (head(LINE, *UPGRADING, VERSION), 400),
    "empty-key": (head(LINE, *UPGRADING, VERSION, b"Sec-WebSocket-Key:"), 400),
    "key-of-15-bytes": (upgrade(key=b"YWFhYWFhYWFhYWFhYWFh"), 400),
    "key-of-17-bytes": (upgrade(key=b"YWFhYWFhYWFhYWFhYWFhYWE="), 400),
    "key-not-base64": (upgrade(key=b"!" * 24), 400),
    "key-not-ascii": (upgrade(key=b"\xc3\xa9" * 12), 400),
    "two-keys": (upgrade(b"/ws", WITH_KEY), 400),
    "no-version": (head(LINE, *UPGRADING, WITH_KEY), 426),
    "version-8": (head(LINE, *UPGRADING, b"Sec-WebSocket-Version: 8", WITH_KEY), 426),
    "version-list": (head(LINE, *UPGRADING, b"Sec-WebSocket-Version: 13, 8", WITH_KEY), 426),
    "post": (head(b"POST /ws HTTP/1.1", *UPGRADING, VERSION, WITH_KEY), 405),
    "head": (head(b"PUT /ws HTTP/1.1", *UPGRADING, VERSION, WITH_KEY), 405),
    "http10": (head(b"GET /ws HTTP/1.0", *UPGRADING, VERSION, WITH_KEY), 426),
    "101-query-fields": (upgrade(b"/ws?" + b"a&" * 101), 400),
}


@pytest.mark.parametrize(("sent", "status"), BAD_HANDSHAKES.values(), ids=BAD_HANDSHAKES)
def test_bad_handshake(port: int, sent: bytes, status: int) -> None:
    answer = assert_refused(port, sent, status)
    assert (answer.headers.get("sec-websocket-version") == "13") == (status == 426)


@pytest.mark.parametrize(
    "lines",
    [
        (b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits", b"Sec-WebSocket-Protocol: chat, x"),
        (b"Sec-Fetch-Site: \xff", b"Cookie: \xff\xfe=\x80"),
    ],
    ids=["extensions-and-protocols", "odd-headers"],
)
def test_what_is_offered_is_not_negotiated(port: int, lines: tuple[bytes, ...]) -> None:
    with RawClient.connect(port) as client:
        client.send(upgrade(b"/ws?userId=%0d%0aX-Injected:%20a%00%ff", *lines))
        assert set(client.expect_upgrade().headers) == {"upgrade", "connection", "sec-websocket-accept"}
        client.frame()
        client.send(frame(TEXT, b"compressed", rsv=4))
        assert client.frame().code == 1002


def long(size: int) -> str:
    return "a" * size


BAD_CHANNELS: dict[str, Any] = {
    "missing": None,
    "number": 7,
    "list": ["a"],
    "true": True,
    "empty": "",
    "colon": ":",
    "empty-middle": "a::b",
    "empty-last": "a:b:",
    "four-parts": "a:b:c:d",
    "129": long(129),
    "space": "a b",
    "newline": "a\n",
    "crlf": "a\r\nb",
    "nul": "a\0",
    "not-ascii": "\u00e9",
    "digit-not-ascii": "\u0661",
    "star": "a*",
    "slash": "a/b",
    "object-empty": {},
    "object-without-type": {"id": "a"},
    "object-type-number": {"type": 1},
    "object-type-list": {"type": ["a"]},
    "object-empty-type": {"type": ""},
    "object-type-with-colon": {"type": "a:b"},
    "object-id-number": {"type": "a", "id": 1},
    "object-id-huge-number": {"type": "a", "id": 2**64 - 1},
    "object-id-infinite": {"type": "a", "id": 1e308},
    "object-id-object": {"type": "a", "id": {"b": "c"}},
    "object-id-empty": {"type": "a", "id": ""},
    "object-id-newline": {"type": "a", "id": "b\n"},
    "object-id-129": {"type": "a", "id": long(129)},
    "object-user-number": {"type": "a", "userId": 1.5},
    "object-user-empty": {"type": "a", "id": "b", "userId": ""},
    "object-user-space": {"type": "a", "id": "b", "userId": " "},
}


@pytest.mark.parametrize("command", ["subscribe", "unsubscribe"])
def test_bad_channels(port: int, command: str) -> None:
    """Every one is answered with its error, and the connection goes on."""
    with RawClient.websocket(port) as client:
        for name, channel in BAD_CHANNELS.items():
            client.send(text({"type": command, "channel": channel}))
            answer = client.frame().json()
            assert (answer["type"], answer["code"]) == ("error", "bad_channel"), name
            assert answer["message"].isprintable()
        for channel in ("a" * 128, "A1_-.@=+~:b", {"type": "a", "id": None, "userId": "c"}):
            client.send(text({"type": "subscribe", "channel": channel}))
            assert client.frame().json()["success"] is True


BAD_MESSAGES = {
    b"": "bad_json",
    b" ": "bad_json",
    b"{": "bad_json",
    b"subscribe": "bad_json",
    b"{'type':'ping'}": "bad_json",
    b'{"type":"ping"}{"type":"ping"}': "bad_json",
    b'{"type":NaN}': "bad_json",
    b'{"type":"\\ud800"}': "bad_json",
    b"\xef\xbb\xbf{}": "bad_json",
    b"[" * 60000: "bad_json",
    b'{"a":' * 10000: "bad_json",
    b'{"type":"ping","n":' + b"9" * 5000 + b"}": "bad_json",
    b"9" * 5000: "bad_json",
    b"1e999999": "bad_json",
    b"null": "bad_command",
    b"[]": "bad_command",
    b'"ping"': "bad_command",
    b"1e5": "bad_command",
    b"[" * 500 + b"]" * 500: "bad_command",
    b"{}": "bad_command",
    b'{"type":null}': "bad_command",
    b'{"type":["ping"]}': "bad_command",
    b'{"Type":"ping"}': "bad_command",
    b'{"type":"Ping"}': "unknown_command",
    b'{"type":""}': "unknown_command",
    b'{"type":"\\u0000\\u2028"}': "unknown_command",
    b'{"type":"%b"}' % (b"a" * 60000): "unknown_command",
}


def test_bad_messages(port: int) -> None:
    """Every one is answered with its code, and the connection goes on."""
    with RawClient.websocket(port) as client:
        for message, code in BAD_MESSAGES.items():
            client.send(frame(TEXT, message))
            answer = client.frame().json()
            assert (answer["type"], answer.get("code")) == ("error", code), message[:80]
            assert len(answer["message"]) < 500
        for payload in b"", b"\xff" * 1000, b'{"type":"ping"}':
            client.send(frame(BINARY, payload))
            assert client.frame().json()["code"] == "binary_frame"
        client.send(text({"type": "ping"}))
        assert client.frame().json()["type"] == "pong"


def test_nesting_at_every_depth_around_what_python_can_bear(port: int) -> None:
    with RawClient.websocket(port) as client:
        for depth in range(900, 1010):
            nested = b"[" * depth + b"]" * depth
            client.send(frame(TEXT, b'{"type":"subscribe","channel":{"type":"a","id":%b}}' % nested))
            assert client.frame().json()["code"] in ("bad_channel", "bad_json")


def test_a_message_may_have_64_kib_and_not_a_byte_more(port: int) -> None:
    whole = b'{"type":"ping"}'.ljust(65536)
    for pieces in 1, 2, 64:
        size = 65536 // pieces
        with RawClient.websocket(port) as client:
            opcodes = [TEXT] + [CONTINUATION] * (pieces - 1)
            for at, opcode in enumerate(opcodes):
                client.send(frame(opcode, whole[at * size : (at + 1) * size], fin=at == pieces - 1))
            assert client.frame().json()["type"] == "pong"
            for at, opcode in enumerate(opcodes):
                client.send(frame(opcode, whole[at * size : (at + 1) * size], fin=False))
            client.send(frame(CONTINUATION, b" "))
            answer = client.frame()
            assert (answer.code, answer.payload[2:]) == (1009, b"message over the size limit")
            assert client.read_to_end() == b""


@pytest.mark.parametrize("wrong", [frame(3), frame(TEXT, b"\xff"), close_frame(1000), frame(TEXT, b"*", length=2**40)])
def test_what_follows_an_error_or_a_close_is_not_kept(port: int, served: DaemonProcess, wrong: bytes) -> None:
    """While the daemon waits for the client to close, it reads and forgets."""
    with RawClient.websocket(port) as client:
        before = resident_bytes(served.process.pid)
        client.send(wrong)
        client.sock.settimeout(0.5)
        try:
            for _ in range(64):
                client.send(b"\0" * (1 << 20))
        except OSError:
            pass
        assert resident_bytes(served.process.pid) - before < 8 << 20


def test_ten_thousand_subscribes(port: int, served: DaemonProcess) -> None:
    with RawClient.websocket(port) as client:
        answers = []
        for at in range(0, 10_000, 500):
            client.send(b"".join(text({"type": "subscribe", "channel": f"many:{n}"}) for n in range(at, at + 500)))
            answers += [client.frame().json() for _ in range(500)]
        kinds = [answer.get("code") or answer["type"] for answer in answers]
        assert kinds.count("subscribed") == 1000
        assert kinds.count("too_many_subscriptions") == 9000
        client.send(text({"type": "unsubscribe", "channel": {"type": "many"}}))
        assert client.frame().json()["success"] is True
        client.send(text({"type": "subscribe", "channel": "many:10000"}))
        assert client.frame().json()["success"] is True
    wait_until(lambda: not [name for name in served.stats()["channels"]["channels"] if name.startswith("many")])


def test_pings_without_end_are_answered(port: int) -> None:
    with RawClient.websocket(port) as client:
        for _ in range(10):
            client.send(frame(PING, b"*" * 125) * 200)
            assert {client.frame() for _ in range(200)} == {Frame(PONG, b"*" * 125)}


def test_resets_and_half_closes_at_every_point_of_an_opening(port: int, served: DaemonProcess) -> None:
    whole = upgrade(b"/ws?userId=" + os.urandom(4).hex().encode()) + text({"type": "subscribe", "channel": "a"})
    for cut in range(1, len(whole), 3):
        reset = RawClient.connect(port)
        reset.send(whole[:cut])
        reset.reset()
        with RawClient.connect(port) as half:
            half.send(whole[:cut])
            half.finish()
    wait_until(lambda: served.stats()["websocket"]["totalConnections"] == 1)


def test_a_close_frame_is_answered_and_nothing_else(port: int) -> None:
    with RawClient.websocket(port) as client:
        client.send(close_frame(4321, b"bye") + text({"type": "ping"}))
        assert client.frames() == [Frame(CLOSE, (4321).to_bytes(2, "big") + b"bye")]
