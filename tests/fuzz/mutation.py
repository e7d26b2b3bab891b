"""Bytes made a little wrong: flipped, cut, doubled, spliced, with numbers at their bounds and words put in.

The same dice give the same inputs.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from typing import Any

_NUMBER = re.compile(rb"[0-9]+")
_SEPARATORS = re.compile(rb"[\r\n,;:&.=/ {}\[\]\"]+")
BORDERS = [
    b"0", b"00", b"-1", b"1", b"125", b"126", b"127", b"128", b"255", b"256", b"999", b"1000", b"65535", b"65536",
    b"2147483647", b"2147483648", b"4294967296", b"9007199254740993", b"9223372036854775807", b"9223372036854775808",
    b"18446744073709551616", b"9" * 16, b"9" * 400, b"1e308", b"1e309", b"-0", b"0.1", b"1E400", b"0x10",
]  # fmt: skip
HOSTILE = [
    b"\r\n", b"\n", b"\r", b"\0", b"\x85", "\u0085".encode(), "\u2028".encode(), "\u2029".encode(), b"\x1b[2J", b"\x7f",
    b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xe2\x82", b"\xef\xbb\xbf", b"%0d%0a", b"%00",
    b"\\u0000",
    b"\\ud800", b"\\r\\n", b"\r\ndata: x\r\n\r\n", b"\n\nevent: x\ndata: y\n\n", b"\r\nX-A: b\r\n", b"__proto__",
    b"null",
]  # fmt: skip


TEXTS = [word.decode(errors="replace") for word in HOSTILE] + [
    "*",
    ":",
    "{sub}",
    "a" * 130,
    "a" * 1030,
    "",
    " ",
    "/",
    ".",
]
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 1.5, -0.0, 1e308, 2**31, 2**53 + 1, 2**63, 2**64, 10**400, "", "0", "x", [], {},
    [[]], [{}],
    {"a": None}, ["*"], [0], [None], "a" * 5000, ["a"] * 1100, {"type": "x"}, *TEXTS,
]  # fmt: skip
NAMES = ["type", "id", "userId", "channel", "event", "sub", "exp", "kid", "user", "a", "", "\0", "\r\ndata: x"]
_READER = json.JSONDecoder()


def mutated(dice: random.Random, data: bytes, words: Sequence[bytes]) -> bytes:
    """`data` with one to four bytes changed, cut out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(changed) + 1)
        match dice.randrange(5):
            case 0:
                changed[at : at + 1] = bytes((dice.randrange(256),))
            case 1:
                del changed[at : at + dice.randrange(1, 20)]
            case 2:
                changed[at:at] = changed[at : at + dice.randrange(1, 40)]
            case 3:
                changed[at:at] = dice.choice(words)
            case 4:
                changed[at : at + 1] = bytes((changed[at] ^ 1 << dice.randrange(8),)) if at < len(changed) else b""
    return bytes(changed)


class Mutator:
    """Makes inputs of those that there are, and of the words of their grammar."""

    def __init__(self, dice: random.Random, words: Sequence[bytes], max_bytes: int) -> None:
        self._dice = dice
        self._words = [*words, *HOSTILE]
        self._max_bytes = max_bytes

    def next(self, corpus: Sequence[bytes]) -> bytes:
        dice = self._dice
        data = dice.choice(corpus)
        for _ in range(dice.choice((1, 1, 1, 2, 3))):
            match dice.randrange(12):
                case 0 | 1 | 2:
                    data = mutated(dice, data, self._words)
                case 3:
                    data = self._with_number(data)
                case 4:
                    data = self._spliced(data, dice.choice(corpus))
                case 5:
                    data = self._rearranged(data)
                case 6:
                    data = self._repeated(data)
                case 7:
                    data = self._with_word_for_piece(data)
                case 8:
                    data = self._nested(data)
                case _:
                    data = self._with_other_json(data)
        return data[: self._max_bytes]

    def _with_number(self, data: bytes) -> bytes:
        found = list(_NUMBER.finditer(data))
        if not found:
            return data + self._dice.choice(BORDERS)
        match = self._dice.choice(found)
        return data[: match.start()] + self._dice.choice(BORDERS) + data[match.end() :]

    def _spliced(self, data: bytes, other: bytes) -> bytes:
        return data[: self._dice.randrange(len(data) + 1)] + other[self._dice.randrange(len(other) + 1) :]

    def _rearranged(self, data: bytes) -> bytes:
        """Two pieces between separators change places, or one is doubled or left out."""
        pieces = _SEPARATORS.split(data)
        joints = _SEPARATORS.findall(data)
        if len(pieces) < 2:
            return data * 2
        one, other = self._dice.randrange(len(pieces)), self._dice.randrange(len(pieces))
        match self._dice.randrange(3):
            case 0:
                pieces[one], pieces[other] = pieces[other], pieces[one]
            case 1:
                pieces[one] = pieces[one] + joints[other % len(joints)] + pieces[one]
            case 2:
                pieces[one] = b""
        return b"".join(piece + joint for piece, joint in zip(pieces, [*joints, b""], strict=True))

    def _repeated(self, data: bytes) -> bytes:
        at = self._dice.randrange(len(data) + 1)
        piece = data[at : at + self._dice.choice((1, 1, 2, 5, 20))]
        times = self._dice.choice((2, 3, 10, 130, 1000))
        return data[:at] + piece * times + data[at:]

    def _with_word_for_piece(self, data: bytes) -> bytes:
        pieces = list(re.finditer(rb"[A-Za-z0-9_.-]+", data))
        if not pieces:
            return self._dice.choice(self._words)
        match = self._dice.choice(pieces)
        return data[: match.start()] + self._dice.choice(self._words) + data[match.end() :]

    def _with_other_json(self, data: bytes) -> bytes:
        """A value inside one of the JSON texts in it is another, or one more; where there is none, other bytes are."""
        starts = [match.start() for match in re.finditer(rb"(?m)[{\[]", data[:5000])]
        start = self._dice.choice(starts) if starts else 0
        try:
            value, end = _READER.raw_decode(data[start:].decode())
        except (ValueError, RecursionError):
            return mutated(self._dice, data, self._words)
        try:
            text = json.dumps(self._changed(value), ensure_ascii=self._dice.random() < 0.5)
        except RecursionError:
            return data
        rest = data[start:].decode()[end:].encode()
        return data[:start] + text.encode(errors="surrogatepass") + rest

    def _changed(self, value: Any) -> Any:
        dice = self._dice
        if isinstance(value, dict) and value and dice.random() < 0.9:
            key = dice.choice(list(value))
            match dice.randrange(4):
                case 0:
                    return {name: inner for name, inner in value.items() if name != key}
                case 1:
                    return {**value, dice.choice(NAMES): value[key]}
                case _:
                    return {**value, key: self._changed(value[key])}
        if isinstance(value, list) and value and dice.random() < 0.9:
            at = dice.randrange(len(value))
            return [*value[:at], self._changed(value[at]), *value[at + dice.randrange(2) :]]
        if isinstance(value, str) and dice.random() < 0.5:
            at = dice.randrange(len(value) + 1)
            return value[:at] + dice.choice(TEXTS) + value[at:]
        return dice.choice(VALUES)

    def _nested(self, data: bytes) -> bytes:
        opening, closing = self._dice.choice(((b"[", b"]"), (b'{"a":', b"}"), (b'"', b'"'), (b"(", b")")))
        times = self._dice.choice((1, 2, 50, 600, 2000))
        at = self._dice.randrange(len(data) + 1)
        end = self._dice.choice((at, len(data)))
        return data[:at] + opening * times + data[at:end] + closing * times + data[end:]
