"""Who may take over, from whom, and what becomes of the daemon that runs when it goes wrong."""

from __future__ import annotations

import http.client
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import SsePeer, open_streams, pump, wait_until
from tests.actors.redis_server import RedisServer, free_port
from tests.actors.returning import Knocking
from tests.restarts.conftest import Row
from tests.restarts.test_takeover import lines_of
from tests.systemd.manager import NotifySocket, Service, listening


def fails(daemon: DaemonProcess) -> str:
    """What a daemon says that does not start."""
    with pytest.raises(RuntimeError) as raised:
        daemon.start()
    daemon.process.wait(10)
    assert daemon.process.stdout is not None
    daemon.process.stdout.close()
    said = "\n".join(line for line in str(raised.value).splitlines()[1:] if not line.startswith("{"))
    daemon.log_path.write_text("")  # what is no log line would count as an error
    return said


def answers(daemon: DaemonProcess) -> bool:
    with Knocking(("127.0.0.1", daemon.port)) as knocking:
        wait_until(lambda: knocking.answered or knocking.wrong)
    return knocking.wrong == []


@pytest.fixture
def deaf() -> Iterator[socket.socket]:
    """A Redis that accepts and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(10)
        yield listener


def test_a_new_process_that_fails_changes_nothing(redis_server: RedisServer, row: Row, deaf: socket.socket) -> None:
    old = row.first(redis_server.url)
    (client,) = open_streams(old.port, 1, "feed:1")
    did_not = "the takeover did not happen; this process goes on"

    assert fails(row.after(old, redis_url=f"redis://127.0.0.1:{free_port()}")) == (
        "broker: Redis does not answer the new process; the daemon before goes on"
    )
    assert fails(row.after(old, "--limits-commands-burst", "0")) == (
        "broker: flag --limits-commands-burst: 0 is out of bounds; write at least 1"
    )
    wait_until(lambda: lines_of(old).count(did_not) == 1)

    # Killed while it waits for Redis, with the sockets in its hands.
    killed = row.after(old, redis_url=f"redis://127.0.0.1:{deaf.getsockname()[1]}")
    starting = Thread(target=fails, args=(killed,), daemon=True)
    starting.start()
    connection, _ = deaf.accept()
    killed.process.kill()
    starting.join()
    connection.close()
    wait_until(lambda: lines_of(old).count(did_not) == 2)

    assert answers(old)
    redis_server.publish("feed:1", b'{"n":1}')
    pump([client], lambda: b'data: {"n":1}' in client.blocks)
    assert not client.ended

    # Who was accepted by the old process and has not asked yet is served by it, and told to come back.
    good = row.after(old)
    early = [socket.create_connection(("127.0.0.1", old.port), 10) for _ in range(20)]
    wait_until(lambda: old.stats()["connections"]["open"] >= 21)
    good.start()
    pump([client], lambda: client.ended)
    for sock in early:
        sock.sendall(b"GET /api/stream?channel=feed:1 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for sock in early:
        answer = b""
        while data := sock.recv(65536):
            answer += data
        sock.close()
        said = [answer.find(part) for part in (b"200 OK", b'"type":"connected"', b"retry: ", b"server_shutdown")]
        assert said == sorted(said)
        assert said[0] > 0
    assert old.process.wait(30) == 0
    assert answers(good)


def test_where_there_is_no_takeover(redis_server: RedisServer, row: Row) -> None:
    assert fails(row.first_of(None, "--takeover")) == (
        "broker: there is no takeover with the embedded Redis, whose data goes with its daemon; set --redis"
    )
    assert fails(row.first_of(redis_server.url, "--takeover", "--daemon-control-socket", "off")) == (
        "broker: daemon.control_socket is off: the daemon that runs cannot be found; restart it instead"
    )


def test_a_unix_socket_and_addresses_that_change(redis_server: RedisServer, row: Row, folder: Path) -> None:
    path, gone, port = folder / "broker.sock", folder / "gone.sock", free_port()
    old = row.first(redis_server.url, "--takeover", "--listen", f"unix:{path}", "--listen", f"unix:{gone}")
    assert lines_of(old)[0] == "there is no daemon to take over from; this one starts as the first"
    inode = path.stat().st_ino
    new = row.after(old)
    new.flags = tuple(f"127.0.0.1:{port}" if flag == f"unix:{gone}" else flag for flag in new.flags)
    with Knocking(str(path)) as knocking:
        wait_until(lambda: knocking.answered > 5)
        new.start()
        assert old.process.wait(30) == 0
        count = knocking.answered
        wait_until(lambda: knocking.answered > count + 5)
    assert knocking.wrong == []
    assert (path.stat().st_ino, gone.exists()) == (inode, False)
    with socket.create_connection(("127.0.0.1", port), 5):
        pass
    last = row.after(new)
    last.start()
    assert new.process.wait(30) == 0
    assert path.exists()
    assert last.stop() == 0
    assert not path.exists()


def states(notify: NotifySocket) -> list[str]:
    """What the manager was told, but for the news of how the daemon does."""
    notify.take()
    lines = [line for text in notify.taken for line in text.splitlines()]
    return [line for line in lines if not line.startswith(("STATUS=", "WATCHDOG=", "EXTEND_TIMEOUT_USEC="))]


def test_with_sockets_of_systemd_and_its_manager(redis_server: RedisServer, row: Row, folder: Path) -> None:
    """The sockets pass from one to the other, and so does who the main process is."""
    notify = NotifySocket(str(folder / "notify"))
    runtime = {"XDG_RUNTIME_DIR": str(folder)}
    with listening() as held:
        port = held.getsockname()[1]
        flags = ("--redis", redis_server.url)
        old = Service(notify, folder / "old.log", (held,), flags, {**runtime, "WATCHDOG_USEC": "1000000"})
        new = Service(notify, folder / "new.log", (), (*flags, "--takeover"), {**runtime, "NOTIFY_SOCKET": ""})
        last = Service(notify, folder / "last.log", (held,), flags, runtime)
        row.services += [old, new, last]
        old.start()
        old.wait_ready()
        with Knocking(("127.0.0.1", port)) as knocking:
            wait_until(lambda: knocking.answered > 5)
            new.start()
            assert old.process.wait(60) == 0
            count = knocking.answered
            wait_until(lambda: knocking.answered > count + 5)
        assert knocking.wrong == []
        assert states(notify) == ["READY=1", f"MAINPID={new.process.pid}", "READY=1"]
        notify.wait_for(lambda text: text == "WATCHDOG=1")
        # A restart by systemd: it holds the socket, so who comes while nobody runs waits in the kernel.
        assert new.stop() == 0
        waiting = SsePeer(port, "feed:1")
        last.start()
        pump([waiting], lambda: waiting.is_open)
        last.wait_ready()
        assert states(notify)[3:] == ["STOPPING=1", "READY=1"]
    notify.close()


def test_publishers_over_http_lose_no_request(redis_server: RedisServer, row: Row) -> None:
    """They keep their connections alive, and are told with an answer that it was the last."""
    old = row.first(redis_server.url)
    new = row.after(old)
    answers, failures, is_over = Counter[int](), list[Exception](), Event()

    def publish() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", old.port, timeout=10)
        while not is_over.wait(0.005):
            try:
                connection.request("POST", "/api/publish", b'{"channel":"feed:1","event":{}}')
                answer = connection.getresponse()
                answer.read()
                answers[answer.status] += 1
            except (OSError, http.client.HTTPException) as error:
                failures.append(error)
                return
        connection.close()

    publishers = [Thread(target=publish) for _ in range(4)]
    for each in publishers:
        each.start()
    new.start()
    assert old.process.wait(30) == 0
    so_far = answers[200]
    wait_until(lambda: failures or answers[200] > so_far + 20)
    is_over.set()
    for each in publishers:
        each.join()
    assert (failures, answers.keys()) == ([], {200})


def test_the_old_one_is_stopped_while_a_new_one_starts(redis_server: RedisServer, row: Row, folder: Path) -> None:
    """The new one has the unix socket by then, and its file stays."""
    path = folder / "b.sock"
    old = row.first(redis_server.url, "--listen", f"unix:{path}")
    new = row.after(old)
    starting = Thread(target=new.start, daemon=True)
    starting.start()
    wait_until(lambda: "a new process gets the listening sockets" in lines_of(old))
    old.process.send_signal(signal.SIGTERM)
    starting.join()
    assert old.process.wait(30) == 0
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"
