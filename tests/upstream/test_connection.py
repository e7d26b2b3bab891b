"""The Redis connection: however it is reached, trio reads the socket that redis-py opened."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path
from types import SimpleNamespace

import attrs
import pytest
import trio
import trustme

from broker.config.sections import Redis
from broker.errors import UpstreamError, UpstreamRefused
from broker.upstream.connection import RedisConnection, kind_of, pack, reader, replies_of, socket_of
from tests.actors.redis_server import RedisServer, free_port


async def read_until(connection: RedisConnection, count: int) -> list[object]:
    replies: list[object] = []
    with trio.fail_after(10):
        while len(replies) < count:
            replies += await connection.read()
    return replies


async def subscribe_and_receive(section: Redis, server: RedisServer) -> None:
    """A subscription, a hundred messages of 100 KB, a PING: through whatever lies between."""
    connection = await RedisConnection.open(section)
    try:
        await connection.write(pack(b"SUBSCRIBE", b"a", b"b"))
        assert await read_until(connection, 2) == [[b"subscribe", b"a", 1], [b"subscribe", b"b", 2]]
        payloads = [b"%d" % number * 50_000 for number in range(10, 110)]
        await trio.to_thread.run_sync(lambda: server.publish("a", *payloads))
        assert await read_until(connection, 100) == [[b"message", b"a", payload] for payload in payloads]
        await connection.write(pack(b"PING"))
        assert await read_until(connection, 1) == [[b"pong", b""]]
    finally:
        connection.close()


async def test_over_tcp(redis_server: RedisServer) -> None:
    await subscribe_and_receive(Redis(url=redis_server.url), redis_server)


async def test_over_a_unix_socket(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.arguments = (*server.arguments, "--unixsocket", str(tmp_path / "redis.sock"))
    server.start()
    try:
        await subscribe_and_receive(Redis(url=f"unix://{tmp_path}/redis.sock"), server)
    finally:
        server.kill()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path / "ca.pem"


async def serve_tls(authority: trustme.CA, server: RedisServer, port: int, task_status: trio.TaskStatus[None]) -> None:
    """A TLS end in front of a server that speaks none."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def pump(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream, scope: trio.CancelScope) -> None:
        try:
            async for data in source:
                await sink.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()

    async def handle(client: trio.SSLStream[trio.SocketStream]) -> None:
        upstream = await trio.open_tcp_stream("127.0.0.1", server.port)
        async with client, upstream, trio.open_nursery() as nursery:
            nursery.start_soon(pump, client, upstream, nursery.cancel_scope)
            nursery.start_soon(pump, upstream, client, nursery.cancel_scope)

    async def fenced(client: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            await handle(client)
        except* (trio.BrokenResourceError, trio.ClosedResourceError, ssl.SSLError):
            pass

    listeners = await trio.open_ssl_over_tcp_listeners(port, context, host="127.0.0.1")
    task_status.started()
    await trio.serve_listeners(fenced, listeners)


async def test_over_tls(redis_server: RedisServer, authority: trustme.CA, ca_file: Path, nursery: trio.Nursery) -> None:
    port = free_port()

    async def run(task_status: trio.TaskStatus[None]) -> None:
        await serve_tls(authority, redis_server, port, task_status)

    await nursery.start(run)
    url = f"rediss://localhost:{port}/0"
    await subscribe_and_receive(Redis(url=f"{url}?ssl_ca_certs={ca_file}"), redis_server)
    with pytest.raises(UpstreamRefused, match="certificate that is not trusted"):
        await RedisConnection.open(Redis(url=url))


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("redis://127.0.0.1:1/0", UpstreamError, "cannot be reached"),
        ("unix:///nowhere/redis.sock", UpstreamError, "cannot be reached"),
        ("redis://{address}/999", UpstreamRefused, "DB index is out of range"),
        ("redis://nobody:wrong@{address}/0", UpstreamRefused, "check the user, password and database"),
    ],
)
async def test_what_is_said_when_it_fails(
    redis_server: RedisServer, url: str, kind: type[UpstreamError], words: str
) -> None:
    with pytest.raises(UpstreamError) as caught:
        await RedisConnection.open(Redis(url=url.format(address=f"127.0.0.1:{redis_server.port}")))
    assert type(caught.value) is kind
    assert words in str(caught.value)
    assert "wrong" not in str(caught.value)


async def test_a_host_that_does_not_answer_is_given_up_in_time() -> None:
    # A listener whose backlog is full lets the next connection wait without an answer.
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        async with await trio.open_tcp_stream("127.0.0.1", port):
            section = attrs.evolve(Redis(url=f"redis://127.0.0.1:{port}"), connect_seconds=0.2)
            with trio.fail_after(5), pytest.raises(UpstreamError):
                await RedisConnection.open(section)


async def test_cancelling_does_not_wait_for_the_thread() -> None:
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        with trio.move_on_after(0.05) as scope, trio.fail_after(2):
            await RedisConnection.open(Redis(url=url, connect_seconds=1.0))
        assert scope.cancelled_caught


async def test_a_connection_that_is_cut_says_so(redis_server: RedisServer) -> None:
    connection = await RedisConnection.open(Redis(url=redis_server.url))
    redis_server.kill()
    with pytest.raises(UpstreamError), trio.fail_after(5):
        while True:
            await connection.read()
    connection.close()
    connection.close()


async def test_what_is_not_resp_ends_the_connection() -> None:
    theirs, ours = trio.socket.socketpair()
    sock = socket.socket(fileno=ours.detach())
    sock.setblocking(False)
    connection = RedisConnection(SimpleNamespace(disconnect=lambda: None), sock, reader(), 0.0)
    await theirs.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(UpstreamError, match="not RESP"):
        await connection.read()
    connection.close()
    theirs.close()


@pytest.mark.parametrize("data", [b"%1\r\n~1\r\n:1\r\n:1\r\n", b"*x\r\n", b"*1\r\n*1\r\n?\r\n"])
def test_what_is_not_resp2_is_named(data: bytes) -> None:
    parser = reader()
    parser.feed(b"#f\r\n+OK\r\n")
    assert replies_of(parser) == [False, b"OK"]
    parser.feed(data)
    with pytest.raises(UpstreamError, match="not RESP"):
        replies_of(parser)


@pytest.mark.parametrize(
    "reply",
    [
        [b"message", b"a"],
        [b"message", None, b"{}"],
        [b"message", b"a", 1],
        [b"subscribe", [], 1],
        [b"pmessage"],
        [],
        [[]],
    ],
)
def test_pushes_with_other_parts_are_named(reply: list[object]) -> None:
    with pytest.raises(UpstreamError, match="what it never sends"):
        kind_of(reply)


def test_kinds_of_pushes() -> None:
    replies = [[b"message", b"a", b"{}"], [b"unsubscribe", None, 0], [b"pong", b""], 1, None, b"OK", {}]
    kinds = [b"message", b"unsubscribe", b"pong", b"", b"", b"", b""]
    assert [kind_of(reply) for reply in replies] == kinds


def test_redis_py_still_keeps_its_socket_where_we_look() -> None:
    with pytest.raises(UpstreamError, match="keeps its socket elsewhere"):
        socket_of(SimpleNamespace(_sock=None))
