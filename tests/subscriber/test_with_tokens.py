"""The Python subscriber and `broker sub` against a daemon that asks for tokens and speaks TLS."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trustme
from click.testing import CliRunner

from broker.cli import pub, sub
from broker.errors import SubscriberError
from broker.publisher import Publisher
from broker.subscriber import Notice, subscribe
from tests.access.visitor import SECRET, token
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.conftest import errors_of

BOUND_SECONDS = 10.0
# A token's time, where its end is waited for: a busy machine takes one to connect.
SHORT_SECONDS = 2
EVENT = b'{"type":"note", "n":1}'


class Stage:
    """A Redis, a daemon over TLS, and a file with the certificate to trust."""

    def __init__(self, folder: Path) -> None:
        self.redis = RedisServer(folder)
        self.redis.start()
        authority = trustme.CA()
        self.ca, pair = str(folder / "ca.pem"), folder / "server.pem"
        authority.cert_pem.write_to_path(self.ca)
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pair)
        environ = {"BROKER_AUTH_SECRET": SECRET, "BROKER_LISTEN_TLS_CERTIFICATE": str(pair)}
        self.daemon = DaemonProcess(self.redis.url, folder / "daemon.log", ("--log-format", "json"), environ)
        self.daemon.start()
        self.url = self.daemon.url.replace("http:", "wss:")

    def to_user(self, user: str, event: bytes) -> int:
        with Publisher(self.redis.url) as publisher:
            return publisher.publish_to_user(user, event, confirm=True)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage(tmp_path_factory.mktemp("stage"))
    yield stage
    stage.daemon.stop()
    stage.redis.kill()
    assert errors_of(stage.daemon) == []


async def test_events_of_a_channel_and_of_the_user_over_tls(stage: Stage) -> None:
    ann = token("ann", subscribe=["note:*"])
    async with subscribe(stage.url, ["note:1"], token=ann, ca_file=stage.ca) as events:
        assert await trio.to_thread.run_sync(stage.to_user, "ann", EVENT) == 1
        with trio.fail_after(BOUND_SECONDS):
            event = await anext(events)
            assert (event.raw, event.channel, event.position, event.is_to_user) == (EVENT.decode(), None, None, True)
            await trio.to_thread.run_sync(stage.to_user, "bob", EVENT)
            await trio.to_thread.run_sync(stage.redis.publish, "note:1", EVENT)
            event = await anext(events)
            assert (event.raw, event.channel, event.is_to_user) == (EVENT.decode(), "note:1", False)


async def test_a_token_is_renewed_in_place_before_it_is_over(stage: Stage) -> None:
    notices: list[Notice] = []
    given: list[str] = []

    def give() -> str:
        given.append(token("ann", subscribe=["note:*"], seconds=300 if given else SHORT_SECONDS))
        return given[-1]

    begun_at = trio.current_time()
    async with subscribe(stage.url, ["note:1"], token=give, ca_file=stage.ca, on_notice=notices.append) as events:
        await trio.sleep_until(begun_at + SHORT_SECONDS + 0.5)
        await trio.to_thread.run_sync(stage.redis.publish, "note:1", EVENT)
        with trio.fail_after(BOUND_SECONDS):
            assert (await anext(events)).raw == EVENT.decode()
    assert (len(given), notices) == (2, [])


async def test_a_new_token_that_allows_less_is_told(stage: Stage) -> None:
    given: list[str] = []

    def give() -> str:
        given.append(token("ann", subscribe=[] if given else ["note:*"], seconds=SHORT_SECONDS))
        return given[-1]

    with trio.fail_after(BOUND_SECONDS), pytest.raises(SubscriberError, match="forbidden: note:1 is not for you: "):
        async with subscribe(stage.url, ["note:1"], token=give, ca_file=stage.ca) as events:
            await anext(events)
    assert len(given) == 2


async def test_a_token_that_is_over_is_replaced_and_nothing_is_missing(stage: Stage) -> None:
    notices: list[Notice] = []
    given: list[str] = []

    async def give() -> str:
        await trio.lowlevel.checkpoint()
        given.append(token("ann", subscribe=["job_progress:*"], seconds=300 if given else SHORT_SECONDS))
        if len(given) == 2:  # the renewal in place
            raise OSError
        return given[-1]

    channel = "job_progress:renewal"
    async with subscribe(stage.url, [channel], token=give, ca_file=stage.ca, on_notice=notices.append) as events:
        with trio.fail_after(BOUND_SECONDS):
            while not any(notice.kind == "disconnected" for notice in notices):
                await trio.sleep(0.01)
        await trio.to_thread.run_sync(stage.redis.publish, channel, EVENT)
        with trio.fail_after(BOUND_SECONDS):
            assert (await anext(events)).raw == EVENT.decode()
    assert len(given) == 3
    assert [(notice.kind, notice.text) for notice in notices] == [
        ("disconnected", "closed with code 4402: token expired"),
        ("reconnected", "subscribed again; nothing is missing"),
    ]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: None, "unauthenticated: "),
        (lambda: "nonsense", "it answered HTTP 401 to the WebSocket handshake: "),
        (lambda: token("ann", exp=1), "it answered HTTP 401 to the WebSocket handshake: "),
        # Made when the test runs: all tests together may take longer than it is good for.
        (lambda: token("ann", subscribe=["other:*"]), "forbidden: note:1 is not for you: "),
    ],
)
async def test_a_refusal_is_told_in_the_daemons_words(stage: Stage, make: Callable[[], str | None], says: str) -> None:
    shown = make()
    with trio.fail_after(BOUND_SECONDS), pytest.raises(SubscriberError) as caught:
        async with subscribe(stage.url, ["note:1"], token=shown, ca_file=stage.ca):
            raise AssertionError
    assert says in str(caught.value)
    assert shown is None or shown not in str(caught.value)


# ---- broker sub, broker pub ----


@contextmanager
def _sub(stage: Stage, *arguments: str, **environ: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "broker", "sub", "--url", stage.url, *arguments]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("BROKER_", "SSL_"))}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean | environ, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str], file: str = "stdout") -> str:
    stream = getattr(process, file)
    assert select.select([stream], [], [], BOUND_SECONDS)[0]
    return str(stream.readline())


@pytest.mark.parametrize("by", ["flag", "environment"])
def test_broker_sub_shows_a_token_and_trusts_a_file(stage: Stage, by: str) -> None:
    ann = token("ann", subscribe=["note:*"])
    flags = ("--token", ann, "--ca", stage.ca) if by == "flag" else ()
    environ = {} if by == "flag" else {"BROKER_TOKEN": ann, "SSL_CERT_FILE": stage.ca}
    with _sub(stage, "note:1", "--json", "--positions", *flags, **environ) as process:
        _published_until_heard(process, lambda: stage.redis.publish("note:1", EVENT))
        assert (
            CliRunner().invoke(pub.command, ["--user", "ann", EVENT.decode(), "--redis", stage.redis.url]).output
            == "user ann: received by 1 daemon\n"
        )
        while (line := _line(process)) == _OF_THE_CHANNEL:
            pass
        assert line == '{"channel":null,"position":null,"event":{"type":"note", "n":1}}\n'


_OF_THE_CHANNEL = '{"channel":"note:1","position":null,"event":{"type":"note", "n":1}}\n'


def _published_until_heard(process: subprocess.Popen[str], publish: Callable[[], object]) -> None:
    deadline = time.monotonic() + BOUND_SECONDS
    while not select.select([process.stdout], [], [], 0.05)[0]:
        assert time.monotonic() < deadline
        publish()
    assert _line(process) == _OF_THE_CHANNEL


def test_broker_sub_of_a_user_alone(stage: Stage) -> None:
    with _sub(stage, "--ca", stage.ca, BROKER_TOKEN=token("eve")) as process:
        assert _line(process, "stderr") == f"broker: subscribed to what is for the user at {stage.url}\n"
        stage.to_user("eve", EVENT)
        assert _line(process).endswith(' note {"type":"note", "n":1}\n')


def test_broker_sub_never_shows_the_token(stage: Stage) -> None:
    bad = token("ann", exp=1)
    for arguments in (["--ca", stage.ca], [], ["--ca", "/nowhere"]):
        with _sub(stage, "note:1", *arguments, BROKER_TOKEN=bad) as process:
            out, err = process.communicate(timeout=BOUND_SECONDS)
        assert (process.returncode, out) == (1, "")
        assert err.startswith("broker: cannot ")
        assert err.count("\n") == 1
        assert bad not in err
    for arguments in (["--help"], ["a", "--token", "b c"], ["a", "--since", "x", "--token", bad]):
        done = CliRunner().invoke(sub.command, arguments, env={"BROKER_TOKEN": bad})
        assert bad not in done.output + str(done.exception)
        assert "b c" not in done.output + str(done.exception)


def test_broker_sub_wants_a_channel_or_a_token() -> None:
    done = CliRunner().invoke(sub.command, [], env={"BROKER_TOKEN": None})
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (2, "Error: Missing argument 'CHANNEL...'.")
