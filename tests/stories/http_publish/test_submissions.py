"""What a submission publishes: what subscribers receive, its bounds, and what is no submission."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter

import httpx
import pytest

from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import frames, open_streams, open_websockets, pump, stream
from tests.actors.raw_client import RawClient, head
from tests.actors.redis_server import RedisServer
from tests.stories.http_publish.conftest import Special
from tests.stories.http_publish.submitter import (
    ALERT,
    CHANNEL,
    ODD,
    PATH,
    counts,
    item,
    listening,
    many,
    post,
    refusal,
)


def test_curl_publishes_and_subscribers_have_the_same_bytes(daemon: DaemonProcess) -> None:
    (ws,) = open_websockets(daemon.port, 1, CHANNEL)
    (sse,) = open_streams(daemon.port, 1, CHANNEL)
    mark, begun = len(ws.raw), len(sse.parse())
    command = ["curl", "-s", "-w", " %{http_code}", f"{daemon.url}{PATH}", "--data-binary"]
    done = subprocess.run([*command, item(ODD)], capture_output=True, check=True)
    assert done.stdout == b'{"published":1} 200'
    listed = b"[%b]" % b",\n".join([item(b'{"n":1}'), item(b'{"n":2}', "other:1"), item(b'{ "n" : 3 }')])
    done = subprocess.run([*command, listed], capture_output=True, check=True)
    assert done.stdout == b'{"published":3} 200'
    expected = frames([ODD, b'{"n":1}', b'{ "n" : 3 }'])
    first, second = ODD.split(b"\n")
    streamed = b"data: %b\ndata: %b\n\n" % (first, second) + stream([b'{"n":1}', b'{ "n" : 3 }'])

    def received() -> bytes:
        # A channel with history has positions.
        return re.sub(rb"^id: [^\n]+\n", b"", bytes(sse.parse()[begun:]), flags=re.MULTILINE)

    pump([ws, sse], lambda: len(ws.raw) - mark >= len(expected) and len(received()) >= len(streamed))
    assert ws.raw[mark:] == expected
    assert received() == streamed


def test_a_thousand_at_once_and_not_one_more(daemon: DaemonProcess) -> None:
    (ws,) = open_websockets(daemon.port, 1, CHANNEL)
    mark = len(ws.raw)
    expected = frames([b'{"n":%d}' % number for number in range(1000)])
    assert post(daemon, many(1000)).json() == {"published": 1000}
    pump([ws], lambda: len(ws.raw) - mark >= len(expected))
    assert refusal(post(daemon, many(1001))) == (413, "1001 events; at most 1000")
    # The last of a hundred bad ones spoils the rest.
    spoilt = many(100)[:-1] + b"," + item(b"7") + b"]"
    assert refusal(post(daemon, spoilt)) == (400, "$[100].event: not a JSON object")
    assert post(daemon, item(b'{"last":1}')).json() == {"published": 1}
    expected += frames([b'{"last":1}'])
    pump([ws], lambda: len(ws.raw) - mark >= len(expected))
    assert ws.raw[mark:] == expected


def test_a_mebibyte_and_not_a_byte_more(daemon: DaemonProcess) -> None:
    (ws,) = open_websockets(daemon.port, 1, CHANNEL)
    mark = len(ws.raw)
    room = (1 << 20) - len(item(b'{"x":""}'))
    event = b'{"x":"%b"}' % (b"x" * room)
    assert post(daemon, item(event)).json() == {"published": 1}
    pump([ws], lambda: len(ws.raw) - mark >= len(frames([event])))
    assert ws.raw[mark:] == frames([event])
    assert refusal(post(daemon, item(event) + b" ")) == (413, "the request body is larger than 1048576 bytes")


def test_the_counts_are_in_the_stats(daemon: DaemonProcess) -> None:
    before = counts(daemon)
    post(daemon, many(3))
    for _ in range(3):
        post(daemon, many(5), idempotency_key="k")
    post(daemon, b"[]")
    post(daemon, b"\xff")
    post(daemon, many(1001))
    post(daemon, item(), x_forwarded_for="192.0.2.2")
    post(daemon, item(), idempotency_key="k")
    assert counts(daemon) - before == Counter(
        {"requests": 9, "events": 8, "repeated": 2, "400": 2, "413": 1, "403": 1, "422": 1}
    )


def test_a_body_that_is_no_text_is_refused_and_not_a_failure(daemon: DaemonProcess) -> None:
    """A daemon that logs an error fails the test."""
    assert refusal(post(daemon, b'{"channel":"\xff","event":{}}'))[0] == 400
    assert refusal(post(daemon, b'{"channel":"a","event":{"a":"\xff"}}'))[0] == 400
    assert refusal(post(daemon, b"[" * 500_000))[0] == 400
    assert refusal(post(daemon, b""))[0] == 400
    # Whatever it says it is: there are no forms here.
    assert refusal(post(daemon, b"a=b", content_type="application/x-www-form-urlencoded"))[0] == 400
    assert refusal(post(daemon, b"--x", content_type="multipart/form-data; boundary=x"))[0] == 400
    assert post(daemon, item(), content_type="text/plain").json() == {"published": 1}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "PROPFIND"])
def test_other_methods_are_not_allowed(daemon: DaemonProcess, method: str) -> None:
    response = httpx.request(method, f"{daemon.url}{PATH}", content=item(), trust_env=False)
    assert response.status_code == 405
    assert sorted(response.headers["allow"].split(", ")) == ["OPTIONS", "POST"]
    assert (response.content == b"") == (method == "HEAD")


def test_a_second_request_behind_a_body_is_one_of_its_own(daemon: DaemonProcess) -> None:
    """What the body holds is never read as a request, however it is framed."""
    smuggled = head(b"POST /api/publish HTTP/1.1", b"Content-Length: %d" % len(item())) + item()
    inner = json.dumps({"a": smuggled.decode()}).encode()
    body = item(inner)
    length = head(b"POST /api/publish HTTP/1.1", b"Content-Length: %d" % len(body)) + body
    chunked = head(b"POST /api/publish HTTP/1.1", b"Transfer-Encoding: chunked")
    chunked += b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:7], body[7:])) + b"0\r\n\r\n"
    (ws,) = open_websockets(daemon.port, 1, CHANNEL)
    mark, before = len(ws.raw), counts(daemon)
    with RawClient.connect(daemon.port) as client:
        client.send(length + chunked + smuggled)
        assert [client.answer().json() for _ in range(3)] == [{"published": 1}] * 3
    expected = frames([inner, inner, b'{"n":1}'])
    pump([ws], lambda: len(ws.raw) - mark >= len(expected))
    assert ws.raw[mark:] == expected
    assert counts(daemon) - before == Counter({"requests": 3, "events": 3})


def test_a_client_that_leaves_half_way_publishes_nothing(server: RedisServer, daemon: DaemonProcess) -> None:
    with listening(server) as ear:
        client = RawClient.connect(daemon.port)
        client.send(head(b"POST /api/publish HTTP/1.1", b"Content-Length: 1000") + item())
        client.reset()
        assert post(daemon, item(b'{"n":2}')).json() == {"published": 1}
        assert ear.heard() == [b'{"n":2}']


def test_undeclared_types_and_checked_ones(special: Special) -> None:
    assert refusal(post(special.daemon, item(channel="other:1"))) == (
        400,
        "$.channel: channel type other is not served here",
    )
    assert refusal(post(special.daemon, item())) == (400, "$.event: not_an_event: type is missing")
    assert post(special.daemon, ALERT).json() == {"published": 1}


def test_channels_with_history_keep_what_is_published(server: RedisServer, daemon: DaemonProcess) -> None:
    body = b"[%b]" % b",".join([item(b'{"n":1}'), item(b'{"n":2}', "note:1"), item(b'{"n":3}'), ALERT])
    with listening(server) as ear:
        assert post(daemon, body).json() == {"published": 4}
        assert post(daemon, item(b'{"n":4}'), idempotency_key="k").json() == {"published": 1}
        heard = ear.heard_stamped()
    assert heard.pop(1) == b'{"n":2}'
    found = [re.fullmatch(rb"\x01s:(\d+):(\d+):(\d+) (.*)", message) for message in heard]
    assert [each and (each[2], each[4]) for each in found] == [
        (b"1", b'{"n":1}'),
        (b"2", b'{"n":3}'),
        (b"1", b'{"n":1}'),
        (b"3", b'{"n":4}'),
    ]
    with server.client() as client:
        kept = client.xrange("broker:history:{job_progress:42}:events")
        position_ms = client.pttl("broker:history:{job_progress:42}:top")
    assert [fields for _, fields in kept] == [{b"s": b'{"n":1}'}, {b"s": b'{"n":3}'}, {b"s": b'{"n":4}'}]
    assert 86_000_000 < position_ms <= 86_400_000
