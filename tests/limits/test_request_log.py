"""The log of requests: a line for each, when it is over; and nothing that a client sends makes another."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import RawClient, close_frame, head, upgrade, wait_until
from tests.actors.redis_server import RedisServer

StartDaemon = Callable[..., DaemonProcess]
# What ends a line somewhere: LF, CR, VT, FF, NEL, LS, PS; NUL and ESC; and what would end a field or an object.
BREAKS = ("\n", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\u2028", "\u2029", "\0", "\x1b[2J", '"}', "' event='x", " a=b")
FORGED = 'timestamp="2026-01-01" level=error event=forged'


def quoted(text: str) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in text.encode())


def requests_of(daemon: DaemonProcess) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, daemon.log().splitlines()) if line["event"] in ("request", "no request")]


def test_a_line_for_each_request(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(redis_server.url, "--log-requests=on")
    with RawClient.connect(daemon.port) as client:
        assert client.ask(head(b"GET /health?token=secret&x=1 HTTP/1.1")).status == 200
        assert client.ask(head(b"GET /nothing HTTP/1.1")).status == 404
        assert client.ask(head(b"GET /api/stream HTTP/1.1")).status == 400
    with RawClient.connect(daemon.port) as client:
        assert client.ask(b"nonsense\r\n\r\n").status == 400
    with RawClient.websocket(daemon.port, b"/ws?userId=ann") as client:
        client.send(close_frame(1000))
        client.read_to_end()
    with RawClient.connect(daemon.port) as client:
        assert client.ask(head(b"GET /api/stream?channel=a:1&userId=ann HTTP/1.1")).status == 200
    wait_until(lambda: len(requests_of(daemon)) == 6)
    lines = requests_of(daemon)
    for line in lines:
        del line["timestamp"]
        assert 0 <= line.pop("seconds", 0) < 5
    for line in lines[4:]:
        line["outcome"] = re.sub("[0-9a-f]{16}", "ID", line["outcome"])
    facts = {"level": "info", "event": "request", "method": "GET", "client": "127.0.0.1", "user": None}
    assert "secret" not in daemon.log()
    masked = lines[0].pop("target")
    assert masked.startswith("/health?token=") and masked.endswith("&x=1")
    assert lines == [
        {**facts, "outcome": "200"},
        {**facts, "target": "/nothing", "outcome": "404"},
        {**facts, "target": "/api/stream", "outcome": "400"},
        {
            "level": "info",
            "event": "no request",
            "outcome": "400",
            "client": "127.0.0.1",
            "why": lines[3]["why"],
        },
        {**facts, "target": "/ws?userId=ann", "outcome": "ws_ID until left", "user": "ann"},
        {**facts, "target": "/api/stream?channel=a:1&userId=ann", "outcome": "sse_ID until left", "user": "ann"},
    ]


def test_it_is_off_unless_asked_for(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(redis_server.url)
    with RawClient.connect(daemon.port) as client:
        assert client.ask(head(b"GET /health HTTP/1.1")).status == 200
    assert requests_of(daemon) == []


@pytest.mark.parametrize("format", ["json", "text"])
def test_nothing_that_is_sent_begins_a_line(redis_server: RedisServer, tmp_path: Path, format: str) -> None:
    daemon = DaemonProcess(
        redis_server.url,
        tmp_path / "daemon.log",
        (
            f"--log-format={format}",
            "--log-requests=on",
            "--log-level=debug",
            "--listen-trusted-proxies=127.0.0.1",
        ),
    )
    daemon.start()
    try:
        for number, sign in enumerate(BREAKS):
            hostile = quoted(sign + FORGED)
            raw = sign.encode("latin-1", "replace") + FORGED.encode()
            for data in (
                head(b"GET /health/%b?n=%d&userId=%b HTTP/1.1" % (hostile, number, hostile)),
                upgrade(b"/ws?n=%d&userId=%b" % (number, hostile)),
                head(b"GET /api/stream?channel=a:1&n=%d&userId=%b HTTP/1.1" % (number, hostile)),
                head(b"GET /%b HTTP/1.1" % raw),
                head(b"GET /h HTTP/1.1", b"Origin: " + raw),
                head(b"GET /h HTTP/1.1", b"X-Forwarded-For: " + raw, b"Forwarded: for=" + raw),
                head(b"GET /h HTTP/1.1", b"User-Agent: " + raw),
                raw,
            ):
                with RawClient.connect(daemon.port) as client:
                    client.send(data)
                    client.finish()
                    client.read_to_end()
        wait_until(lambda: daemon.stats()["connections"]["open"] == 1)
    finally:
        daemon.stop()
    log = daemon.log()
    assert log.count(f"n={len(BREAKS) - 1}&") >= 3
    assert log.isascii() and not re.search(r"[^\n -~]", log)
    for line in log.splitlines():
        if format == "json":
            assert json.loads(line)["event"] != "forged"
        else:
            # Every value is written as Python writes it, so that where it ends is plain to see.
            event = re.match(r"timestamp='[^']*' level='[a-z]*' event=('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")", line)
            assert event is not None, line
            assert "forged" not in ast.literal_eval(event[1])
