"""Row 19: pages of every kind of origin try to connect, to read and to publish; the allowlist alone decides."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence

from attrs import define, field

from tests.access.visitor import SECRET, token
from tests.actors.daemon_process import DaemonProcess
from tests.actors.raw_client import KEY, Answer, RawClient
from tests.faults.row import Row
from tests.faults.stage import Stage

APP = "https://app.example.com"
LIST = (APP, "https://*.example.org", "https://shop.example.net:8443", "https://xn--bcher-kva.example")
ABSENT, OWN, OWN_TLS, LISTED, FOREIGN, TWO = "absent", "own", "own over TLS", "listed", "foreign", "two"
HERE = "{here}"  # the daemon's own address

# What the page's Origin says, and what the page is to a daemon with `LIST`.
CASES: tuple[tuple[tuple[str, ...], str], ...] = (
    ((), ABSENT),
    ((f"http://{HERE}",), OWN),
    ((f"https://{HERE}",), OWN_TLS),
    *(
        ((origin,), LISTED)
        for origin in (
            APP,
            f"{APP}:443",
            "HTTPS://App.Example.COM",
            "https://a.example.org",
            "https://a.b.example.org",
            "https://shop.example.net:8443",
            "https://xn--bcher-kva.example",
        )
    ),
    *(
        ((origin,), FOREIGN)
        for origin in (
            "https://evil.example",
            # null, and what is no origin
            *("null", "NULL", "", "*", "https://", "app.example.com", "//app.example.com"),
            # subdomain, and parent
            *("https://a.app.example.com", "https://example.com", "https://example.org", "https://com"),
            # prefix and suffix tricks
            *("https://xapp.example.com", "https://app.example.com.evil.example", "https://appXexample.com"),
            *("https://evilexample.org", "https://a.example.org.evil.example", "https://evil.example/.example.org"),
            *("https://.example.org", "https://a..example.org", "https://*.example.org"),
            # port
            *(f"{APP}:80", f"{APP}:8443", f"{APP}:", f"{APP}:443443", "https://a.example.org:8443"),
            *("https://shop.example.net", "http://127.0.0.1:1", "http://127.0.0.1", "http://localhost"),
            # scheme
            *("http://app.example.com", "wss://app.example.com", "http://a.example.org", "file://"),
            *("chrome-extension://app.example.com", "blob:https://app.example.com"),
            # trailing dot, path, query, fragment
            *(f"{APP}.", "https://a.example.org.", f"{APP}/", f"{APP}/x", f"{APP}?x", f"{APP}#x"),
            # userinfo
            *("https://app.example.com@evil.example", "https://evil.example@app.example.com"),
            *("https://app.example.com:443@evil.example", "https://evil.example\\@app.example.com"),
            # names in other letters: none is written so by a browser
            *("https://b\u00fccher.example", "https://app\u3002example.com", "https://\uff41pp.example.com"),
            *("https://app%2eexample.com", "https://xn--bcher-kva.example.evil.example"),
            # several in one
            *(f"{APP} https://evil.example", f"{APP}, https://evil.example", f"{APP},{APP}", f"{APP}\thttps://a"),
        )
    ),
    ((APP, APP), TWO),
    ((APP, "https://evil.example"), TWO),
    (("https://evil.example", APP), TWO),
)
ALLOWED = (ABSENT, OWN, OWN_TLS, LISTED)
BODY = json.dumps({"channel": "note:1", "event": {"a": 1}}).encode()
CORS = "access-control-allow-origin"
CREDENTIALS = "access-control-allow-credentials"


@define(eq=False)
class Side:
    """A daemon, and what its settings make of the cases.

    Args:
        cookie: what a browser sends along, where the daemon takes cookies.
        kinds: what a page is to this daemon, where that is not what it is to one with `LIST`.
        publishers: who may publish. Without authentication the rules are narrower: never by `*`.
        cors: what pages are told that may read; None for their own origin.
    """

    name: str
    daemon: DaemonProcess
    cookie: bytes = b""
    kinds: dict[str, str] = field(factory=dict)
    publishers: Sequence[str] = (ABSENT, OWN, LISTED)
    cors: str | None = None
    published: int = field(init=False, default=0)

    def wrong(self, origins: Sequence[str], kind: str) -> Iterator[str]:
        """One case, every way."""
        here = f"127.0.0.1:{self.daemon.port}"
        told = [origin.replace(HERE, here) for origin in origins]
        is_to_me = self.kinds.get(kind, kind)
        # A cookie counts only where the browser says which page sends it.
        is_in = is_to_me in ALLOWED and not (self.cookie and is_to_me == ABSENT)
        may_publish = is_in and (bool(self.cookie) or kind in self.publishers)
        shown = {(self.cors or told[0]) if is_to_me == LISTED else None}
        if told == [""]:  # no page has it: to be granted to everybody is not to be granted to it
            shown.add(None)
        for way, good, allowed in (
            ("websocket", 101, is_in),
            ("stream", 200, is_in),
            ("stats", 200, is_in),
            ("publish", 200, may_publish),
        ):
            answer = self._ask(way, told)
            place = f"{self.name}, {way}, {told!a} ({kind}): {answer.status} {answer.headers.get(CORS)}"
            if way == "publish" and allowed:
                self.published += 1
            if answer.status != (good if allowed else 403):
                yield place
            elif way != "websocket" and allowed and answer.headers.get(CORS) not in shown:
                yield f"{place}, and not one of {shown}"
            elif not allowed and answer.headers.get(CORS) not in (None, "*"):
                yield f"{place}, and may be read"
            yield from self._wrong_credentials(place, answer)
        for way, methods in METHODS.items():
            answer = self._ask(way, told)
            place = f"{self.name}, {way}, {told!a} ({kind}): {answer.status} {answer.headers.get(CORS)}"
            # Two origins: no browser sends them. What is granted then is granted to the first alone.
            first = {self.cors, APP if told[0] == APP and not self.kinds else None} if kind == TWO else set()
            if answer.headers.get(CORS) not in shown | first:
                yield place
            granted = set(answer.headers.get("access-control-allow-methods", "").split(", ")) - {""}
            if granted != (methods if CORS in answer.headers else set()):
                yield f"{place}, methods {granted}"
            yield from self._wrong_credentials(place, answer)

    def _wrong_credentials(self, place: str, answer: Answer) -> Iterator[str]:
        expected = "true" if self.cookie and answer.headers.get(CORS) not in (None, "*") else None
        if answer.headers.get(CREDENTIALS) != expected:
            yield f"{place}, credentials {answer.headers.get(CREDENTIALS)}"

    def _ask(self, way: str, origins: Sequence[str]) -> Answer:
        line, more, body = WAYS[way]
        lines = [b"%b HTTP/1.1" % line, b"Host: 127.0.0.1:%d" % self.daemon.port, *more]
        lines += [b"Origin: " + origin.encode() for origin in origins]
        if self.cookie:
            lines.append(b"Cookie: " + self.cookie)
        if body:
            lines.append(b"Content-Length: %d" % len(body))
        with RawClient.connect(self.daemon.port) as client:
            client.send(b"\r\n".join([*lines, b"", body]))
            return client.answer()


METHODS = {
    "preflight of a stream": {"GET"},
    "preflight of publishing": {"POST", "OPTIONS"},
    "preflight of an evaluation": {"GET", "POST"},
}
_PREFLIGHT = (b"Access-Control-Request-Method: GET", b"Access-Control-Request-Headers: authorization")
WAYS: dict[str, tuple[bytes, tuple[bytes, ...], bytes]] = {
    "websocket": (
        b"GET /ws",
        (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: " + KEY),
        b"",
    ),
    "stream": (b"GET /api/stream?channel=note:1", (), b""),
    "stats": (b"GET /api/realtime/stats", (), b""),
    "publish": (b"POST /api/publish", (b"Content-Type: text/plain",), BODY),
    "preflight of a stream": (b"OPTIONS /api/stream?channel=note:1", _PREFLIGHT, b""),
    "preflight of publishing": (b"OPTIONS /api/publish", _PREFLIGHT, b""),
    "preflight of an evaluation": (b"OPTIONS /api/stream/council-score", _PREFLIGHT, b""),
}


def play(stage: Stage) -> None:
    server = stage.redis()
    url = server.url
    listed = [flag for origin in LIST for flag in ("--listen-allowed-origins", origin)]
    claims = {"broker_admin": True, "publish": ["*"], "subscribe": ["*"]}
    guarded = stage.daemon(url, *listed, "--auth-cookie", "sid", environ={"BROKER_AUTH_SECRET": SECRET})
    sides = (
        Side("a list", stage.daemon(url, *listed)),
        Side("a list and a cookie", guarded, b"sid=" + token(**claims).encode()),
        Side("no list", stage.daemon(url), kinds={LISTED: FOREIGN}),
        Side(
            "everybody",
            stage.daemon(url, "--listen-allowed-origins", "*"),
            kinds={LISTED: LISTED, FOREIGN: LISTED, OWN: LISTED, OWN_TLS: LISTED},
            publishers=(ABSENT, OWN),
            cors="*",
        ),
    )
    wrong: list[str] = []
    requests = heard = 0
    with server.client() as client, client.pubsub(ignore_subscribe_messages=True) as ear:
        ear.subscribe("note:1")
        ear.get_message(timeout=5.0)  # that it is
        for side in sides:
            # The list itself is tried whole; in small, of the rest a handful, another each time.
            cases = CASES if stage.is_full or side is sides[0] else stage.dice.sample(CASES, 10)
            wrong += [line for origins, kind in cases for line in side.wrong(origins, kind)]
            requests += len(cases) * len(WAYS)
        while ear.get_message(timeout=0.2) is not None:
            heard += 1
    stage.faults += wrong
    stage.exactly("origins", len(CASES), 68)
    stage.at_least("requests", requests, stage.pick(4, 1) * len(CASES) * len(WAYS))
    stage.exactly("wrong answers", len(wrong), 0)
    published = sum(side.published for side in sides)
    stage.at_least("events of pages that may publish", published, 9)
    stage.exactly("events of pages that may not", heard - published, 0)


ROW = Row(
    19,
    "Web pages connect, read, publish and use cookies only where their origin is the daemon's own or on its list",
    "absent, null, subdomain, suffix trick, port, case, scheme, trailing dot, userinfo, IDN; over WebSocket, SSE, POST "
    "and preflight; with a list, with a list and cookies, with `*`, with none",
    "only what the allowlist says",
    play,
)


def test_row(small: Callable[[Row], None]) -> None:
    small(ROW)
