"""RFC 6455, case by case, over raw sockets against the daemon's own conversation (`tests.echo`).

Cases are numbered after the chapters that the Autobahn suite made common: 1 framing, 2 pings and
pongs, 3 reserved bits, 4 opcodes, 5 fragmentation, 6 UTF-8, 7 closing, 8 lengths. Each says what is
sent and, to the last byte, what comes back until the server closes the connection.

The Autobahn suite itself passes too (autobahntestsuite 0.8.2 of PyPI, Python 2.7: 247 cases of chapters 1 to 7 and 10,
none failed); how it is run:
`python -m tests.echo 9001`, then `wstest -m fuzzingclient` with `{"servers": [{"agent": "broker",
"url": "ws://127.0.0.1:9001"}], "cases": ["*"], "exclude-cases": ["12.*", "13.*"]}`. 12 and 13 are
compression, which is never negotiated.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator, Sequence

from attrs import frozen

from tests.actors.raw_client import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    RawClient,
    close_frame,
    frame,
)

KIB = 1024
MIB = 1024 * KIB
# A connection that fails is closed at once, not after the time that a goodbye may take.
FAIL_SECONDS = 1.5


@frozen
class Case:
    """One conversation.

    Args:
        sent: what the client sends, piece by piece.
        answered: the frames that come back before the close frame.
        code: of the close frame that ends it; None for a close frame without one.
        reason: of that frame; None where the words are the server's own.
    """

    id: str
    sent: Sequence[bytes]
    answered: Sequence[Frame] = ()
    code: int | None = 1000
    reason: bytes | None = b""


BYE = close_frame(1000)


def healthy(id: str, *sent: bytes, answered: Sequence[Frame]) -> Case:
    """The client closes, with 1000, after what it sent."""
    return Case(id, (*sent, BYE), answered)


def broken(id: str, *sent: bytes, answered: Sequence[Frame] = (), code: int = 1002) -> Case:
    """The server fails the connection; the client says nothing more."""
    return Case(id, sent, answered, code, None)


def echoed(payload: bytes, opcode: int = TEXT) -> Frame:
    return Frame(opcode, payload)


def framing() -> Iterator[Case]:
    for opcode, name in (TEXT, "text"), (BINARY, "binary"):
        for size in 0, 1, 125, 126, 127, 128, 65535, 65536, MIB, 16 * MIB:
            payload = (b"*" if opcode == TEXT else b"\xfe") * size
            yield healthy(f"1-{name}-{size}", frame(opcode, payload), answered=[echoed(payload, opcode)])
        yield broken(f"1-{name}-over-16MiB", frame(opcode, b"*" * (16 * MIB + 1)), code=1009)
    mask_zero = b"\x81\x85\0\0\0\0Hello"
    yield healthy("1-mask-zero", mask_zero, answered=[echoed(b"Hello")])
    yield broken("1-unmasked-text", frame(TEXT, b"Hello", masked=False))
    yield broken("1-unmasked-empty", frame(TEXT, b"", masked=False))
    yield broken("1-unmasked-ping", frame(PING, b"", masked=False))
    yield broken("1-unmasked-close", frame(CLOSE, struct.pack("!H", 1000), masked=False))


def pings() -> Iterator[Case]:
    for size in 0, 1, 124, 125:
        payload = bytes(range(size))
        yield healthy(f"2-ping-{size}", frame(PING, payload), answered=[Frame(PONG, payload)])
    yield broken("2-ping-126", frame(PING, b"*" * 126))
    yield broken("2-ping-126-head-only", frame(PING, b"", length=126))
    yield healthy("2-pong-unsolicited", frame(PONG), answered=[])
    yield healthy("2-pong-with-payload", frame(PONG, b"unasked"), answered=[])
    yield broken("2-pong-126", frame(PONG, b"*" * 126))
    yield healthy("2-pong-then-ping", frame(PONG, b"a"), frame(PING, b"b"), answered=[Frame(PONG, b"b")])
    ten = [b"payload-%d" % number for number in range(10)]
    yield healthy(
        "2-ten-pings",
        b"".join(frame(PING, payload) for payload in ten),
        answered=[Frame(PONG, payload) for payload in ten],
    )


def reserved_bits() -> Iterator[Case]:
    for rsv in range(1, 8):
        yield broken(f"3-rsv{rsv}-text", frame(TEXT, b"Hello", rsv=rsv))
        after = frame(BINARY, b"b", rsv=rsv)
        yield broken(f"3-rsv{rsv}-binary-after-echo", frame(TEXT, b"a"), after, answered=[echoed(b"a")])
        yield broken(f"3-rsv{rsv}-ping", frame(PING, rsv=rsv))
        yield broken(f"3-rsv{rsv}-close", frame(CLOSE, rsv=rsv))
        yield broken(f"3-rsv{rsv}-continuation", frame(TEXT, b"a", fin=False), frame(CONTINUATION, b"b", rsv=rsv))


def opcodes() -> Iterator[Case]:
    for opcode in (*range(3, 8), *range(11, 16)):
        yield broken(f"4-opcode{opcode}-empty", frame(opcode))
        yield broken(f"4-opcode{opcode}-payload", frame(opcode, b"reserved"))
        yield broken(
            f"4-opcode{opcode}-after-echo", frame(TEXT, b"a"), frame(opcode), frame(PING), answered=[echoed(b"a")]
        )


def fragmentation() -> Iterator[Case]:
    def start(payload: bytes, opcode: int = TEXT) -> bytes:
        return frame(opcode, payload, fin=False)

    def more(payload: bytes) -> bytes:
        return frame(CONTINUATION, payload, fin=False)

    def last(payload: bytes) -> bytes:
        return frame(CONTINUATION, payload)

    for opcode, name in (TEXT, "text"), (BINARY, "binary"):
        whole = [echoed(b"abc", opcode)]
        yield healthy(f"5-{name}-two", start(b"ab", opcode), last(b"c"), answered=whole)
        yield healthy(f"5-{name}-three", start(b"a", opcode), more(b"b"), last(b"c"), answered=whole)
        yield healthy(f"5-{name}-empty-first", start(b"", opcode), last(b"abc"), answered=whole)
        yield healthy(f"5-{name}-empty-middle", start(b"ab", opcode), more(b""), last(b"c"), answered=whole)
        yield healthy(f"5-{name}-empty-last", start(b"abc", opcode), last(b""), answered=whole)
        yield healthy(f"5-{name}-all-empty", start(b"", opcode), more(b""), last(b""), answered=[echoed(b"", opcode)])
        yield healthy(
            f"5-{name}-ping-between", start(b"ab", opcode), frame(PING, b"p"), last(b"c"),
            answered=[Frame(PONG, b"p"), *whole],
        )  # fmt: skip
        yield healthy(
            f"5-{name}-pings-everywhere",
            frame(PING, b"1"), start(b"a", opcode), frame(PING, b"2"), more(b"b"), frame(PONG), frame(PING, b"3"),
            last(b"c"), frame(PING, b"4"),
            answered=[Frame(PONG, b"1"), Frame(PONG, b"2"), Frame(PONG, b"3"), *whole, Frame(PONG, b"4")],
        )  # fmt: skip
        yield broken(f"5-{name}-{name}-during-continuation", start(b"a", opcode), frame(opcode, b"b"))
        yield broken(f"5-{name}-start-during-continuation", start(b"a", opcode), start(b"b", opcode))
        yield healthy(f"5-{name}-close-pending", start(b"a", opcode), more(b"b"), answered=[])
        pieces = [b"%03d" % number for number in range(500)]
        yield healthy(
            f"5-{name}-501", b"".join((start(b"", opcode), *map(more, pieces), last(b"."))),
            answered=[echoed(b"".join(pieces) + b".", opcode)],
        )  # fmt: skip
        yield healthy(
            f"5-{name}-64KiB-pieces", start(b"*" * 65536, opcode), more(b"*" * 65536), last(b"*" * 65536),
            answered=[echoed(b"*" * 3 * 65536, opcode)],
        )  # fmt: skip
    yield broken("5-binary-during-text", start(b"a"), frame(BINARY, b"b"))
    yield broken("5-text-during-binary", start(b"a", BINARY), frame(TEXT, b"b"))
    yield broken("5-continuation-first", last(b"a"))
    yield broken("5-continuation-unfinished-first", more(b"a"))
    yield broken("5-continuation-empty-first", last(b""))
    yield broken("5-continuation-after-message", frame(TEXT, b"a"), last(b"b"), answered=[echoed(b"a")])
    yield broken("5-continuation-after-fragments", start(b"a"), last(b"b"), last(b"c"), answered=[echoed(b"ab")])
    for opcode in CLOSE, PING, PONG:
        yield broken(f"5-control{opcode}-fragmented", frame(opcode, fin=False))
        yield broken(f"5-control{opcode}-fragmented-between", start(b"a"), frame(opcode, fin=False), last(b"b"))


VALID = {
    "ascii": "Hello",
    "two-bytes": "\u00e9\u0080\u07ff",
    "three-bytes": "\u0800\u20ac\ud7ff\ue000\uffff",
    "four-bytes": "\U00010000\U0001f600\U0010ffff",
    "noncharacters": "\ufffe\uffff\U0001fffe\U0010ffff",
    "nul": "a\0b",
    "bom": "\ufeffBOM",
    "greek": "\u03ba\u1f79\u03c3\u03bc\u03b5",
}
# Each with the byte at which it can be told that no valid text begins so.
INVALID = {
    "lone-continuation": (b"\x80", 0),
    "lone-continuation-bf": (b"a\xbf", 1),
    "two-lone-continuations": (b"\x80\xbf", 0),
    "overlong-2-slash": (b"\xc0\xaf", 0),
    "overlong-2-max": (b"\xc1\xbf", 0),
    "overlong-3-slash": (b"\xe0\x80\xaf", 1),
    "overlong-3-max": (b"\xe0\x9f\xbf", 1),
    "overlong-4-slash": (b"\xf0\x80\x80\xaf", 1),
    "overlong-4-max": (b"\xf0\x8f\xbf\xbf", 1),
    "overlong-nul": (b"\xc0\x80", 0),
    # Python's decoder could tell at the second byte, and tells at the third; the RFC asks for neither.
    "surrogate-d800": (b"\xed\xa0\x80", 2),
    "surrogate-dfff": (b"\xed\xbf\xbf", 2),
    "surrogate-pair": (b"\xed\xa0\xbd\xed\xb8\x80", 2),
    "over-10ffff": (b"\xf4\x90\x80\x80", 1),
    "five-bytes": (b"\xf8\x88\x80\x80\x80", 0),
    "six-bytes": (b"\xfc\x84\x80\x80\x80\x80", 0),
    "fe": (b"\xfe", 0),
    "ff": (b"\xff", 0),
    "cut-2-then-ascii": (b"\xc3a", 1),
    "cut-3-then-ascii": (b"\xe2\x82a", 2),
    "cut-4-then-ascii": (b"\xf0\x9f\x98a", 3),
    "cut-3-then-start": (b"\xe2\x82\xe2\x82\xac", 2),
}
TRUNCATED = {"2": b"\xc3", "3-1": b"\xe2", "3-2": b"\xe2\x82", "4-1": b"\xf0", "4-3": b"\xf0\x9f\x98"}


def utf8() -> Iterator[Case]:
    for name, words in VALID.items():
        data = words.encode()
        yield healthy(f"6-valid-{name}", frame(TEXT, data), answered=[echoed(data)])
        bytewise = [frame(TEXT, data[:1], fin=False)]
        bytewise += [frame(CONTINUATION, data[at : at + 1], fin=False) for at in range(1, len(data))]
        yield healthy(f"6-valid-{name}-bytewise", b"".join(bytewise), frame(CONTINUATION), answered=[echoed(data)])
        yield healthy(
            f"6-valid-{name}-ping-inside", bytewise[0], frame(PING), *bytewise[1:], frame(CONTINUATION),
            answered=[Frame(PONG, b""), echoed(data)],
        )  # fmt: skip
    for name, (data, wrong_at) in INVALID.items():
        good = "\u03ba\u1f79\u03c3\u03bc\u03b5".encode()
        yield broken(f"6-invalid-{name}", frame(TEXT, data), code=1007)
        yield broken(f"6-invalid-{name}-inside", frame(TEXT, good + data + good), code=1007)
        yield broken(
            f"6-invalid-{name}-fragments",
            frame(TEXT, good + data[:1], fin=False), frame(CONTINUATION, data[1:] + b"a"), code=1007,
        )  # fmt: skip
        # Fail fast: the message has neither ended, nor has its frame.
        cut = frame(TEXT, good + data + b"*" * 100)
        yield broken(f"6-invalid-{name}-at-once", cut[: 6 + len(good) + wrong_at + 1], code=1007)
        yield broken(
            f"6-invalid-{name}-at-once-in-fragments", frame(TEXT, good, fin=False),
            frame(CONTINUATION, data + b"*" * 100)[: 6 + wrong_at + 1],
            code=1007,
        )  # fmt: skip
    for name, data in TRUNCATED.items():
        yield broken(f"6-truncated-{name}", frame(TEXT, b"a" + data), code=1007)
        yield broken(f"6-truncated-{name}-fragments", frame(TEXT, data, fin=False), frame(CONTINUATION), code=1007)
    any_bytes = bytes(range(256))
    yield healthy("6-binary-is-any-bytes", frame(BINARY, any_bytes), answered=[echoed(any_bytes, BINARY)])


# 1012 to 1014 are registered with IANA after the RFC; wsproto has names for two of them.
CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999)
NO_CODES = (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 5001, 65535)


def closing() -> Iterator[Case]:
    for code in CODES:
        yield Case(f"7-code-{code}", [close_frame(code)], code=code)
        yield Case(f"7-code-{code}-reason", [close_frame(code, b"reason")], code=code, reason=b"reason")
    for code in NO_CODES:
        yield broken(f"7-code-{code}", close_frame(code))
        yield broken(f"7-code-{code}-reason", close_frame(code, b"reason"))
    # 1014 is registered for gateways; no client has a use for it, and wsproto has no name for it.
    yield broken("7-code-1014", close_frame(1014))
    yield Case("7-empty", [frame(CLOSE)], code=None)
    yield broken("7-one-byte", frame(CLOSE, b"\x03"))
    yield Case("7-reason-123", [close_frame(1000, b"*" * 123)], reason=b"*" * 123)
    yield broken("7-reason-124", close_frame(1000, b"*" * 124))
    yield broken("7-126-head-only", frame(CLOSE, b"\x03\xe8", length=126))
    yield Case("7-reason-utf8", [close_frame(1000, "\u20ac\U0001f600".encode())], reason="\u20ac\U0001f600".encode())
    yield broken("7-reason-not-utf8", close_frame(1000, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80"), code=1007)
    yield broken("7-reason-truncated", close_frame(1000, b"\xe2\x82"), code=1007)
    yield Case("7-text-after", [BYE + frame(TEXT, b"late")])
    yield Case("7-ping-after", [BYE + frame(PING, b"late")])
    yield Case("7-garbage-after", [BYE + b"\xff" * 1000])
    yield Case("7-close-after", [BYE + close_frame(1001)])
    yield Case("7-close-after-close-after-close", [BYE, BYE, BYE])
    yield Case("7-echo-before", [frame(TEXT, b"a") + BYE], [echoed(b"a")])
    yield Case("7-ping-before", [frame(PING, b"a") + BYE], [Frame(PONG, b"a")])
    yield Case("7-pending-fragments", [frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", fin=False) + BYE])
    yield Case("7-256KiB-before", [frame(TEXT, b"*" * 256 * KIB) + BYE], [echoed(b"*" * 256 * KIB)])
    yield broken("7-garbage-instead", b"\xff" * 100)
    yield broken("7-data-after-failure", frame(3) + frame(TEXT, b"late") + frame(PING) + BYE)


def lengths() -> Iterator[Case]:
    for opcode in TEXT, BINARY:
        yield broken(f"8-{opcode}-2pow63", frame(opcode, length=2**63))
        yield broken(f"8-{opcode}-2pow64-1", frame(opcode, length=2**64 - 1))
        for size in 0, 1, 125:
            yield broken(f"8-{opcode}-{size}-in-two-bytes", frame(opcode, b"*" * size, size_bytes=2))
        for size in 0, 125, 126, 65535:
            yield broken(f"8-{opcode}-{size}-in-eight-bytes", frame(opcode, b"*" * size, size_bytes=8))
    yield broken("8-ping-in-two-bytes", frame(PING, b"*", size_bytes=2))
    yield broken("8-ping-in-eight-bytes", frame(PING, b"*", size_bytes=8))


CASES = [*framing(), *pings(), *reserved_bits(), *opcodes(), *fragmentation(), *utf8(), *closing(), *lengths()]


def failures(case: Case, port: int, *, bytewise: bool = False) -> list[str]:
    """Play it against an echo on `port`: what is sent piece by piece, or byte by byte, comes back as it says.

    Returns:
        What did not, a line each. A failed connection must be closed at once.
    """
    pieces = [bytes((byte,)) for byte in b"".join(case.sent)] if bytewise else case.sent
    began = time.monotonic()
    with RawClient.websocket(port, greeted=False) as client:
        for piece in pieces:
            client.try_send(piece)
        try:
            frames = client.frames()
        except (EOFError, TimeoutError, AssertionError) as error:
            return [f"{case.id}: {error}"]
    found = list(_differences(case, frames))
    if len(case.sent[0]) < MIB and time.monotonic() - began > FAIL_SECONDS:
        found.append(f"{case.id}: it took {time.monotonic() - began:.1f} s")
    return found


def _differences(case: Case, frames: list[Frame]) -> Iterator[str]:
    *answered, last = frames or [Frame(PONG, b"nothing at all")]
    if answered != list(case.answered):
        yield f"{case.id}: answered {str(answered)[:500]}"
    if last.opcode != CLOSE or last.code != case.code:
        yield f"{case.id}: the last frame is {str(last)[:500]}"
        return
    words = last.payload[2:]
    if not (words.decode(errors="replace").isprintable() and words if case.reason is None else words == case.reason):
        yield f"{case.id}: the reason is {words!r}"
