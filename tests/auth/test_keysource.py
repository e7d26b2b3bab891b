"""The key source against real files and real hosts, well and badly behaved."""

from __future__ import annotations

import gzip
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from structlog.testing import capture_logs

import broker.keyhost
import broker.keysource
from broker.auth.identity import USER, Identity
from broker.auth.keptset import KeptSet
from broker.auth.keyring import Keyring
from broker.auth.token import TokenReader
from broker.config.access import Auth
from broker.errors import ConfigError, TokenRefused
from broker.keyfile import KeyFile
from broker.keysource import KeySource
from tests.actors.key_host import Script, answer, flood, hang, open_key_host, raw, trickle
from tests.actors.signer import NOW, SECRET, jwk, jwks, pem, private_pem, token

OLD, NEW = jwks(jwk("ES256", 0, kid="old")), jwks(jwk("ES256", 1, kid="new"))
OLD_RING, NEW_RING = Keyring.from_jwks(OLD), Keyring.from_jwks(NEW)
OLD_TOKEN, NEW_TOKEN = token("ES256", 0, headers={"kid": "old"}), token("ES256", 1, headers={"kid": "new"})


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that takes seconds takes parts of one."""
    monkeypatch.setattr(broker.keyhost, "FETCH_SECONDS", 0.5)
    monkeypatch.setattr(broker.keysource, "ASK_SECONDS", 0.0)
    monkeypatch.setattr(broker.keysource, "FILE_SECONDS", 0.02)
    monkeypatch.setattr(broker.keysource, "FIRST_RETRY_SECONDS", 0.02)


@asynccontextmanager
async def serving(jwks: str, **section: Any) -> AsyncIterator[KeySource]:
    source = KeySource(Auth(jwks=jwks, **section))
    async with trio.open_nursery() as nursery:
        with trio.fail_after(5):
            await nursery.start(source.serve)
        yield source
        nursery.cancel_scope.cancel()


async def until(met: Callable[[], bool]) -> None:
    with trio.fail_after(5):
        while not met():
            await trio.sleep(0.005)


def outcome(source: KeySource, text: str) -> Identity | str:
    try:
        return TokenReader(Auth()).read(text, source.keyring, NOW)
    except TokenRefused as refused:
        return refused.reason


ANN = Identity(USER, "ann", expires_at=NOW + 600, issued_at=NOW - 5)


# The set over time


def test_a_kept_set_counts_each_grace_from_when_the_key_was_missed_first() -> None:
    kept = KeptSet(10.0)
    assert kept.keyring(0) == Keyring()
    kept.replace(OLD_RING, 1)
    assert (kept.keyring(1e9), kept.is_whole) == (OLD_RING, True)
    kept.replace(NEW_RING, 100)
    assert (kept.keyring(100), kept.is_whole) == (NEW_RING | OLD_RING, False)
    kept.replace(NEW_RING, 105)
    kept.miss(106)
    kept.miss(108)
    assert kept.keyring(109.9) == NEW_RING | OLD_RING
    assert kept.keyring(110) == NEW_RING
    assert kept.keyring(115.9) == NEW_RING
    assert (kept.keyring(116), kept.is_whole) == (Keyring(), True)


def test_a_key_that_is_back_is_as_if_it_had_never_gone() -> None:
    kept = KeptSet(10.0)
    kept.replace(OLD_RING, 0)
    kept.miss(1)
    kept.replace(OLD_RING, 10)
    assert (kept.keyring(1e9), kept.is_whole) == (OLD_RING, True)
    kept.miss(20)
    assert (kept.keyring(29), kept.keyring(30)) == (OLD_RING, Keyring())


def test_no_grace() -> None:
    kept = KeptSet(0.0)
    kept.replace(OLD_RING, 0)
    kept.replace(NEW_RING, 1)
    assert kept.keyring(1) == NEW_RING
    kept.miss(2)
    assert kept.keyring(2) == Keyring()


def test_however_often_the_set_changes_the_kept_ones_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.auth.keptset.MAX_KEPT", 3)
    rings = [Keyring.from_jwks(jwks(jwk("EdDSA", which))) for which in range(5)]
    kept = KeptSet(1e9)
    for now, ring in enumerate(rings):
        kept.replace(ring, now)
    assert kept.keyring(9) == rings[4] | rings[3] | rings[2]


# At the start


def test_everything_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    missing, private = tmp_path / "missing.json", tmp_path / "private.pem"
    private.write_bytes(private_pem("ES256"))
    with pytest.raises(ConfigError) as refused:
        KeySource(Auth(secret="short", key_file=str(private), jwks=str(missing)))
    assert [str(problem) for problem in refused.value.problems] == [
        "auth.secret: the secret has 5 bytes, at least 32 are needed; `openssl rand -base64 48` makes one",
        f"auth.key_file: '{private}' holds a private key, which belongs to whoever makes tokens alone; write its "
        "public half, as `openssl pkey -in FILE -pubout` prints it",
        f"auth.jwks: '{missing}' cannot be read: No such file or directory",
    ]


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (Path.mkdir, "is no file"),
        (make_pipe, "is no file"),
        (lambda path: path.write_bytes(b" " * (1024 * 1024 + 1)), "is larger than 1048576 bytes"),
        (lambda path: path.write_bytes(b""), "has no public key; it must be PEM: -----BEGIN PUBLIC KEY----- and so on"),
        (lambda path: path.symlink_to(path), "cannot be read: Too many levels of symbolic links"),
    ],
    ids=["folder", "pipe", "large", "empty", "loop"],
)
def test_files_that_are_none(tmp_path: Path, make: Callable[[Path], object], complaint: str) -> None:
    make(tmp_path / "key")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ConfigError) as refused:
        KeySource(Auth(key_file=str(tmp_path / "key")))
    assert str(refused.value) == f"auth.key_file: '{tmp_path / 'key'}' {complaint}"
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_keys_of_all_places(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(pem("EdDSA"))
    (tmp_path / "jwks.json").write_bytes(OLD)
    source = KeySource(
        Auth(secret=SECRET, key_file=str(tmp_path / "key.pem"), jwks=str(tmp_path / "jwks.json"), leeway_seconds=1)
    )
    assert source.keyring == Keyring.from_secret(SECRET) | Keyring.from_pem(pem("EdDSA")) | OLD_RING
    assert source.keyring is source.keyring
    assert source.statistics() == {"keys": 3, "refreshes": 0, "failures": 0, "refreshedAt": None}
    assert SECRET not in repr(source)


@pytest.mark.parametrize(
    ("section", "is_on"),
    [
        ({}, False),
        ({"secret": SECRET}, True),
        ({"secret": SECRET, "mode": "off"}, False),
        ({"jwks": "https://id.example.com/jwks.json"}, True),
        ({"publish_keys": ("a:0",)}, True),
        ({"admin_keys": ("a:0",)}, True),
        ({"issuer": "x", "cookie": "y"}, False),
    ],
)
def test_whether_authentication_is_on(section: dict[str, Any], is_on: bool) -> None:
    assert KeySource(Auth(**section)).is_on is is_on


# A host


async def test_a_host_that_is_well() -> None:
    async with open_key_host(answer(OLD)) as host, serving(host.url) as source:
        assert outcome(source, OLD_TOKEN) == ANN
        assert outcome(source, NEW_TOKEN) == "unknown_key"
        figures = dict(source.statistics())
        assert figures.pop("refreshedAt").endswith("Z")
        assert (figures, host.asked) == ({"keys": 1, "refreshes": 1, "failures": 0}, 1)


async def test_the_daemon_starts_while_the_host_is_down_and_has_the_keys_when_it_is_up(quick: None) -> None:
    (probe,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = probe.socket.getsockname()[1]
    await probe.aclose()
    with capture_logs() as lines:
        async with serving(f"http://127.0.0.1:{port}/jwks.json") as source:
            await until(lambda: source.statistics()["failures"] > 2)
            assert outcome(source, OLD_TOKEN) == "unknown_key"
            async with open_key_host(answer(OLD), port=port):
                await until(lambda: source.statistics()["refreshes"] > 0)
                assert outcome(source, OLD_TOKEN) == ANN
    assert [line["event"] for line in lines] == ["JWK set cannot be read", "JWK set read"]
    assert (lines[0]["log_level"], lines[0]["why"]) == (
        "warning",
        f"ConnectError: all attempts to connect to 127.0.0.1:{port} failed",
    )


async def test_a_new_key_is_there_as_soon_as_a_token_names_it(quick: None) -> None:
    async with open_key_host(answer(OLD)) as host, serving(host.url) as source:
        host.script = answer(jwks(jwk("ES256", 0, kid="old"), jwk("ES256", 1, kid="new")))
        assert outcome(source, NEW_TOKEN) == "unknown_key"
        await source.await_key()
        assert outcome(source, NEW_TOKEN) == outcome(source, OLD_TOKEN) == ANN


@pytest.mark.parametrize(("grace", "counts"), [(3600.0, True), (0.05, False)])
async def test_rotation(quick: None, grace: float, counts: bool) -> None:
    """A key that has gone counts within its grace, and is refused after it."""
    with capture_logs() as lines:
        async with open_key_host(answer(OLD)) as host, serving(host.url, jwks_grace_seconds=grace) as source:
            host.script = answer(NEW)
            await source.await_key()
            assert outcome(source, NEW_TOKEN) == ANN
            if counts:
                assert outcome(source, OLD_TOKEN) == ANN
            else:
                await until(lambda: outcome(source, OLD_TOKEN) == "unknown_key")
                await until(lambda: len(lines) > 2)
    told = [(line["event"], line["keys"]) for line in lines]
    lost = [] if counts else [("keys of tokens count no more: their grace is over", 1)]
    assert told == [("JWK set read", 1), ("JWK set read", 1), *lost]


BAD_HOSTS: dict[str, tuple[Script, str]] = {
    "hangs": (hang, "no whole answer within 0.5 s"),
    "trickles": (trickle, "no whole answer within 0.5 s"),
    "floods": (flood, "its answer is larger than 1048576 bytes"),
    "closes": (raw(b""), "RemoteProtocolError: Server disconnected without sending a response."),
    "is cut": (raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"), "RemoteProtocolError: "),
    "sends junk": (raw(b"\x00\xff\r\n\x1b[31m\r\n\r\n"), "RemoteProtocolError: "),
    "has a head without end": (raw(b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 300_000), "RemoteProtocolError: "),
    "fails": (answer(OLD, 500), "it answers 500"),
    "says no": (answer(b"", 404), "it answers 404"),
    "has nothing": (answer(b"", 204), "it answers 204"),
    "sends HTML": (answer(b"<html>"), "the answer is not JSON: Expecting value at character 1"),
    "sends no set": (answer(b"[]"), "the answer is no JSON object"),
    "sends an empty set": (
        answer(b'{"keys": []}'),
        "the answer has no key that tokens can be checked with: it is empty",
    ),
    "sends a secret": (
        answer(jwks({"kty": "oct", "k": "eHh4"})),
        "the answer has no key that tokens can be checked with: key 1 is symmetric",
    ),
    "compresses": (
        answer(gzip.compress(OLD), 200, "content-encoding: gzip"),
        "its answer is compressed, though nobody asked for that",
    ),
    "redirects": (
        answer(b"", 302, "location: http://127.0.0.1:1/"),
        "it answers 302; redirects are not followed, write the last URL",
    ),
}


@pytest.mark.parametrize("name", BAD_HOSTS)
async def test_a_host_that_is_not_well_costs_no_key(quick: None, name: str) -> None:
    script, why = BAD_HOSTS[name]
    seconds = 0.5 if "0.5 s" in why else 5.0  # a busy machine may take its time to hear what is wrong
    with capture_logs() as lines:
        async with open_key_host(answer(OLD)) as host, serving(host.url, jwks_timeout_seconds=seconds) as source:
            host.script = script
            await source.await_key()
            await until(lambda: source.statistics()["failures"] >= 2)
            assert (outcome(source, OLD_TOKEN), outcome(source, NEW_TOKEN)) == (ANN, "unknown_key")
            host.script = answer(NEW)
            await until(lambda: outcome(source, NEW_TOKEN) == ANN)
    told = [line["event"] for line in lines]
    assert told == ["JWK set read", "JWK set cannot be read", "JWK set read"]
    assert lines[1]["why"] == why if not why.endswith(": ") else lines[1]["why"].startswith(why)
    assert lines[1]["why"].isprintable()
    assert (lines[1]["keys"], lines[1]["keys_stay_seconds"]) == (1, 3600.0)


@pytest.mark.parametrize("script", [hang, trickle])
async def test_a_host_that_does_not_come_to_an_end_holds_up_nobody_for_longer(script: Script) -> None:
    """Neither the start nor a client, though the try itself goes on for ten seconds."""
    async with open_key_host(script) as host:
        began = trio.current_time()
        async with serving(host.url, jwks_timeout_seconds=0.1) as source:
            await source.await_key()
            assert 0.19 < trio.current_time() - began < 2
            assert host.asked == 1


async def test_keys_count_no_more_when_the_host_was_away_for_the_grace(quick: None) -> None:
    async with open_key_host(answer(OLD)) as host, serving(host.url, jwks_grace_seconds=0.1) as source:
        host.script = answer(b"", 500)
        await source.await_key()
        assert outcome(source, OLD_TOKEN) == ANN
        await until(lambda: outcome(source, OLD_TOKEN) == "unknown_key")
        host.script = answer(OLD)
        await until(lambda: outcome(source, OLD_TOKEN) == ANN)


async def test_a_redirect_is_not_followed(quick: None) -> None:
    async with open_key_host(answer(NEW)) as other:
        script = answer(b"", 301, f"location: {other.url}")
        async with open_key_host(script) as host, serving(host.url) as source:
            await until(lambda: source.statistics()["failures"] > 1)
            assert (other.asked, source.keyring) == (0, Keyring())


async def test_a_hundred_who_wait_share_one_answer() -> None:
    async with open_key_host(answer(OLD)) as host, serving(host.url, jwks_timeout_seconds=5.0) as source:
        source._asked_at -= 100
        host.script = answer(NEW)
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(source.await_key)
        assert (host.asked, outcome(source, NEW_TOKEN)) == (2, ANN)


async def test_however_many_keys_are_invented_the_host_is_asked_once_in_a_while() -> None:
    async with open_key_host(answer(OLD)) as host, serving(host.url) as source:
        for _ in range(1000):
            await source.await_key()
        assert host.asked == 1
        source._asked_at -= broker.keysource.ASK_SECONDS
        for _ in range(1000):
            await source.await_key()
        assert host.asked == 2


async def test_who_waits_may_leave_without_harm_to_others() -> None:
    async with open_key_host(hang) as host, serving(host.url, jwks_timeout_seconds=0.1) as source:
        async with trio.open_nursery() as nursery:
            leaving = await nursery.start(_wait_cancellably, source)
            leaving.cancel()
        waited = trio.current_time()
        await source.await_key()
        assert 0.09 < trio.current_time() - waited < 0.5
        assert host.asked == 1


async def _wait_cancellably(source: KeySource, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
    with trio.CancelScope() as scope:
        task_status.started(scope)
        await source.await_key()


async def test_nobody_waits_where_there_is_nobody_to_ask() -> None:
    source = KeySource(Auth(secret=SECRET))
    with trio.fail_after(0.5):
        await source.await_key()
    for jwks_url in ("https://id.example.com/jwks.json", ""):
        with trio.fail_after(0.5):
            await KeySource(Auth(secret=SECRET, jwks=jwks_url)).await_key()


async def test_the_set_is_read_again_from_time_to_time(quick: None, mock_clock: trio.testing.MockClock) -> None:
    mock_clock.rate = 20
    async with open_key_host(answer(OLD)) as host, serving(host.url, jwks_refresh_seconds=1.0) as source:
        host.script = answer(NEW)
        await until(lambda: outcome(source, NEW_TOKEN) == ANN)


async def test_a_certificate_that_nobody_vouches_for(
    quick: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(broker.keyhost, "FETCH_SECONDS", 5.0)
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with capture_logs() as lines:
        async with open_key_host(answer(OLD), context) as host, serving(host.url, jwks_timeout_seconds=5.0) as source:
            assert (source.keyring, source.statistics()["failures"]) == (Keyring(), 1)
            assert host.asked == 0
    assert "certificate verify failed" in lines[0]["why"]
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    async with open_key_host(answer(OLD), context) as host, serving(host.url, jwks_timeout_seconds=5.0) as source:
        assert source.keyring == OLD_RING
    authority.issue_cert("else.example.com").configure_cert(context := ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    async with open_key_host(answer(OLD), context) as host, serving(host.url, jwks_timeout_seconds=5.0) as source:
        assert (source.keyring, host.asked) == (Keyring(), 0)


# Files


def put(path: Path, data: bytes) -> None:
    """In one step, as whoever writes keys should."""
    path.with_suffix(".new").write_bytes(data)
    path.with_suffix(".new").rename(path)


def test_a_file_is_read_once_for_each_change(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(pem("ES256", 0))
    file = KeyFile(path, Keyring.from_pem)
    assert [file.look(), file.look()] == [False, False]
    put(path, pem("ES256", 1))
    assert [file.look(), file.look()] == [True, False]
    path.write_bytes(b"junk")
    with pytest.raises(ValueError):
        file.look()
    assert (file.look(), file.keyring) == (False, Keyring.from_pem(pem("ES256", 1)))
    path.unlink()
    with pytest.raises(ValueError):
        file.look()
    assert (file.look(), file.keyring) == (False, Keyring.from_pem(pem("ES256", 1)))
    put(path, pem("ES256", 1))
    assert [file.look(), file.look()] == [True, False]


async def test_a_pem_file_is_read_again_when_it_has_changed(quick: None, tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(pem("ES256", 0))
    old, new = token("ES256", 0), token("ES256", 1)
    with capture_logs() as lines:
        async with serving("", key_file=str(file), secret=SECRET) as source:
            assert (outcome(source, old), outcome(source, new)) == (ANN, "bad_signature")
            put(file, pem("ES256", 1))
            await until(lambda: outcome(source, new) == ANN)
            assert outcome(source, old) == "bad_signature"
            for bad in (b"", private_pem("ES256"), pem("ES256")[:60]):
                put(file, bad)
                count = len(lines)
                await until(lambda count=count: len(lines) > count)
                assert outcome(source, new) == outcome(source, token()) == ANN
            file.unlink()
            await until(lambda: len(lines) == 5)
            await trio.sleep(0.1)
            assert outcome(source, new) == ANN
            put(file, pem("ES256", 0))
            await until(lambda: outcome(source, old) == ANN)
    assert [(line["log_level"], line["event"]) for line in lines] == [
        ("info", "key file read again"),
        *[("warning", "key file cannot be used; its keys stay")] * 4,
        ("info", "key file read again"),
    ]
    assert [line.get("why") for line in lines[3:5]] == [
        "has no public key; it must be PEM: -----BEGIN PUBLIC KEY----- and so on",
        "cannot be read: No such file or directory",
    ]


async def test_a_set_in_a_file_has_its_grace_too(quick: None, tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(OLD)
    async with serving(str(file), jwks_grace_seconds=0.2) as source:
        put(file, NEW)
        await until(lambda: outcome(source, NEW_TOKEN) == ANN)
        assert outcome(source, OLD_TOKEN) == ANN
        await until(lambda: outcome(source, OLD_TOKEN) == "unknown_key")
        put(file, b"{")
        await until(lambda: source.statistics()["failures"] == 1)
        assert outcome(source, NEW_TOKEN) == ANN
        await until(lambda: outcome(source, NEW_TOKEN) == "unknown_key")
        put(file, json.dumps(json.loads(NEW)).encode())
        await until(lambda: outcome(source, NEW_TOKEN) == ANN)


@pytest.mark.parametrize(("refresh_seconds", "within_seconds"), [(1.0, 1.0), (300.0, 5.0)])
async def test_a_file_is_looked_at_as_often_as_a_url_and_every_five_seconds_at_least(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, refresh_seconds: float, within_seconds: float
) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(OLD)
    async with serving(str(file), jwks_refresh_seconds=refresh_seconds, jwks_grace_seconds=0) as source:
        file.write_bytes(NEW + b" ")
        await trio.sleep(within_seconds - 0.01)
        assert source.keyring == OLD_RING
        await trio.sleep(0.02)
        assert source.keyring == NEW_RING


async def test_a_token_that_names_a_new_key_has_the_files_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_bytes(OLD)
    source = KeySource(Auth(jwks=str(file)))
    put(file, NEW)
    await source.await_key()
    assert outcome(source, NEW_TOKEN) == outcome(source, OLD_TOKEN) == ANN
