"""What a browser gets from the daemon: the client's modules, the console, and the facts that it shows."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

import broker
from broker.demo import DEMO_CHANNELS, DemoScript
from broker.events import EVENT_TYPES
from broker.events.schema import event_schema
from broker.events.typescript import event_types_text
from broker.web import assets
from tests.access.visitor import SECRET
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import SsePeer, close_all, pump, wait_until
from tests.actors.redis_server import RedisServer

CLIENT = Path(str(files("broker"))) / "browser"
MODULE_POLICY = "default-src 'none'; script-src 'self'; connect-src *; frame-ancestors 'none'"
CONSOLE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Of two workers, so that they are told too.
DEV = ("--dev", "--workers", "2")
FOREIGN = "https://pages.example"
LISTED = "https://listed.example"
GUARDED = ("--listen-allowed-origins", LISTED, "--auth-cookie", "token")


@frozen
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def error(self) -> Any:
        return json.loads(self.body)["detail"]

    def named(self, *names: str) -> dict[str, str | None]:
        return {name: self.headers.get(name) for name in names}


def ask(daemon: DaemonProcess, target: str, method: str = "GET", **headers: str) -> Answer:
    """The answer to a request whose target goes out as it is written."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=5)
    try:
        connection.putrequest(method, target, skip_host="host" in headers, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name.replace("_", "-"), value)
        connection.endheaders()
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())
    finally:
        connection.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def redis_of_all(folder: Path) -> Iterator[RedisServer]:
    server = RedisServer(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def start(redis_of_all: RedisServer, folder: Path) -> Iterator[Callable[..., DaemonProcess]]:
    """Starts daemons for all tests of this file, or takes the one that has these flags and variables already."""
    started: dict[tuple[object, ...], DaemonProcess] = {}

    def start_daemon(*flags: str, **environ: str) -> DaemonProcess:
        key = (*flags, *environ.items())
        if key not in started:
            log = folder / f"daemon-{len(started)}.log"
            started[key] = DaemonProcess(redis_of_all.url, log, ("--log-format", "json", *flags), environ)
            started[key].start()
        return started[key]

    yield start_daemon
    close_all()
    for daemon in started.values():
        daemon.stop()
        assert '"level": "error"' not in daemon.log()


Start = Callable[..., DaemonProcess]


def test_modules_are_for_every_page_compressed_where_that_is_taken_and_sent_again_only_when_they_have_changed(
    start: Start,
) -> None:
    daemon = start(*GUARDED, BROKER_AUTH_SECRET=SECRET)
    text = (CLIENT / "index.js").read_bytes()
    plain = ask(daemon, "/client/index.js", origin=FOREIGN)
    assert (plain.status, plain.body) == (200, text)
    assert plain.named(
        "content-type",
        "content-length",
        "content-encoding",
        "access-control-allow-origin",
        "access-control-allow-credentials",
        "cross-origin-resource-policy",
        "content-security-policy",
        "cache-control",
        "vary",
        "x-content-type-options",
    ) == {
        "content-type": "text/javascript; charset=utf-8",
        "content-length": str(len(text)),
        "content-encoding": None,
        "access-control-allow-origin": "*",
        "access-control-allow-credentials": None,
        "cross-origin-resource-policy": "cross-origin",
        "content-security-policy": MODULE_POLICY,
        "cache-control": "no-cache",
        "vary": "Accept-Encoding",
        "x-content-type-options": "nosniff",
    }
    # The same for a page whose requests may have cookies elsewhere.
    names = ("access-control-allow-origin", "access-control-allow-credentials", "vary")
    assert ask(daemon, "/client/index.js", origin=LISTED).named(*names) == plain.named(*names)
    packed = ask(daemon, "/client/index.js", accept_encoding="br, gzip")
    assert (packed.headers["content-encoding"], gzip.decompress(packed.body)) == ("gzip", text)
    assert packed.headers["etag"] != plain.headers["etag"]
    unpacked = ask(daemon, "/client/index.js", accept_encoding="gzip;q=0")
    assert unpacked.headers["etag"] == plain.headers["etag"]

    same = ask(daemon, "/client/index.js", if_none_match=f'"other", W/{plain.headers["etag"]}', origin=FOREIGN)
    assert (same.status, same.body, same.headers["etag"]) == (304, b"", plain.headers["etag"])
    assert same.headers["access-control-allow-origin"] == "*"
    # What was had compressed is not what is asked for now.
    assert ask(daemon, "/client/index.js", if_none_match=packed.headers["etag"]).status == 200

    head = ask(daemon, "/client/index.js", "HEAD")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(text)))
    assert ask(daemon, "/client/events.d.ts").headers["content-type"] == "text/plain; charset=utf-8"
    posted = ask(daemon, "/client/index.js", "POST", authorization="Bearer x", content_length="0")
    assert posted.status == 401  # before anything is looked for


def test_every_file_of_the_client_is_served_and_nothing_else_is(start: Start) -> None:
    daemon = start(*DEV)
    modules = [path.relative_to(CLIENT) for path in sorted(CLIENT.rglob("*.*")) if path.name.endswith((".js", ".d.ts"))]
    for module in modules:
        expected = 404 if module.parts[0] == "console" else 200
        assert (module, ask(daemon, f"/client/{module}").status) == (module, expected)
    for target in (
        "/client",
        "/client/",
        "/client/package.json",
        "/client/console/index.html",
        "/client/console.js",
        "/client/react",
        "/client//index.js",
        "/client/./index.js",
        "/client/react/../index.js",
        "/client/react%2f..%2findex.js",
        "/client/../__init__.py",
        "/client/%2e%2e/web/pages.py",
        "/client/..%5cindex.js",
        "/client/index.js/",
        "/client/index.js%00",
        "/client/INDEX.js",
        "/console/../index.js",
        "/console/index.html/x",
        "/console/index.html",
        "/console/",
    ):
        answer = ask(daemon, target)
        assert (target, answer.status, answer.headers["content-type"]) == (target, 404, "application/json")
    assert ask(daemon, "/client/%2e%2e/web/pages.py").error == "nothing is served at /client/../web/pages.py"


def test_only_what_is_the_same_for_everybody_is_for_pages_of_every_origin(start: Start) -> None:
    daemon = start(*DEV)
    for target in ("/", "/console/facts.json", "/health", "/clientele", "//client/index.js", "/api/realtime/stats"):
        assert (target, ask(daemon, target, origin=FOREIGN).status) == (target, 403)
    for target in ("/client/../api/realtime/stats", "/client/%2e%2e/api/realtime/stats"):
        assert (target, ask(daemon, target, origin=FOREIGN).status) == (target, 404)
    assert ask(daemon, "/client/index.js", host="evil.example").status == 403


def test_the_console_brings_its_own_policy(start: Start) -> None:
    daemon = start(*DEV)
    for target, content_type in (
        ("/", "text/html; charset=utf-8"),
        ("/console/console.css", "text/css; charset=utf-8"),
    ):
        answer = ask(daemon, target, origin=daemon.url)
        assert (answer.status, answer.headers["content-type"]) == (200, content_type)
        assert answer.named("content-security-policy", "cache-control", "cross-origin-resource-policy") == {
            "content-security-policy": CONSOLE_POLICY,
            "cache-control": "no-cache",
            "cross-origin-resource-policy": "same-origin",
        }
        assert ask(daemon, target, if_none_match=answer.headers["etag"]).status == 304


def test_without_authentication_the_console_is_for_this_machine(start: Start) -> None:
    daemon = start()
    for target in ("/", "/console/console.css", "/console/facts.json"):
        assert (target, ask(daemon, target).status) == (target, 200)
        elsewhere = ask(daemon, target, x_forwarded_for="192.0.2.1")
        assert elsewhere.status == 403
        assert elsewhere.error == (
            "this is for whoever is on the daemon's machine, and a proxy forwards it (x-forwarded-for)"
        )
    assert ask(start(*DEV), "/", x_forwarded_for="192.0.2.1").status == 200


def test_with_authentication_everybody_gets_the_console_and_nobody_its_data(start: Start) -> None:
    daemon = start(*GUARDED, BROKER_AUTH_SECRET=SECRET)
    assert ask(daemon, "/", x_forwarded_for="192.0.2.1").status == 200
    assert json.loads(ask(daemon, "/console/facts.json").body)["auth"] == "on"
    assert ask(daemon, "/api/realtime/stats").status == 401


def test_the_console_can_be_turned_off(start: Start) -> None:
    daemon = start("--console-http", "off")
    for target in ("/", "/console/console.css", "/console/facts.json"):
        answer = ask(daemon, target)
        assert (target, answer.status, answer.error) == (target, 404, f"nothing is served at {target}")
    assert ask(daemon, "/client/index.js").status == 200


def test_the_facts_name_the_events_that_services_publish_and_where(start: Start) -> None:
    events = {
        name: {"channelType": event_type.channel_type, "channelId": id, "schema": event_schema(name)}
        for name, event_type in EVENT_TYPES.items()
        if event_type.channel_type is not None
        for id in (_camel(event_type.channel_id),)
    }
    common = {"version": broker.__version__, "auth": "off", "events": events}
    found = ask(start(), "/console/facts.json")
    assert json.loads(found.body) == {**common, "dev": False, "demoChannels": []}
    assert found.headers["cache-control"] == "no-store"
    assert json.loads(ask(start(*DEV), "/console/facts.json").body) == {
        **common,
        "dev": True,
        "demoChannels": list(DEMO_CHANNELS),
    }
    assert (events["job_progress"]["channelId"], events["alert"]["channelId"]) == ("jobId", None)


def test_the_demo_publishes_on_its_channels() -> None:
    script = DemoScript()
    assert {channel for tick in range(100) for channel, _ in script.events_at(tick, 0)} == set(DEMO_CHANNELS)


def test_so_many_names_of_channels_are_listed_as_are_asked_for(start: Start) -> None:
    first, second = (start("--redis-channel-prefix", "names:", "--daemon-node", node) for node in ("one", "other"))
    peers = [SsePeer(first.port, "job_progress:1", "job_progress:2"), SsePeer(second.port, "x:2")]
    pump(peers, lambda: all(b"connected" in peer.raw for peer in peers))

    def channels(query: str) -> Any:
        answer = ask(first, f"/api/realtime/stats{query}")
        assert answer.status == 200
        return {name: json.loads(answer.body)["channels"][name] for name in ("activeChannels", "channels")}

    every = ["job_progress:1", "job_progress:2", "x:2"]
    wait_until(lambda: channels("") == {"activeChannels": 3, "channels": every})
    assert channels("?channels=2") == {"activeChannels": 3, "channels": every[:2]}
    assert channels("?channels=10000") == {"activeChannels": 3, "channels": every}
    # Nobody is asked for names, so those of both are not counted together.
    assert channels("?channels=0") == {"activeChannels": 2, "channels": []}
    assert ask(first, "/api/realtime/stats?channels=10001").status == 400
    assert ask(first, "/api/realtime/stats?channels=").status == 400


def test_a_file_that_changes_is_read_anew_and_one_that_does_not_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "files", lambda package: tmp_path)
    file = tmp_path / "browser" / "inner" / "one.js"
    file.parent.mkdir(parents=True)
    file.write_text("one")
    kept = assets.Assets()
    first = kept.get("inner/one.js")
    assert first is not None and first.body == b"one" and gzip.decompress(first.gzipped) == b"one"
    assert kept.get("inner/one.js") is first
    assert assets.Assets(without="inner").get("inner/one.js") is None
    file.write_text("two")
    os.utime(file, ns=(1, 1))
    second = kept.get("inner/one.js")
    assert second is not None and second.body == b"two" and second.etag != first.etag
    shutil.rmtree(file.parent)
    assert kept.get("inner/one.js") is None


def test_the_types_and_the_version_of_the_client_are_those_of_the_daemon() -> None:
    assert (CLIENT / "events.d.ts").read_text() == event_types_text(), "run make events-types"
    assert json.loads((CLIENT / "package.json").read_text())["version"] == broker.__version__


def _camel(name: str | None) -> str | None:
    if name is None:
        return None
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))
