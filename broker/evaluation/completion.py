"""A chat completion as it streams in: bytes in, pieces of text out. Sans-I/O.

Laws: lines end at CR, LF or CRLF and nowhere else, so U+2028 inside a text ends none. Comments, other
fields and what a provider adds are passed over; of a chunk only the first choice's `delta.content` is
taken, `reasoning_content` is not. An answer is whole only behind `[DONE]` or a `finish_reason` of `stop`;
any other end is an error. An error's `str()` is for the watcher; what the provider said is a note of it,
for the log.
Bounds: `LINE_MAX_BYTES` a line, and as much for the lines of one event; `ANSWER_MAX_CHARACTERS` in all.

Source: WHATWG HTML, 9.2.6 (event streams); OpenAI's API reference, "chat completion chunk".
"""

from __future__ import annotations

import json
from typing import Any

from attrs import define, field

from broker.errors import EvaluationError

LINE_MAX_BYTES = 1024 * 1024
ANSWER_MAX_CHARACTERS = 128 * 1024

_SAID_CHARACTERS = 500
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@define(eq=False)
class ChatCompletion:
    """One streamed answer. `is_whole`: nothing that follows matters. After an error, feed no more."""

    is_whole: bool = field(init=False, default=False)
    _finish: str | None = field(init=False, default=None)
    _line: bytearray = field(init=False, factory=bytearray)
    _after_cr: bool = field(init=False, default=False)
    _first: bool = field(init=False, default=True)
    _data: list[bytes] = field(init=False, factory=list)
    _data_bytes: int = field(init=False, default=0)
    _characters: int = field(init=False, default=0)
    # The first half of a surrogate pair that two chunks share.
    _half: str = field(init=False, default="")

    def feed(self, data: bytes) -> list[str]:
        """The pieces of text that became whole; none is empty.

        Raises:
            EvaluationError: no such stream, too much, an error that the provider reports, or an answer cut short.
        """
        pieces: list[str] = []
        for line in self._lines(data):
            if not self.is_whole and (piece := self._take(line)):
                pieces.append(piece)
        return pieces

    @property
    def is_finished(self) -> bool:
        """Whether the model said that it stopped. `[DONE]` may follow, or nothing; some providers say it early."""
        return self._finish == "stop"

    def end(self) -> list[str]:
        """The connection ended. The last piece, if the provider left out the empty line behind it.

        Raises:
            EvaluationError: the answer is not whole.
        """
        pieces = [piece for line in (bytes(self._line), b"") if (piece := self._take(line))]
        if not self.is_whole and not self.is_finished:
            raise EvaluationError("its answer ended half way")
        self.is_whole = True
        return pieces

    def _lines(self, data: bytes) -> list[bytes]:
        if not data:
            return []
        begin = int(self._after_cr and data.startswith(b"\n"))
        self._after_cr = data.endswith(b"\r")
        data = data[begin:]
        *lines, rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if lines:
            lines[0] = bytes(self._line) + lines[0]
            self._line.clear()
        self._line += rest
        if max(len(self._line), *map(len, lines), 0) > LINE_MAX_BYTES:
            raise EvaluationError(f"it sent a line of over {LINE_MAX_BYTES} bytes")
        return lines

    def _take(self, line: bytes) -> str:
        """One line; the text of the event that an empty line ends."""
        if self._first:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            self._first = False
        if not line:
            data, self._data, self._data_bytes = b"\n".join(self._data), [], 0
            return self._event(data) if data else ""
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._data_bytes += len(value) + 1
            if self._data_bytes > LINE_MAX_BYTES:
                raise EvaluationError(f"it sent an event of over {LINE_MAX_BYTES} bytes")
        return ""

    def _event(self, data: bytes) -> str:
        if data.strip() == b"[DONE]":
            self.is_whole = True
            return ""
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            raise _malformed(data) from None
        if isinstance(chunk, dict) and chunk.get("error"):
            error = EvaluationError("its provider reported an error half way")
            error.add_note(said(data))
            raise error
        try:
            text = self._text(chunk)
        except (TypeError, AttributeError, LookupError):
            raise _malformed(data) from None
        if self._finish not in (None, "stop"):
            raise EvaluationError(_CUT.get(self._finish or "", "its answer was cut off for a reason of its provider"))
        return text

    def _text(self, chunk: Any) -> str:
        choices = chunk["choices"]
        if not choices:  # usage and filter results come in chunks without one
            return ""
        choice = choices[0]
        content = (choice.get("delta") or {}).get("content")
        finish = choice.get("finish_reason")
        if not isinstance(content, str | None) or not isinstance(finish, str | None):
            raise TypeError
        # Kept once it is there: a chunk with the usage may follow.
        self._finish = finish.lower() if finish else self._finish
        return self._joined(content or "")

    def _joined(self, content: str) -> str:
        self._characters += len(content)
        if self._characters > ANSWER_MAX_CHARACTERS:
            raise EvaluationError(f"it answered more than {ANSWER_MAX_CHARACTERS} characters")
        if not content:
            return ""
        content = self._half + content
        self._half = content[-1] if "\ud800" <= content[-1] <= "\udbff" else ""
        content = content.removesuffix(self._half) if self._half else content
        return without_surrogates(content)


_CUT = {
    "length": "its answer was cut off at its length limit",
    "content_filter": "its answer was cut off by its provider's content filter",
}


def without_surrogates(text: str) -> str:
    """`text` with pairs joined and lone halves replaced: JSON can write them, UTF-8 cannot."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def said(body: bytes) -> str:
    """What a provider's error says, in a line for the log: its message if there is one, else its beginning."""
    text = body.decode(errors="replace")
    try:
        found = json.loads(body)
        found = found[0] if isinstance(found, list) and found else found
        error = found.get("error", found) if isinstance(found, dict) else None
        message = error.get("message") if isinstance(error, dict) else error
        text = message if isinstance(message, str) else text
    except (ValueError, RecursionError):
        pass
    return ascii(text)[1:-1][:_SAID_CHARACTERS]


def _malformed(data: bytes) -> EvaluationError:
    error = EvaluationError("it sent something that is no chat completion chunk")
    error.add_note(said(data))
    return error
