"""What Redis sends to whoever subscribed: any bytes, as replies that no Redis gives. The connection ends by a named
error, or goes on; what was told before is handed on, and nothing else ends."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import trio

from broker.config.sections import Redis
from broker.errors import UpstreamError
from broker.history.keys import Keys
from broker.message import refusal
from broker.run import STAMP
from broker.upstream.connection import reader, replies_of
from broker.upstream.handover import FREE, LISTENING, MARKER, OFFER, PASSED, channel_of, digest_of
from broker.upstream.lease import Lease
from broker.upstream.link import Link
from broker.upstream.parting import Parting
from broker.upstream.refusals import Refusals
from broker.upstream.standby import Standby, _Held
from broker.upstream.term import Pattern, Tally, Term
from tests.fuzz.target import Target
from tests.fuzz.targets import payloads

MAX_BYTES = 1000
PREFIX = "p:"
SECTION = Redis(channel_prefix=PREFIX)
PATTERNS = {b"p:a:*": Pattern(refusal, 1000, 10, 1000), b"p:b": Pattern(refusal, 1000, 10, 1000)}
TOKEN = "0123456789abcdef"
SAID = channel_of(PREFIX).encode()
WHO = "me"
# hiredis reserves memory for as many parts as are announced, and has no bound for it: Redis is believed in that.
_MANY = re.compile(rb"[*%~>|][+]?[0-9]{5}")


class Hub(payloads.Hub):
    """What the link tells."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[bytes] = []

    def opened(self, name: bytes, now: float) -> None:
        assert type(name) is bytes
        self.told.append(name)

    def refused(self, name: bytes, why: str) -> None:
        assert type(name) is bytes and isinstance(why, str)
        self.told.append(name)


class Pipeline:
    """What the recorder writes."""

    def __init__(self) -> None:
        self.added: list[bytes] = []

    def add(self, data: bytes, answered: object) -> None:
        self.added.append(data)

    def flush(self) -> None: ...


def check(data: bytes) -> str:
    if _MANY.search(data):
        return "many"
    at = len(data) * 5 // 11
    said = [listened(replies(data)) for data in ([data], [data[:at], data[at:]])]
    assert said[0][:2] == said[1][:2], "what was handed on hangs on how the bytes were cut"
    whole = [reply for some in replies([data])[0] for reply in some]
    return f"{said[0][2]} {recorded(whole)} {stood_by(whole)}"


def replies(pieces: list[bytes]) -> tuple[list[list[Any]], bool]:
    """What each piece brought, and whether it ended with what is not RESP."""
    parser = reader()
    found = []
    for piece in pieces:
        parser.feed(piece)
        try:
            found.append(replies_of(parser))
        except UpstreamError as error:
            check_error(error)
            return found, True
    return found, False


def listened(read: tuple[list[list[Any]], bool]) -> tuple[list[bytes], list[bytes], str]:
    """What the link made of it: payloads, names of channels, and how it ended."""
    link, hub = Link(SECTION, MAX_BYTES), Hub()
    link.take_plain(True)
    for name in (b"a:1", b"b", b"c"):
        link.want(name)
    link._interest.take_commands(0.0)
    link.want(b"d")
    link._interest.take_commands(0.0)
    how = "goes on"
    try:
        for some in read[0]:
            link._take(some, hub, 0.0)  # type: ignore[arg-type]
    except UpstreamError as error:
        how = check_error(error)
    link._interest.lost()
    # Nothing of a connection that is gone is waited for on the next one.
    assert not link._interest.is_waiting and not link._interest.live_count()
    assert all(type(payload) is bytes for payload in hub.plain)
    for run in hub.runs:
        payloads.check_run(run)
    handed = [*hub.plain, *(payload for run in hub.runs for payload in run.payloads)]
    if read[1] or how != "goes on":
        # How much was handed on before the end hangs on the reads.
        return [], [], "not RESP" if read[1] else how
    return sorted(handed), sorted(hub.told), how


def recorded(replies: list[Any]) -> str:
    pipeline = Pipeline()
    lease = Lease(Keys(PREFIX), 10.0)
    lease.held_until = trio.current_time() + 10.0
    ear: Any = SimpleNamespace(last_read_at=0.0)
    term = Term(pipeline, ear, SECTION, lease, Keys(PREFIX), PATTERNS, MAX_BYTES, Refusals(), Tally())  # type: ignore[arg-type]
    term.parting = Parting(SAID.decode(), digest_of(PATTERNS))
    term.parting._token = TOKEN
    try:
        marked = term._take(replies)
    except UpstreamError as error:
        return check_error(error)
    assert term._tally.in_flight == 0 or pipeline.added
    return f"{marked} {min(len(pipeline.added), 2)} {term.parting.heir is not None}"


def stood_by(replies: list[Any]) -> str:
    standby = Standby(SECTION, PATTERNS, WHO, SimpleNamespace())  # type: ignore[arg-type]
    pipeline = Pipeline()
    held = _Held()
    try:
        for reply in replies:
            standby._take(reply, TOKEN, held, pipeline)  # type: ignore[arg-type]
    except UpstreamError as error:
        return check_error(error)
    assert held.generation is None or (held.is_marked and held.generation >= 0)
    assert all(len(reply) == 4 for reply in held.replies)
    return f"{held.generation is not None} {held.is_over} {held.offer is not None} {min(len(held.replies), 1)}"


def check_error(error: UpstreamError) -> str:
    # Redis' own words are in some; the log quotes them.
    assert len(str(error)) <= 2 * TARGET.max_bytes
    return type(error).__name__


def array(*parts: bytes | int | None) -> bytes:
    """An array of RESP2."""
    shown = b""
    for part in parts:
        if isinstance(part, int):
            shown += b":%d\r\n" % part
        else:
            shown += b"$-1\r\n" if part is None else b"$%d\r\n%b\r\n" % (len(part), part)
    return b"*%d\r\n%b" % (len(parts), shown)


def notice(verb: str, about: str, token: str = TOKEN) -> bytes:
    return array(b"message", SAID, f"{verb} {token} {about}".encode())


OURS = digest_of(PATTERNS)
CONFIRMED = b"".join(array(b"subscribe", b"p:" + name, number) for number, name in enumerate((b"a:1", b"b", b"c"), 1))
PATTERNS_CONFIRMED = array(b"psubscribe", b"p:a:*", 1) + array(b"psubscribe", b"p:b", 2)

TARGET = Target(
    "pushes",
    check,
    (
        CONFIRMED + array(b"subscribe", b"p:d", 4) + array(b"message", b"p:b", b"{}"),
        array(b"message", b"p:a:1", b'{"a": 1}') * 3 + array(b"message", b"p:b", b"[") + b"+PONG\r\n",
        array(b"message", b"p:a:1", STAMP + b"s:1:1:9 {}") + array(b"message", b"p:a:1", STAMP + b"g2:1:2:9 {}"),
        array(b"message", b"p:a:1", STAMP + b"u {}") + array(b"message", b"p:a:1", STAMP + b"s:1:x {}"),
        b"-NOPERM no channel permissions\r\n" + array(b"subscribe", b"p:d", 1) + array(b"pong", b""),
        b"-ERR one\r\n-ERR two\r\n-ERR three\r\n",
        array(b"subscribe", b"p:d", 1) + array(b"unsubscribe", b"p:a:1", 0) + array(b"unsubscribe", None, 0),
        array(b"pmessage", b"p:a:*", b"p:a:1", b"{}") * 2 + array(b"pmessage", b"p:b", b"p:b", b"x"),
        array(b"pmessage", b"p:a:*", b"p:a:bad name", b"{}") + array(b"pmessage", b"p:b", b"p:b", STAMP + b"u {}"),
        PATTERNS_CONFIRMED
        + notice(MARKER, WHO)
        + array(b"pmessage", b"p:b", b"p:b", b"{}")
        + notice(PASSED, "7"),
        PATTERNS_CONFIRMED + notice(FREE, "-") + notice(OFFER, OURS, "f" * 16),
        notice(LISTENING, "you") + array(b"pmessage", b"p:b", b"p:b", b"{}") + notice(MARKER, "you"),
        b"*0\r\n",
        b"*-1\r\n$-1\r\n:7\r\n+OK\r\n",
        b"*3\r\n$7\r\nmessage\r\n*1\r\n:1\r\n$1\r\nx\r\n",
        b"*2\r\n$7\r\nmessage\r\n$3\r\np:b\r\n",
        b"%1\r\n+a\r\n+b\r\n~1\r\n:1\r\n#f\r\n_\r\n,1.5\r\n>2\r\n+message\r\n+x\r\n(123\r\n=5\r\ntxt:a\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"*1\r\n" * 12 + b":1\r\n",
    ),
    (
        b"*0\r\n", b"*-1\r\n", b"*1\r\n", b"*2\r\n", b"*3\r\n", b"*4\r\n", b"$-1\r\n", b"$0\r\n\r\n", b":0\r\n",
        b":-9223372036854775808\r\n", b"+OK\r\n", b"-ERR x\r\n", b"-NOPERM x\r\n", b"-OOM x\r\n", b"#t\r\n", b"#f\r\n",
        b"_\r\n", b"%1\r\n", b"~1\r\n", b">3\r\n", b"$7\r\nmessage\r\n", b"$8\r\npmessage\r\n", b"$9\r\nsubscribe\r\n",
        b"$11\r\nunsubscribe\r\n", b"$10\r\npsubscribe\r\n", b"$4\r\npong\r\n", b"$3\r\np:b\r\n", b"$5\r\np:a:1\r\n",
        b"$5\r\np:a:*\r\n", b"\x01s:1:1:9 {}", b"\x01u {}", b"$1000000000000\r\n", SAID,
        TOKEN.encode(), b"marker", b"passed",
    ),
    frozenset({"goes on False 0 False False False False 0", "UpstreamError UpstreamError UpstreamError"}),
    max_bytes=5_000,
)  # fmt: skip
