"""Tokens of the Python subscriber: how they are sent, renewed and refused, against servers that follow a script."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from broker.ending import ENDINGS
from broker.errors import SubscriberError
from broker.subscriber import Event, Notice, loss, subscribe, subscription
from broker.subscriber.conversation import Conversation

BOUND_SECONDS = 10.0
GREETING = json.dumps({"type": "connected", "message": "", "clientId": "ws_1", "timestamp": ""})
Talk = Callable[[WebSocketRequest], Awaitable[None]]


@asynccontextmanager
async def _server(*talks: Talk, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[str, list[str | None]]]:
    """Has the n-th talk with the n-th client, and the last one with all later ones; notes how each authorizes."""
    left, shown = list(talks), list[str | None]()

    async def handle(request: WebSocketRequest) -> None:
        shown.append({name.lower(): value.decode() for name, value in request.headers}.get(b"authorization"))
        try:
            await (left.pop(0) if len(left) > 1 else left[0])(request)
        except ConnectionClosed:
            pass

    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, handle, "127.0.0.1", 0, tls, disconnect_timeout=0.2)
        server = await nursery.start(serve)
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.port}", shown
        nursery.cancel_scope.cancel()


def _live(*events: str, close: tuple[int, str] | None = None) -> Talk:
    """Take the client, answer its subscribe, send `events`, and close, or wait."""

    async def talk(request: WebSocketRequest) -> None:
        connection = await request.accept(subprotocol="broker.v1")
        await connection.send_message(GREETING)
        name = json.loads(await connection.get_message())["channel"]
        answer = {"type": "subscribed", "name": name, "success": True, "position": "1:1:1", "recovered": True}
        await connection.send_message(json.dumps(answer))
        for event in events:
            await connection.send_message(event)
        if close is not None:
            await connection.aclose(*close)
        await connection.get_message()

    return talk


def _refusing(status: int, body: Any = None, **headers: str) -> Talk:
    async def talk(request: WebSocketRequest) -> None:
        fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        await request.reject(status, extra_headers=fields, body=None if body is None else json.dumps(body).encode())

    return talk


def _closing(code: int, reason: str) -> Talk:
    """Greet and close: as a daemon does with a token that it took in the first message."""

    async def talk(request: WebSocketRequest) -> None:
        connection = await request.accept(subprotocol="broker.v1")
        await connection.send_message(GREETING)
        await connection.aclose(code, reason)

    return talk


def _tokens(*tokens: str) -> Callable[[], str]:
    """Gives one after the other, and the last for ever."""
    left = list(tokens)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


async def _end(url: str, **options: Any) -> str:
    """How a subscription ends that does."""
    with trio.fail_after(BOUND_SECONDS), pytest.raises(SubscriberError) as caught:
        async with subscribe(url, ["a:1"], **options) as events:
            async for _ in events:
                pass
    return str(caught.value)


# ---- sending ----


async def _later() -> str:
    await trio.lowlevel.checkpoint()
    return "t0k.en~"


@pytest.mark.parametrize("token", ["t0k.en~", lambda: "t0k.en~", _later])
async def test_a_token_is_sent_with_the_handshake(token: Any) -> None:
    async with _server(_live()) as (url, shown):
        async with subscribe(url, ["a:1"], token=token) as events:
            assert shown == ["Bearer t0k.en~"]
            assert "t0k" not in repr(events)


async def test_without_a_token_none_is_sent() -> None:
    async with _server(_live()) as (url, shown), subscribe(url, ["a:1"]):
        assert shown == [None]


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX: 1", "é", "\ud800", "a" * 8001, 7, b"a"])
async def test_what_can_be_no_header_is_never_sent(token: Any) -> None:
    with pytest.raises(SubscriberError) as caught:
        subscribe("http://127.0.0.1:1", ["a"], token=token)
    assert str(token) not in str(caught.value) or token == ""
    async with _server(_live()) as (url, shown):
        said = await _end(url, token=lambda: token)
        assert said == "not a token: it must be 1 to 8000 visible ASCII characters, without spaces"
        assert shown == []


# ---- renewing ----


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reconnects do not wait."""
    monkeypatch.setattr(subscription, "BACKOFF_MIN_SECONDS", 0.0)
    monkeypatch.setattr(loss, "HASTE_SECONDS", 0.0)


@pytest.mark.usefixtures("at_once")
async def test_a_callable_is_asked_anew_for_each_connection() -> None:
    notices: list[Notice] = []
    first = _live('{"channel":"a:1","position":"1:2:2","event":{"n":1}}', close=(4402, "token expired"))
    second = _live('{"channel":"a:1","position":"1:3:3","event":{"n":2}}', close=(1012, "server shutting down"))
    third = _live('{"channel":"a:1","position":"1:4:4","event":{"n":3}}')
    async with _server(first, second, third) as (url, shown):
        with trio.fail_after(BOUND_SECONDS):
            async with subscribe(url, ["a:1"], token=_tokens("a", "b", "c"), on_notice=notices.append) as events:
                assert [(await anext(events)).raw for _ in range(3)] == ['{"n":1}', '{"n":2}', '{"n":3}']
    assert shown == ["Bearer a", "Bearer b", "Bearer c"]
    assert [(notice.kind, notice.text) for notice in notices] == [
        ("disconnected", "closed with code 4402: token expired"),
        ("reconnected", "subscribed again; nothing is missing"),
        ("disconnected", "closed with code 1012: server shutting down"),
        ("reconnected", "subscribed again; nothing is missing"),
    ]


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("refusal", [_refusing(401, {"detail": "expired"}), _closing(4401, "no"), _closing(4403, "no")])
async def test_another_token_is_tried_once_after_a_refusal(refusal: Talk) -> None:
    notices: list[Notice] = []
    lives = _live(close=(4402, "token expired"))
    async with _server(refusal, lives, refusal, _live("{}")) as (url, shown):
        with trio.fail_after(BOUND_SECONDS):
            async with subscribe(url, ["a:1"], token=_tokens("a", "b", "c", "d"), on_notice=notices.append) as events:
                with pytest.raises(SubscriberError):  # "{}" is not `broker.v1`
                    await anext(events)
    # Each refusal counts anew, after one was live; that one is over is no refusal.
    assert shown == ["Bearer a", "Bearer b", "Bearer c", "Bearer d"]
    assert [notice.kind for notice in notices] == ["disconnected", "waiting", "reconnected"]


@pytest.mark.usefixtures("at_once")
async def test_a_second_token_that_is_refused_is_the_end() -> None:
    async with _server(_refusing(401, {"detail": "who?", "hint": "h"})) as (url, shown):
        assert await _end(url, token=_tokens("a", "b", "c")) == (
            f"cannot subscribe at {url}: it answered HTTP 401 to the WebSocket handshake: who?; "
            "give a token that it takes"
        )
        assert shown == ["Bearer a", "Bearer b"]


@pytest.mark.usefixtures("at_once")
async def test_a_token_that_was_refused_is_not_sent_again() -> None:
    over = _live(close=(4402, "token expired"))
    async with _server(over, over, _refusing(401, {"detail": "expired"})) as (url, shown):
        assert await _end(url, token=_tokens("a", "b", "c")) == (
            f"{url} does not want this subscriber back: it answered HTTP 401 to the WebSocket handshake: expired; "
            "the callable for the token gave the same one again"
        )
        assert shown == ["Bearer a", "Bearer b", "Bearer c"]


@pytest.mark.usefixtures("at_once")
async def test_a_token_that_is_over_before_anything_is_live_counts_as_refused() -> None:
    async with _server(_closing(4402, "token expired")) as (url, shown):
        assert (await _end(url, token=_tokens("a", "b", "c"))).startswith(f"cannot subscribe at {url}: closed with")
        assert shown == ["Bearer a", "Bearer b"]


@pytest.mark.parametrize("expires_at", [None, "soon", 7, "2026-01-31T11:00:00.000Z", "2026-01-31T12:00:00.100"])
async def test_an_expiry_that_is_none_is_passed_over(expires_at: object) -> None:
    async def talk(request: WebSocketRequest) -> None:
        connection = await request.accept(subprotocol="broker.v1")
        greeting = {"type": "connected", "clientId": "ws_1", "timestamp": "2026-01-31T12:00:00.000Z"}
        await connection.send_message(json.dumps({**greeting, "expiresAt": expires_at}))
        name = json.loads(await connection.get_message())["channel"]
        await connection.send_message(json.dumps({"type": "subscribed", "name": name, "success": True}))
        with trio.move_on_after(0.3):
            heard.append(await connection.get_message())
        await connection.send_message('{"channel":"a:1","position":null,"event":{}}')
        await connection.get_message()

    heard: list[object] = []
    async with _server(talk) as (url, _), subscribe(url, ["a:1"], token=_tokens("a", "b")) as events:
        with trio.fail_after(BOUND_SECONDS):
            assert (await anext(events)).raw == "{}"
    assert heard == []


async def test_each_answer_says_when_to_renew_again() -> None:
    def until(kind: str, milliseconds: int) -> str:
        stamps = {"timestamp": "2026-01-31T12:00:00.000Z", "expiresAt": f"2026-01-31T12:00:00.{milliseconds}Z"}
        return json.dumps({"type": kind, "clientId": "ws_1", "userId": "u", **stamps})

    async def talk(request: WebSocketRequest) -> None:
        connection = await request.accept(subprotocol="broker.v1")
        await connection.send_message(until("connected", 100))
        name = json.loads(await connection.get_message())["channel"]
        await connection.send_message(json.dumps({"type": "subscribed", "name": name, "success": True}))
        for _ in range(2):
            heard.append(json.loads(await connection.get_message()))
            await connection.send_message(until("authenticated", 200))
        heard.append(json.loads(await connection.get_message()))
        # A token that does not count changes nothing: the daemon ends the connection when the old one is over.
        await connection.send_message('{"type":"error","code":"bad_token","message":""}')
        await connection.send_message('{"channel":"a:1","position":null,"event":{}}')
        await connection.get_message()

    heard: list[object] = []
    notices: list[Notice] = []
    async with _server(talk) as (url, shown):
        async with subscribe(url, ["a:1"], token=_tokens("a", "b", "c", "d"), on_notice=notices.append) as events:
            with trio.fail_after(BOUND_SECONDS):
                assert (await anext(events)).raw == "{}"
    assert (shown, notices) == (["Bearer a"], [])
    assert heard == [{"type": "authenticate", "token": each} for each in "bcd"]


async def test_a_text_is_not_renewed() -> None:
    async def talk(request: WebSocketRequest) -> None:
        connection = await request.accept(subprotocol="broker.v1")
        await connection.send_message(
            '{"type":"connected","clientId":"ws_1","timestamp":"2026-01-31T12:00:00Z","expiresAt":"2026-01-31T12:00:00.100Z"}'
        )
        name = json.loads(await connection.get_message())["channel"]
        await connection.send_message(json.dumps({"type": "subscribed", "name": name, "success": True}))
        with trio.move_on_after(0.3):
            heard.append(await connection.get_message())
        await connection.aclose(4402, "token expired")

    heard: list[object] = []
    async with _server(talk) as (url, _):
        assert "does not want this subscriber back: closed with code 4402: token expired" in await _end(url, token="a")
    assert heard == []


# ---- refused ----


@pytest.mark.parametrize("token", [None, "t0ken"])
@pytest.mark.parametrize(
    ("talk", "says"),
    [
        (_refusing(401), "it answered HTTP 401 to the WebSocket handshake"),
        (_refusing(403, {"detail": "a\r\nb\x1b"}), "it answered HTTP 403 to the WebSocket handshake: a  b "),
        (_refusing(401, {"detail": "w" * 1000}), f"it answered HTTP 401 to the WebSocket handshake: {'w' * 200}"),
        (_refusing(401, ["detail"]), "it answered HTTP 401 to the WebSocket handshake"),
        (_closing(4401, "no valid token in time"), "closed with code 4401: no valid token in time"),
        (_closing(4402, "token expired"), "closed with code 4402: token expired"),
        (_closing(4403, "token revoked"), "closed with code 4403: token revoked"),
    ],
)
async def test_what_no_other_token_can_mend_is_raised(talk: Talk, says: str, token: str | None) -> None:
    async with _server(talk) as (url, shown):
        said = await _end(url, token=token)
        assert said == f"cannot subscribe at {url}: {says}; give a token that it takes"
        assert len(shown) == 1
    async with _server(_live(), talk) as (url, shown):
        pass
    live, says = _live(close=(1012, "")), f" does not want this subscriber back: {says}"
    async with _server(live, talk) as (url, shown):
        assert await _end(url, token=token) == url + says
        assert len(shown) == 2


@pytest.mark.parametrize("code", ["forbidden", "unauthenticated"])
async def test_a_channel_that_no_rule_allows(code: str) -> None:
    async def talk(request: WebSocketRequest) -> None:
        connection = await request.accept(subprotocol="broker.v1")
        await connection.send_message(GREETING)
        await connection.get_message()
        await connection.send_message(json.dumps({"type": "error", "code": code, "message": "why"}))
        await connection.get_message()

    async with _server(talk) as (url, _):
        assert await _end(url, token="t") == f"{url} refused: {code}: why"


# ---- a callable that fails ----


async def test_a_callable_that_raises_at_first_is_told_without_its_words() -> None:
    error = ValueError("the secret")
    tried = 0

    def give() -> str:
        nonlocal tried
        tried += 1
        raise error

    with pytest.raises(SubscriberError) as caught:
        async with subscribe("http://127.0.0.1:1", ["a:1"], token=give):
            raise AssertionError
    assert str(caught.value) == (
        "cannot subscribe at http://127.0.0.1:1: the callable for the token raised ValueError; "
        "see what the callable asks"
    )
    assert tried == 1
    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.__cause__ is error


@pytest.mark.usefixtures("at_once")
async def test_a_callable_that_fails_later_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "ANSWER_SECONDS", 0.5)
    notices: list[Notice] = []
    tried = 0

    async def give() -> str:
        nonlocal tried
        tried += 1
        if tried == 2:
            raise OSError("the secret")
        if tried == 3:
            await trio.sleep_forever()
        return "t"

    event = '{"channel":"a:1","position":"1:2:2","event":{}}'
    async with _server(_live(close=(1012, "")), _live(event)) as (url, shown):
        with trio.fail_after(BOUND_SECONDS):
            async with subscribe(url, ["a:1"], token=give, on_notice=notices.append) as events:
                await anext(events)
    assert shown == ["Bearer t", "Bearer t"]
    assert [(notice.kind, notice.text) for notice in notices] == [
        ("disconnected", "closed with code 1012: no reason given"),
        ("waiting", "the callable for the token raised OSError"),
        ("waiting", "no token came within 0.5 s"),
        ("reconnected", "subscribed again; nothing is missing"),
    ]


# ---- being asked to be slower ----


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each reconnect waited, without the random part; nobody waits."""
    taken: list[float] = []
    sleep = trio.sleep

    async def nap(seconds: float) -> None:
        if isinstance(seconds, float):  # what trio-websocket asks for are whole numbers
            taken.append(seconds)
        await sleep(0)

    monkeypatch.setattr(subscription, "BACKOFF_MIN_SECONDS", 0.0)
    monkeypatch.setattr(subscription.trio, "sleep", nap)
    return taken


@pytest.mark.parametrize(
    ("talk", "seconds"),
    [
        (_refusing(429, Retry_After="7"), 7.0),
        (_refusing(503, retry_after="2"), 2.0),
        (_refusing(429, Retry_After="99999999999"), 300.0),
        (_refusing(429, Retry_After="-1"), 0.0),
        (_refusing(429, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"), 0.0),
        (_refusing(429), 0.0),
        (_refusing(404, Retry_After="7"), None),
        (_closing(4429, "too many connections"), 1.0),
        (_closing(4008, "too many messages"), 1.0),
        (_closing(4003, "too many bytes waiting for all clients"), 0.0),
        (_closing(4006, "disconnected by the operator"), None),
    ],
)
async def test_who_is_asked_to_be_slower_is(talk: Talk, seconds: float | None, naps: list[float]) -> None:
    event = '{"channel":"a:1","position":"1:2:2","event":{}}'
    async with _server(_live(close=(1012, "")), talk, _live(event)) as (url, _):
        with trio.fail_after(BOUND_SECONDS):
            if seconds is None:
                assert "does not want this subscriber back" in await _end(url)
                return
            async with subscribe(url, ["a:1"]) as events:
                await anext(events)
    assert naps == [0.0, seconds]


async def test_at_first_it_is_told_when_to_come_again() -> None:
    async with _server(_refusing(429, {"detail": "full"}, Retry_After="7")) as (url, _):
        assert await _end(url) == (
            f"cannot subscribe at {url}: it answered HTTP 429 to the WebSocket handshake: full; try again in 7 s"
        )


def test_every_code_that_the_subscriber_knows_is_an_ending() -> None:
    names = {ending.code: ending.name for ending in ENDINGS}
    assert {names[code] for code in loss.TOKEN_CODES} == {"unauthenticated", "token_expired", "revoked"}
    assert {names[code] for code in loss.HASTE_CODES} == {"too_many_commands", "too_many_connections"}


# ---- events for the user ----


def test_an_event_for_the_user_has_no_channel() -> None:
    talk = Conversation("http://b", ("a:1",), {}, True)
    event = talk.receive('{"channel":null,"position":null,"event":{"type": "x",  "n":1}}')
    assert event == Event('{"type": "x",  "n":1}', {}, None, None, True)
    event = talk.receive('{"channel":"a:1","position":null,"event":{}}')
    assert event == Event("{}", {}, "a:1", None, False)


async def test_events_for_the_user_come_between_the_others_and_move_no_bookmark() -> None:
    said = [
        '{"channel":null,"position":null,"event":{"type":"note"}}',
        '{"channel":"a:1","position":"1:2:2","event":{"type":"x"}}',
        '{"channel":null,"position":null,"event":{"type":"gap","channel":"a:1"}}',
    ]
    async with _server(_live(*said)) as (url, _), subscribe(url, ["a:1"], token="t") as events:
        with trio.fail_after(BOUND_SECONDS):
            found = [await anext(events) for _ in range(3)]
        assert [(event.is_to_user, event.channel, event.type) for event in found] == [
            (True, None, "note"),
            (False, "a:1", "x"),
            (True, None, "gap"),
        ]
        assert events.positions == {"a:1": "1:2:2"}


@pytest.mark.parametrize("who", [{"token": "t"}, {"user_id": "7"}])
async def test_whoever_is_somebody_needs_no_channel(who: dict[str, str]) -> None:
    async def talk(request: WebSocketRequest) -> None:
        connection = await request.accept(subprotocol="broker.v1")
        await connection.send_message(GREETING)
        await connection.send_message('{"channel":null,"position":null,"event":{"n":1}}')
        await connection.get_message()

    async with _server(talk) as (url, _):
        with trio.fail_after(BOUND_SECONDS):
            async with subscribe(url, [], **who) as events:  # type: ignore[arg-type]
                assert (await anext(events)).data == {"n": 1}


# ---- TLS ----


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


async def test_certificates_to_trust_come_from_a_file(
    authority: trustme.CA, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    file = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    async with _server(_live(), tls=tls) as (url, shown):
        for trusted in (file, str(file)):
            async with subscribe(url.replace("https", "wss"), ["a:1"], token="t", ca_file=trusted):
                pass
        assert shown == ["Bearer t"] * 2
        assert "certificate verify failed" in await _end(url, token="t")
        assert shown == ["Bearer t"] * 2


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_a_file_without_certificates_is_refused(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SubscriberError, match=r"^cannot read certificates to trust from '.*ca\.pem': "):
        subscribe("https://127.0.0.1:1", ["a"], ca_file=file)


async def test_a_broker_that_leaves_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "BACKOFF_MIN_SECONDS", 1000.0)
    farewell = {"type": "disconnected", "message": "Server shutting down", "reconnectInMs": 300, "timestamp": ""}
    leaving = _live('{"channel":"a:1","position":"1:2:2","event":{"n":1}}', json.dumps(farewell), close=(1012, ""))
    back = _live('{"channel":"a:1","position":"1:3:3","event":{"n":2}}')
    async with _server(leaving, back) as (url, _):
        with trio.fail_after(BOUND_SECONDS):
            async with subscribe(url, ["a:1"]) as events:
                assert (await anext(events)).raw == '{"n":1}'
                left_at = trio.current_time()
                assert (await anext(events)).raw == '{"n":2}'
                assert 0.25 <= trio.current_time() - left_at < BOUND_SECONDS
