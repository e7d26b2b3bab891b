"""The Python subscriber: against the real daemon, and against servers that behave badly on purpose."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from broker import errorcode
from broker.errors import SubscriberError
from broker.subscriber import Event, Gap, Notice, Subscription, subscribe, subscription
from broker.subscriber.conversation import ERROR_CODES
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer, free_port
from tests.conftest import errors_of

BOUND_SECONDS = 10.0
GREETING = json.dumps({"type": "connected", "message": "", "clientId": "ws_1", "timestamp": ""})
StartDaemon = Callable[..., DaemonProcess]
Talk = Callable[[WebSocketConnection], Awaitable[None]]
Shared = tuple[RedisServer, DaemonProcess]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A Redis and a daemon, with many heartbeats, for all tests that leave them as they are."""
    folder = tmp_path_factory.mktemp("shared")
    redis_server = RedisServer(folder)
    redis_server.start()
    flags = ("--log-format", "json", "--clients-farewell-seconds", "0.2", "--websocket-ping-seconds", "0.1")
    daemon = DaemonProcess(redis_server.url, folder / "daemon.log", flags)
    daemon.start()
    yield redis_server, daemon
    daemon.stop()
    redis_server.kill()
    assert errors_of(daemon) == []


async def _take(events: Subscription, count: int) -> list[str]:
    with trio.fail_after(BOUND_SECONDS):
        return [(await anext(events)).raw for _ in range(count)]


async def _until(holds: Callable[[], object]) -> None:
    with trio.fail_after(BOUND_SECONDS):
        while not holds():
            await trio.sleep(0.005)


def _kinds(notices: list[Notice]) -> list[str]:
    return [notice.kind for notice in notices]


@asynccontextmanager
async def _server(*talks: Talk, subprotocol: str | None = None) -> AsyncIterator[str]:
    """A WebSocket server that has the n-th talk with the n-th client, and the last one with all later ones."""
    left = list(talks)

    async def handle(request: WebSocketRequest) -> None:
        talk = left.pop(0) if len(left) > 1 else left[0]
        connection = await request.accept(subprotocol=subprotocol)
        try:
            await talk(connection)
        except ConnectionClosed:
            pass

    async with trio.open_nursery() as nursery:
        serve = partial(serve_websocket, handle, "127.0.0.1", 0, None, disconnect_timeout=0.2)
        server = await nursery.start(serve)
        yield f"http://127.0.0.1:{server.port}"
        nursery.cancel_scope.cancel()


async def _welcome(connection: WebSocketConnection) -> None:
    """Greet, and answer one subscribe."""
    await connection.send_message(GREETING)
    name = json.loads(await connection.get_message())["channel"]
    await connection.send_message(json.dumps({"type": "subscribed", "name": name, "success": True}))


async def _serve_in_peace(connection: WebSocketConnection) -> None:
    await _welcome(connection)
    await connection.get_message()


def _closing(code: int, reason: str | None = None, *events: str) -> Talk:
    async def talk(connection: WebSocketConnection) -> None:
        await _welcome(connection)
        for event in events:
            await connection.send_message(event)
        await connection.aclose(code, reason)

    return talk


# ---- events ----


async def test_events_come_in_order_as_published(shared: Shared) -> None:
    redis_server, daemon = shared
    payloads = [f'{{"type": "job_progress",  "n":{n}, "note":"\u00e9\U0001f680"}}' for n in range(200)]
    async with subscribe(daemon.url, ["job_progress:42", "alerts", "alerts"], user_id="u 1") as events:
        redis_server.publish("job_progress:42", *(payload.encode() for payload in payloads[:-1]))
        redis_server.publish("alerts", payloads[-1].encode())
        assert await _take(events, 200) == payloads
        (client,) = daemon.stats()["websocket"]["clients"]
        assert (client["userId"], client["subscribedChannels"]) == ("u 1", ["job_progress:42", "alerts"])
    await _until(lambda: daemon.stats()["websocket"]["totalConnections"] == 0)


async def test_what_only_looks_like_the_brokers_own_is_an_event(shared: Shared) -> None:
    redis_server, daemon = shared
    lookalikes = [
        '{"type":"connected","message":"hello","clientId":"ws_1","timestamp":""}',
        '{"type":"subscribed","name":"other","success":true}',
        '{"type":"subscribed","name":["a"],"success":true}',
        '{"type":"error","code":"bad_json","message":"a job\'s own"}',
        '{"type":"error","code":{}}',
        '{"type":"heartbeat","serverTime":"1","timestamp":"2"}',
        '{"type":"heartbeat"}',
        '{"type":"pong","timestamp":""}',
        '{"type":"disconnected","message":"a device went"}',
        '{"type":7}',
        "[1]",
        "null",
        r'"\ud800"',
    ]
    async with subscribe(daemon.url, ["a:1"]) as events:
        redis_server.publish("a:1", *(payload.encode() for payload in lookalikes))
        assert await _take(events, len(lookalikes)) == lookalikes


async def test_entering_waits_for_every_channel() -> None:
    told, last = trio.Event(), trio.Event()

    async def answer_one_by_one(connection: WebSocketConnection) -> None:
        await connection.send_message(GREETING)
        await connection.send_message('{"type":"subscribed","name":"a:1","success":true}')
        await connection.send_message('{"n":1}')
        await told.wait()
        last.set()
        await connection.send_message('{"type":"subscribed","name":"a:2","success":true}')
        await connection.get_message()

    async def release() -> None:
        await trio.testing.wait_all_tasks_blocked(0.05)
        told.set()

    async with _server(answer_one_by_one) as url, trio.open_nursery() as nursery:
        nursery.start_soon(release)
        async with subscribe(url, ["a:1", "a:2"]) as events:
            assert last.is_set()
            assert await _take(events, 1) == ['{"n":1}']


async def test_heartbeats_are_not_events(shared: Shared) -> None:
    redis_server, daemon = shared
    async with subscribe(daemon.url, ["a:1"], silence_seconds=BOUND_SECONDS) as events:
        with trio.move_on_after(0.35) as quiet:
            await anext(events)
        assert quiet.cancelled_caught
        redis_server.publish("a:1", b"{}")
        assert await _take(events, 1) == ["{}"]


def test_an_event_is_decoded_if_it_is_an_object() -> None:
    assert Event.from_raw('{"type":"a","b":1}').data == {"type": "a", "b": 1}
    assert Event.from_raw(r'{"type":"\ud800"}').type == "\ud800"
    assert [Event.from_raw(raw).type for raw in ("[]", "not json", '{"type":1}', "[" * 10**6)] == ["", "", "", ""]


def test_the_error_codes_are_the_sessions() -> None:
    codes = {value for name, value in vars(errorcode).items() if name.isupper() and isinstance(value, str)}
    # The others answer what the subscriber never says: `authenticate` and `publish`.
    assert set(ERROR_CODES) == codes - {errorcode.BAD_TOKEN, errorcode.BAD_EVENT, errorcode.TOO_MANY_PENDING}


# ---- coming back ----


async def test_a_killed_daemon_is_found_again_and_the_loss_is_told(
    redis_server: RedisServer, daemon: DaemonProcess, tmp_path: Path
) -> None:
    notices: list[Notice] = []
    second = DaemonProcess(redis_server.url, tmp_path / "second.log", listen=f"127.0.0.1:{daemon.port}")
    async with subscribe(daemon.url, ["a:1"], on_notice=notices.append) as events:
        redis_server.publish("a:1", b'{"n":1}')
        assert await _take(events, 1) == ['{"n":1}']
        daemon.stop(signal.SIGKILL)
        await _until(lambda: _kinds(notices) == ["disconnected", "waiting"])
        assert "Connection refused" in notices[1].text
        redis_server.publish("a:1", b'{"n":2}')
        await trio.to_thread.run_sync(second.start)
        try:
            await _until(lambda: "reconnected" in _kinds(notices))
            assert _kinds(notices)[0] == "disconnected"
            assert _kinds(notices)[-1] == "reconnected"
            assert notices[0].seconds == 0.0 < notices[-1].seconds
            redis_server.publish("a:1", b'{"n":3}')
            assert await _take(events, 1) == ['{"n":3}']
        finally:
            await trio.to_thread.run_sync(second.stop)
        goodbye = Notice("disconnected", "closed with code 1012: server shutting down", 0.0)
        await _until(lambda: goodbye in notices)


async def test_silence_is_a_lost_connection() -> None:
    notices: list[Notice] = []

    async def fall_silent(connection: WebSocketConnection) -> None:
        await _welcome(connection)
        await trio.sleep_forever()

    async def speak_up(connection: WebSocketConnection) -> None:
        await _welcome(connection)
        await connection.send_message('{"n":1}')
        await trio.sleep_forever()

    async with _server(fall_silent, speak_up) as url:
        async with subscribe(url, ["a:1"], on_notice=notices.append, silence_seconds=0.1) as events:
            assert await _take(events, 1) == ['{"n":1}']
            gap = Gap("a:1", "no_history", None, None)
            assert [(notice.kind, notice.text, notice.gap, notice.recovered) for notice in notices[:3]] == [
                ("disconnected", "nothing came for 0.1 s", None, False),
                ("gap", str(gap), gap, False),
                ("reconnected", "subscribed again; events may be missing on a:1", None, False),
            ]


async def test_a_slow_consumer_learns_that_it_lost_something(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    redis_server, daemon = shared
    monkeypatch.setattr(subscription, "BUFFER_CHARACTERS", 100_000)
    notices: list[Notice] = []
    payloads = [json.dumps({"n": n, "fill": "x" * 50_000}) for n in range(400)]
    async with subscribe(daemon.url, ["slow:1"], on_notice=notices.append) as events:
        # What is here when the daemon ends the connection is not lost. Published all at once, nothing may be.
        first, *others = (payload.encode() for payload in payloads)
        redis_server.publish("slow:1", first, *others[:2])
        await _until(lambda: events._characters > 100_000)
        redis_server.publish("slow:1", *others[2:])
        await _until(lambda: daemon.stats()["websocket"]["totalConnections"] == 0)
        assert events._characters < 200_000
        got = []
        with trio.fail_after(BOUND_SECONDS):
            while not notices:
                with trio.move_on_after(0.05):
                    event = await anext(events)
                    if not notices:  # else it is perhaps from behind the gap
                        got.append(event.raw)
        assert got == payloads[: len(got)]
        assert 1 <= len(got) < 400
        assert notices[0].kind == "disconnected"
        await _until(lambda: _kinds(notices)[-1] == "reconnected")


async def test_the_buffer_takes_an_event_larger_than_itself(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    redis_server, daemon = shared
    monkeypatch.setattr(subscription, "BUFFER_CHARACTERS", 10)
    payloads = [json.dumps("x" * 900_000), *(json.dumps(n) for n in range(3000)), json.dumps("y" * 100)]
    async with subscribe(daemon.url, ["big:1"]) as events:
        redis_server.publish("big:1", *(payload.encode() for payload in payloads))
        assert await _take(events, 3002) == payloads


# ---- endings ----


async def test_a_code_not_to_be_retried_ends_after_the_last_event() -> None:
    async with _server(_closing(1009, "too big", '{"n":1}')) as url:
        async with subscribe(url, ["a:1"]) as events:
            assert await _take(events, 1) == ['{"n":1}']
            for _ in range(2):
                with pytest.raises(SubscriberError) as caught, trio.fail_after(BOUND_SECONDS):
                    await anext(events)
            assert str(caught.value) == f"{url} does not want this subscriber back: closed with code 1009: too big"


async def test_other_codes_are_retried() -> None:
    for code in (1000, 1001, 1011, 1012, 4001, 4002, 4999):
        async with _server(_closing(code), _closing(code, "why", '{"n":1}'), _serve_in_peace) as url:
            async with subscribe(url, ["a:1"]) as events:
                assert await _take(events, 1) == ['{"n":1}']


async def test_an_error_from_behind_comes_out_of_the_body_as_itself() -> None:
    async with _server(_closing(1002)) as url:
        with pytest.raises(SubscriberError, match="1002"), trio.fail_after(BOUND_SECONDS):
            async with subscribe(url, ["a:1"]) as events:
                async for _ in events:
                    pass


async def test_redis_refusing_a_channel_later_ends_it() -> None:
    async def refuse(connection: WebSocketConnection) -> None:
        await _welcome(connection)
        await connection.send_message('{"type":"error","code":"upstream_refused","message":"NOPERM"}')
        await connection.get_message()

    async with _server(refuse) as url:
        async with subscribe(url, ["a:1"]) as events:
            with pytest.raises(SubscriberError, match="refused: upstream_refused: NOPERM"):
                await _take(events, 1)


async def test_what_a_notice_raises_is_the_cause() -> None:
    def complain(notice: Notice) -> None:
        raise LookupError(notice.kind)

    async with _server(_closing(1001)) as url:
        async with subscribe(url, ["a:1"], on_notice=complain) as events:
            with pytest.raises(SubscriberError, match="disconnected") as caught:
                await _take(events, 1)
    assert isinstance(caught.value.__cause__, LookupError)


# ---- the body's own exceptions, and cancellation ----


async def test_what_the_body_raises_comes_out_as_itself(shared: Shared) -> None:
    _, daemon = shared
    mine, cause = KeyError("mine"), ValueError("cause")
    with pytest.raises(KeyError) as caught:
        async with subscribe(daemon.url, ["a:1"]):
            raise mine from cause
    assert caught.value is mine
    assert mine.__cause__ is cause
    assert mine.__context__ is cause or mine.__context__ is None


async def test_cancelling_the_consumer_leaves_nothing_behind(shared: Shared) -> None:
    _, daemon = shared
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery, subscribe(daemon.url, ["a:1"]) as events:
            nursery.start_soon(_cancel_when_idle, scope)
            await anext(events)
    assert scope.cancelled_caught
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    await _until(lambda: daemon.stats()["websocket"]["totalConnections"] == 0)


async def _cancel_when_idle(scope: trio.CancelScope) -> None:
    await trio.testing.wait_all_tasks_blocked(0.01)
    scope.cancel()


async def test_cancelling_while_entering_leaves_nothing_behind() -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    with socket.create_server(("127.0.0.1", 0)) as listener, trio.move_on_after(0.05) as scope:
        async with subscribe(f"http://127.0.0.1:{listener.getsockname()[1]}", ["a:1"]):
            raise AssertionError
    assert scope.cancelled_caught
    assert trio.lowlevel.current_statistics().tasks_living == tasks


async def test_leaving_is_polite_and_bounded() -> None:
    ended: list[object] = []

    async def listen(connection: WebSocketConnection) -> None:
        await _welcome(connection)
        try:
            await connection.get_message()
        except ConnectionClosed as closed:
            ended.append(closed.reason.code if closed.reason else None)

    async with _server(listen) as url:
        async with subscribe(url, ["a:1"]) as events:
            pass
        await _until(lambda: ended == [1000])
        with pytest.raises(trio.ClosedResourceError):
            await anext(events)


async def test_a_server_that_reads_no_more_does_not_hold_up_leaving(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "CLOSE_SECONDS", 0.1)
    names = ["a:1", "a:2", "a:3", "a:4"]

    async def freeze(connection: WebSocketConnection) -> None:
        # The subscribes fill what trio-websocket holds; the close frame behind them is never looked at.
        await connection.send_message(GREETING)
        for name in names:
            await connection.send_message(json.dumps({"type": "subscribed", "name": name, "success": True}))
        await trio.sleep_forever()

    async with _server(freeze) as url:
        with trio.fail_after(BOUND_SECONDS / 2):
            async with subscribe(url, names):
                pass


# ---- what cannot be subscribed to ----


@pytest.mark.parametrize(
    ("url", "channels", "says"),
    [
        ("http://127.0.0.1:1", ["a b"], "channel 'a b' has a character that is not allowed"),
        ("http://127.0.0.1:1", "a:1", "write ['a:1']"),
        ("http://127.0.0.1:1", [], "no channel"),
        ("127.0.0.1:8000", ["a"], "not a broker's URL: '127.0.0.1:8000'; write http://HOST:PORT"),
        ("redis://127.0.0.1", ["a"], "not a broker's URL"),
        ("http://", ["a"], "not a broker's URL"),
        ("http://h:99999", ["a"], "not a broker's URL"),
        ("http://[::1", ["a"], "not a broker's URL"),
        ("http://user:secret@h", ["a"], "not a broker's URL"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_sent(url: str, channels: list[str], says: str) -> None:
    with pytest.raises(SubscriberError) as caught:
        subscribe(url, channels)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("url", "authority", "resource"),
    [
        ("http://h", "h", "/ws"),
        ("https://h/", "h", "/ws"),
        ("ws://h:8000/ws", "h:8000", "/ws"),
        ("wss://h/ws/", "h", "/ws"),
        ("http://[::1]:80/broker", "[::1]:80", "/broker/ws"),
        ("http://h/a b/ws?token=x y#part", "h", "/a%20b/ws?token=x%20y"),
    ],
)
def test_urls_lead_to_ws(url: str, authority: str, resource: str) -> None:
    target = subscribe(url, ["a"])._target
    assert (target.authority, target.resource) == (authority, resource)
    assert (target.tls is not None) == url.startswith(("https", "wss"))
    with_user = subscribe(url, ["a"], user_id="u&1")._target.resource
    assert with_user == resource + ("&" if "?" in resource else "?") + "userId=u%261"


async def _refusal(url: str) -> str:
    with pytest.raises(SubscriberError) as caught, trio.fail_after(BOUND_SECONDS):
        async with subscribe(url, ["a:1"]):
            raise AssertionError
    return str(caught.value)


async def test_nothing_listens() -> None:
    port = free_port()
    assert await _refusal(f"http://127.0.0.1:{port}") == (
        f"cannot subscribe at http://127.0.0.1:{port}: [Errno 111] Error connecting to ('127.0.0.1', {port}): "
        "Connection refused; start it with `broker serve`, or correct the URL"
    )


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnone", "it answered HTTP 404 to the WebSocket handshake"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "it answered HTTP 404 to the WebSocket handshake"),
        (b"HTTP/1.0 503 Busy\r\n\r\nlater", "it answered 'HTTP/1.0 503 Busy\\r\\n\\r\\nlater' instead of"),
        (b"-ERR unknown command\r\n", "it answered '-ERR unknown command\\r\\n' instead of a WebSocket handshake"),
        (b"", "it closed the connection instead of a WebSocket handshake"),
    ],
)
async def test_not_a_websocket_server(answer: bytes, says: str) -> None:
    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            if answer:
                await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, handle, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        assert says in await _refusal(f"http://127.0.0.1:{port}")
        nursery.cancel_scope.cancel()


async def test_a_websocket_server_that_is_no_broker() -> None:
    async def echo(connection: WebSocketConnection) -> None:
        await connection.send_message("hello")
        await connection.get_message()

    async with _server(echo) as url:
        assert await _refusal(url) == f"{url} is no broker: it greets with 'hello'"


async def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert "it did not answer in time" in await _refusal(url)

    async def say_nothing(connection: WebSocketConnection) -> None:
        await trio.sleep_forever()

    async with _server(say_nothing) as url:
        assert "it did not answer in time" in await _refusal(url)


async def test_no_tls_there(shared: Shared) -> None:
    _, daemon = shared
    assert "SSL" in await _refusal(daemon.url.replace("http", "https"))


async def test_the_daemon_refuses_the_channel(redis_server: RedisServer, start_daemon: StartDaemon) -> None:
    daemon = start_daemon(redis_server.url, "--channels-undeclared", "refuse")
    assert await _refusal(daemon.url) == (
        f"{daemon.url} refused: channel_type_refused: channel type a is not served here"
    )
    assert "404" in await _refusal(f"{daemon.url}/elsewhere")


async def test_waiting_for_redis_is_told(redis_server: RedisServer, daemon: DaemonProcess) -> None:
    notices: list[Notice] = []
    redis_server.kill()
    async with trio.open_nursery() as nursery:
        # Until the daemon has noticed, it cannot say that it waits.
        await _until(lambda: daemon.stats()["channels"]["isConnected"] is False)
        nursery.start_soon(_start_when, redis_server, notices)
        with trio.fail_after(BOUND_SECONDS):
            async with subscribe(daemon.url, ["a:1", "a:2"], on_notice=notices.append) as events:
                redis_server.publish("a:2", b"{}")
                assert await _take(events, 1) == ["{}"]
    assert [(notice.kind, notice.seconds) for notice in notices] == [("waiting", 0.0)]
    assert "Redis is not reachable" in notices[0].text


async def _start_when(redis_server: RedisServer, notices: list[Notice]) -> None:
    await _until(lambda: notices)
    await trio.to_thread.run_sync(redis_server.start)


# ---- positions, from servers that end at the worst moment; test_resume.py has real daemons ----


@asynccontextmanager
async def _v1_server(*talks: Talk) -> AsyncIterator[str]:
    async with _server(*talks, subprotocol="broker.v1") as url:
        yield url


async def _greet_v1(connection: WebSocketConnection, asked: list[object], **answer: object) -> None:
    """Greet, note what is asked, and answer one subscribe."""
    await connection.send_message(GREETING)
    request = json.loads(await connection.get_message())
    asked.append(request.get("since"))
    subscribed = {"type": "subscribed", "name": request["channel"], "success": True}
    await connection.send_message(json.dumps({**subscribed, "position": "1:1:1", "recovered": False, **answer}))


def _envelope(position: str, event: str = "{}") -> str:
    return f'{{"channel":"a:1","position":"{position}","event":{event}}}'


async def test_a_gap_that_was_announced_and_did_not_come_is_asked_for_again() -> None:
    asked: list[object] = []
    notices: list[Notice] = []
    gap = {"type": "gap", "channel": "a:1", "reason": "epoch_changed", "from": "1:2:2", "to": "5:3:3", "timestamp": ""}

    async def live(connection: WebSocketConnection) -> None:
        await _greet_v1(connection, asked)
        await connection.send_message(_envelope("1:2:2"))

    async def cut_before_the_gap(connection: WebSocketConnection) -> None:
        await _greet_v1(connection, asked, position="5:3:3")

    async def cut_behind_the_gap(connection: WebSocketConnection) -> None:
        await _greet_v1(connection, asked, position="5:3:3")
        await connection.send_message(json.dumps(gap))

    async def recover(connection: WebSocketConnection) -> None:
        await _greet_v1(connection, asked, position="5:3:3", recovered=True)
        await connection.get_message()

    async with _v1_server(live, cut_before_the_gap, cut_behind_the_gap, recover) as url:
        async with subscribe(url, ["a:1"], on_notice=notices.append) as events:
            assert await _take(events, 1) == ["{}"]
            await _until(lambda: notices and notices[-1].recovered)
            assert events.positions == {"a:1": "5:3:3"}
            assert events.statistics().gaps == {"epoch_changed": 1}
    assert asked == [None, "1:2:2", "1:2:2", "5:3:3"]


async def test_the_event_that_had_no_room_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "BUFFER_CHARACTERS", 1)
    asked: list[object] = []

    async def send_three(connection: WebSocketConnection) -> None:
        await _greet_v1(connection, asked)
        for offset in (2, 3, 4):
            await connection.send_message(_envelope(f"1:{offset}:1", str(offset) * 2))
        await trio.sleep_forever()  # the silence ends the connection while an event waits for room

    async def send_the_rest(connection: WebSocketConnection) -> None:
        await _greet_v1(connection, asked, recovered=True)
        first = int(str(asked[-1]).split(":")[1]) + 1
        for offset in range(first, 6):
            await connection.send_message(_envelope(f"1:{offset}:1", str(offset) * 2))
        await connection.get_message()

    async with _v1_server(send_three, send_the_rest) as url:
        async with subscribe(url, ["a:1"], silence_seconds=0.1) as events:
            await _until(lambda: len(asked) == 2)
            assert await _take(events, 4) == ["22", "33", "44", "55"]
            assert asked[1] == "1:2:1"


async def test_an_older_broker_forgets_positions_and_each_loss_is_a_gap() -> None:
    asked: list[object] = []
    notices: list[Notice] = []

    async def older(connection: WebSocketConnection) -> None:
        await _greet_v1(connection, asked)
        await connection.send_message('{"n":1}')

    async with _server(older, _serve_in_peace) as url:
        async with subscribe(url, ["a:1"], since={"a:1": "1:2:2"}, on_notice=notices.append) as events:
            assert await _take(events, 1) == ['{"n":1}']
            await _until(lambda: _kinds(notices)[-1] == "reconnected")
            assert events.positions == {}
    assert asked == [None]
    assert [notice.gap for notice in notices if notice.gap] == [
        Gap("a:1", "no_history", "1:2:2", None),
        Gap("a:1", "no_history", None, None),
    ]


async def test_a_v1_that_is_another_is_an_error() -> None:
    async def speak(connection: WebSocketConnection) -> None:
        await _greet_v1(connection, [])
        await connection.send_message('{"event":{}}')
        await connection.get_message()

    async with _v1_server(speak) as url:
        async with subscribe(url, ["a:1"]) as events:
            with pytest.raises(SubscriberError) as caught:
                await _take(events, 1)
    assert str(caught.value) == f"""{url} does not speak broker.v1: it says '{{"event":{{}}}}'"""
