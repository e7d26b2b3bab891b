"""What the notifier tells, to whom and how often; in virtual time, over a real socket."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
import trio

from broker.systemd import Notifier, Vitals
from tests.systemd.manager import NotifySocket

IDLE = Vitals(0, 0, 0, False)


@pytest.fixture(params=["path", "abstract"])
def notify(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    opened = NotifySocket(str(tmp_path / "n") if request.param == "path" else f"@broker-test-{os.getpid()}")
    yield opened
    opened.close()


@pytest.fixture
def socket_path(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


def environ_of(notify: NotifySocket, **more: str) -> dict[str, str]:
    return {"NOTIFY_SOCKET": notify.address, "HOME": "/", **more}


def test_a_life(notify: NotifySocket) -> None:
    environ = environ_of(notify)
    notifier = Notifier.from_environ(environ)
    assert environ == {"HOME": "/"}
    notifier.ready(IDLE.told())
    notifier.status("two\nlines")
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    with notifier.reload():
        reloading = notify.take()[-1]
    notifier.main_process(17)
    notifier.stopping(10.0)
    notifier.close()
    notify.take()
    word, stamp = reloading.split("\nMONOTONIC_USEC=")
    assert word == "RELOADING=1"
    assert before <= int(stamp) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert notify.taken == [
        "READY=1\nSTATUS=0 clients, 0 channels, 0 messages a second",
        "STATUS=two lines",
        reloading,
        "READY=1",
        "MAINPID=17",
        "STOPPING=1\nEXTEND_TIMEOUT_USEC=20000000\nSTATUS=stopping",
    ]


def test_a_reload_that_fails_is_over_too(notify: NotifySocket) -> None:
    notifier = Notifier(notify.address)
    with pytest.raises(ValueError, match="no"), notifier.reload():
        raise ValueError("no")
    notifier.close()
    assert notify.take()[-1] == "READY=1"


@pytest.mark.parametrize(
    ("vitals", "rate", "told"),
    [
        (Vitals(1, 1, 9, False), 1.2, "1 client, 1 channel, 1 message a second"),
        (Vitals(2, 3, 9, False), 1999.6, "2 clients, 3 channels, 2000 messages a second"),
        (Vitals(2, 3, 9, True), 5.0, "waiting for Redis; 2 clients, 3 channels"),
        (Vitals(2, 3, 9, True, True), 5.0, "stopping; 2 clients left"),
        (Vitals(2, 3, 9, False, False, True), 5.0, "stuck: nothing is handed on; 2 clients, 3 channels"),
    ],
)
def test_the_line_that_people_see(vitals: Vitals, rate: float, told: str) -> None:
    assert vitals.told(rate) == told


async def test_the_status_is_told_every_few_seconds_when_it_has_changed(
    notify: NotifySocket, autojump_clock: trio.testing.MockClock
) -> None:
    notifier = Notifier(notify.address)
    vitals = Vitals(0, 0, 0, True)
    told = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.serve, lambda: vitals)
        await trio.sleep(21)  # looked at 0, 5, 10, 15 and 20
        told.append(notify.take())
        vitals = Vitals(2, 1, 500, False)
        await trio.sleep(5)  # 25
        told.append(notify.take())
        vitals = Vitals(3, 1, 1000, False)
        await trio.sleep(3)
        vitals = Vitals(2, 1, 1000, False)
        await trio.sleep(2)  # 30, and nobody has seen the three
        told.append(notify.take())
        await trio.sleep(20)
        told.append(notify.take())
        nursery.cancel_scope.cancel()
    notifier.close()
    assert told == [
        ["STATUS=waiting for Redis; 0 clients, 0 channels"],
        ["STATUS=2 clients, 1 channel, 100 messages a second"],
        [],
        ["STATUS=2 clients, 1 channel, 0 messages a second"],
    ]


@pytest.mark.parametrize("pid", ["", str(os.getpid())], ids=["of-nobody", "of-this"])
async def test_the_watchdog_is_fed_at_a_quarter_of_its_time(
    pid: str, notify: NotifySocket, autojump_clock: trio.testing.MockClock
) -> None:
    notifier = Notifier.from_environ(environ_of(notify, WATCHDOG_USEC="30000000", WATCHDOG_PID=pid))
    with trio.move_on_after(61):
        await notifier.serve(lambda: IDLE)
    notifier.close()
    assert notify.take().count("WATCHDOG=1") == 9  # at 0, 7.5, 15 and so on to 60


async def test_a_blocked_loop_does_not_feed_it(notify: NotifySocket) -> None:
    """In real time: whoever feeds it from a thread of its own would go on."""
    notifier = Notifier.from_environ(environ_of(notify, WATCHDOG_USEC="20000"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.serve, lambda: IDLE)
        await trio.sleep(0.1)
        assert "WATCHDOG=1" in notify.take()
        time.sleep(0.2)  # noqa: ASYNC251
        assert notify.take() == []
        await trio.sleep(0.1)
        assert "WATCHDOG=1" in notify.take()
        nursery.cancel_scope.cancel()
    notifier.close()


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0),
        ({"WATCHDOG_USEC": "soon"}, 1),
        ({"WATCHDOG_USEC": "0"}, 1),
        ({"WATCHDOG_USEC": "٣"}, 1),
        ({}, 0),
    ],
)
def test_no_watchdog(given: dict[str, str], warned: int, notify: NotifySocket) -> None:
    environ = environ_of(notify, **given)
    with structlog.testing.capture_logs() as logs:
        notifier = Notifier.from_environ(environ)
    assert (notifier.watchdog_seconds, len(logs), environ) == (None, warned, {"HOME": "/"})


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234"])
async def test_nobody_to_tell(address: str) -> None:
    environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"}
    with structlog.testing.capture_logs() as logs:
        notifier = Notifier.from_environ(environ)
        notifier.ready()
        await notifier.serve(lambda: IDLE)  # returns at once
    assert (len(logs), environ, notifier.watchdog_seconds) == (bool(address), {}, None)


def test_a_socket_that_is_missing_harms_nobody_and_hears_the_state_later(socket_path: str) -> None:
    notifier = Notifier(socket_path)
    with structlog.testing.capture_logs() as logs:
        notifier.ready()
        notifier.status("lost")
        notifier.stopping(0)
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("systemd could not be told; the daemon goes on", "warning")
    ]
    notify = NotifySocket(socket_path)
    notifier.status("here")
    notifier.close()
    assert notify.take() == ["READY=1", "STOPPING=1\nEXTEND_TIMEOUT_USEC=10000000\nSTATUS=stopping", "STATUS=here"]
    notify.close()


def test_a_socket_that_is_made_anew_is_found_again(socket_path: str) -> None:
    first = NotifySocket(socket_path)
    notifier = Notifier(socket_path)
    notifier.ready()
    assert first.take() == ["READY=1"]
    first.close()
    Path(socket_path).unlink()
    second = NotifySocket(socket_path)
    with structlog.testing.capture_logs():
        notifier.status("into the void")
        notifier.status("again")
    assert second.take() == ["STATUS=again"]
    notifier.close()
    second.close()


def test_a_socket_that_is_full_makes_nobody_wait(socket_path: str) -> None:
    notify = NotifySocket(socket_path)
    notifier = Notifier(socket_path)
    with structlog.testing.capture_logs() as logs:
        for _ in range(1000):
            notifier.status("x" * 500)
        notifier.ready()
    assert len(logs) == 1
    assert set(notify.take()) == {"STATUS=" + "x" * 500}
    notifier.status("now")
    assert notify.take() == ["READY=1", "STATUS=now"]
    notifier.close()
    notify.close()
