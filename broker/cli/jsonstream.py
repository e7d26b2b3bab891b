"""A stream of JSON values: bytes in, values out, as they were written, each checked once.

Law: what is no JSON never comes out. Bound: one value has at most `VALUE_MAX_BYTES`.
Source: RFC 8259.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import NoReturn

from attrs import define, field

VALUE_MAX_BYTES = 64 * 1024 * 1024
_SHOWN_CHARACTERS = 76
_STARTS_VALUE = re.compile(rb"[^ \t\r\n]")
_IN_NESTED = re.compile(rb'["{}\[\]]')
_ENDS_STRING = re.compile(rb'["\\]')
_ENDS_SCALAR = re.compile(rb'[ \t\r\n"{}\[\],:]')


class JsonError(ValueError):
    """What is not JSON: `str()` says what, where, and shows the place with a caret below it."""


@define(eq=False)
class JsonStream:
    """Cuts a stream of bytes into JSON values. Synchronous; sans-I/O; linear in what it is fed.

    Where a value ends is found by its quotes and brackets alone; what stands between is checked
    once, when it is whole. ASCII marks cannot be part of another UTF-8 character.
    """

    _buffer: bytearray = field(init=False, factory=bytearray)
    # Where the value at hand begins in the buffer (-1: none yet), and how far it was looked at.
    _start: int = field(init=False, default=-1)
    _scanned: int = field(init=False, default=0)
    _depth: int = field(init=False, default=0)
    _in_string: bool = field(init=False, default=False)
    _checked_bytes: int = field(init=False, default=0)
    # The line, counted from 1, on which the buffer begins.
    _line: int = field(init=False, default=1)

    def feed(self, chunk: bytes) -> tuple[list[bytes], JsonError | None]:
        """The values that became whole, and what is wrong after them; after an error, feed no more."""
        self._buffer += chunk
        values: list[bytes] = []
        while (end := self._find_end()) is not None:
            value, line = bytes(self._buffer[self._start : end]), self._line_of(self._start)
            try:
                check_json(value, line)
            except JsonError as error:
                return values, error
            values.append(value)
            self._cut(end)
        return values, self._look_ahead()

    def end(self) -> tuple[list[bytes], JsonError | None]:
        """The last value, if it was a number or a word, whose end only the end of the stream shows."""
        if self._start < 0:
            return [], None
        value, line = bytes(self._buffer[self._start :]), self._line_of(self._start)
        if self._depth or self._in_string:
            return [], JsonError(f"the JSON value that began on line {line} is incomplete: the input ended inside it")
        try:
            check_json(value, line)
        except JsonError as error:
            return [], error
        return [value], None

    def _find_end(self) -> int | None:
        """Where the value at hand ends in the buffer; None if that is not known yet."""
        buffer = self._buffer
        if self._start < 0:
            found = _STARTS_VALUE.search(buffer, self._scanned)
            if found is None:
                self._cut(len(buffer))
                return None
            self._start, self._scanned = found.start(), found.end()
            self._depth = int(buffer[self._start] in b"{[")
            self._in_string = buffer[self._start] in b'"'
            if buffer[self._start] in b"}],:":
                return self._scanned
        if not self._depth and not self._in_string:
            found = _ENDS_SCALAR.search(buffer, self._scanned)
            self._scanned = found.start() if found else len(buffer)
            return found.start() if found else None
        while found := (_ENDS_STRING if self._in_string else _IN_NESTED).search(buffer, self._scanned):
            mark = found.group()
            # What a backslash stands before may not have come yet: then this is behind the buffer's end.
            self._scanned = found.end() + (mark == b"\\")
            if mark == b'"':
                self._in_string = not self._in_string
            elif mark != b"\\":
                self._depth += 1 if mark in b"{[" else -1
            if not self._depth and not self._in_string:
                return self._scanned
        self._scanned = max(self._scanned, len(buffer))
        return None

    def _look_ahead(self) -> JsonError | None:
        """What is certainly wrong already in a value that is not whole.

        A lost bracket would otherwise swallow all that follows, in silence. Looked at each time that
        the value has doubled, so that the cost stays linear.
        """
        if self._start < 0:
            return None
        line, size = self._line_of(self._start), len(self._buffer) - self._start
        if size > VALUE_MAX_BYTES:
            return JsonError(f"the JSON value that began on line {line} is larger than {VALUE_MAX_BYTES} bytes")
        if size < 2 * self._checked_bytes:
            return None
        self._checked_bytes = size
        try:
            text = codecs.getincrementaldecoder("utf-8")().decode(bytes(self._buffer[self._start :]))
            json.loads(text)
        except UnicodeDecodeError as error:
            return _not_utf8(error, line)
        except json.JSONDecodeError as error:
            # No word, number or string goes over the end of a line: what a whole line follows is final.
            if "\n" in text[error.pos :].strip():
                return _not_json(error, line)
        except (ValueError, RecursionError):
            # For check_json to say, when the value is whole.
            return None
        return None

    def _cut(self, end: int) -> None:
        self._line += self._buffer.count(b"\n", 0, end)
        del self._buffer[:end]
        self._start, self._scanned, self._depth, self._in_string, self._checked_bytes = -1, 0, 0, False, 0

    def _line_of(self, position: int) -> int:
        return self._line + self._buffer.count(b"\n", 0, position)


def check_json(payload: bytes, line: int = 1) -> None:
    """Refuse what is not one JSON value in UTF-8 (RFC 8259), NaN and Infinity included.

    Args:
        line: the number of the line that `payload` begins on, for the message.

    Raises:
        JsonError: with the place.
    """
    try:
        # Numbers stay text: they are only looked at, and a long one would be refused by int().
        json.loads(payload.decode("utf-8"), parse_int=str, parse_float=str, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise _not_utf8(error, line) from None
    except json.JSONDecodeError as error:
        raise _not_json(error, line) from None
    except RecursionError:
        raise JsonError(f"the JSON value that began on line {line} is nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise JsonError(f"{name} is not JSON; write null, or a number")


def _not_utf8(error: UnicodeDecodeError, line: int) -> JsonError:
    return JsonError(f"not UTF-8: byte {error.start + 1} of the JSON value that began on line {line}")


def _not_json(error: json.JSONDecodeError, line: int) -> JsonError:
    """The message, the line that it is about, cut around the place, and a caret under it."""
    text = error.doc.split("\n")[error.lineno - 1]
    begin = max(0, error.colno - 1 - _SHOWN_CHARACTERS // 2)
    shown = "".join(character if character.isprintable() else " " for character in text[begin:][:_SHOWN_CHARACTERS])
    return JsonError(
        f"not JSON at line {line + error.lineno - 1}, column {error.colno}: {error.msg}\n"
        f"  {shown}\n"
        f"  {' ' * (error.colno - 1 - begin)}^"
    )
