"""Thinking and verdict, told apart while a model's answer streams in. Sans-I/O.

The prompt asks for prose first and for a JSON object in a ```json block at the end. The prose is what
watchers see; the verdict is not shown. A verdict opens with a brace and a quote, `{"`, with or without
a fence of backticks before it, wherever that stands in a line; it goes to its closing brace.

Laws: what may still become an opening is held back, so nothing of a verdict is shown, however the pieces
are cut. What turns out to be none is shown after all; with a verdict go only its fence and the blanks
behind it. An object with none of the verdict's names in it is prose. More than one verdict is an error:
the model may be quoting one that somebody put into the transcript. Text behind the verdict is prose.
Bounds: linear in what is fed, which `completion.py` bounds; at most 64 blank characters within an opening.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection

from attrs import define, field

from broker.errors import EvaluationError

_BLANK = r"[ \t\r\n]{0,64}"
_FENCE = rf"`{{3,16}}[ \t]{{0,16}}(?:json)?{_BLANK}"
_OPENING = re.compile(rf"(?:{_FENCE})?(?P<brace>\{{){_BLANK}\"", re.IGNORECASE)
# What ends the text so far and may become an opening.
_MAY_OPEN = re.compile(
    rf"(?:(?:{_FENCE})?\{{{_BLANK}|{_FENCE}|`{{3,16}}[ \t]{{0,16}}(?:j|js|jso)|`{{1,2}})\Z", re.IGNORECASE
)
_CLOSING = re.compile(r"[ \t\r\n]{0,64}(?P<fence>`{3,16})?[ \t\r\n]{0,64}")
_MAY_CLOSE = re.compile(r"[ \t\r\n]{0,64}`{0,16}[ \t\r\n]{0,64}")
_MARKS = re.compile(r'["{}\\]')


@define(eq=False)
class ThinkingStream:
    """One model's answer. Feed pieces, show what comes back, `end` it, then take `verdict`.

    Args:
        names: the names that a verdict may have.
    """

    _names: Collection[str]
    _buffer: str = field(init=False, default="")
    _verdicts: list[str] = field(init=False, factory=list)
    # Where in the buffer the verdict at hand begins (-1: none), how far it was looked at, and its state there.
    _brace: int = field(init=False, default=-1)
    _scanned: int = field(init=False, default=0)
    _depth: int = field(init=False, default=0)
    _in_string: bool = field(init=False, default=False)
    # Directly behind a verdict, where its fence closes.
    _behind: bool = field(init=False, default=False)

    def feed(self, piece: str) -> str:
        """The prose that is certain now; may be empty. Raises nothing."""
        self._buffer += piece
        shown: list[str] = []
        while self._step(shown):
            pass
        return "".join(shown)

    def end(self) -> str:
        """The rest of the prose."""
        rest, self._buffer = ("", self._buffer) if self._brace >= 0 else (self._buffer, "")
        return "" if self._behind and _MAY_CLOSE.fullmatch(rest) else rest

    def verdict(self) -> str:
        """The one verdict, as the model wrote it. Only after `end`.

        Raises:
            EvaluationError: there is none, it has no end, or there are several.
        """
        if self._brace >= 0:
            raise EvaluationError("its verdict has no end")
        if not self._verdicts:
            raise EvaluationError("it gave no verdict")
        if len(self._verdicts) > 1:
            raise EvaluationError(f"it gave {len(self._verdicts)} verdicts; one was asked for")
        return self._verdicts[0]

    def _step(self, shown: list[str]) -> bool:
        """Go on by one part of the buffer. Returns whether there may be more."""
        if self._brace >= 0:
            return self._scan(shown)
        if self._behind:
            if _MAY_CLOSE.fullmatch(self._buffer):
                return False
            closing = _CLOSING.match(self._buffer)
            assert closing is not None  # it matches the empty text
            self._buffer, self._behind = self._buffer[closing.end() :], False
        opening = _OPENING.search(self._buffer)
        if opening is None:
            held = _MAY_OPEN.search(self._buffer)
            cut = held.start() if held else len(self._buffer)
            shown.append(self._buffer[:cut])
            self._buffer = self._buffer[cut:]
            return False
        shown.append(self._buffer[: opening.start()])
        self._buffer = self._buffer[opening.start() :]
        self._brace = opening.start("brace") - opening.start()
        self._scanned, self._depth, self._in_string = self._brace, 0, False
        return True

    def _scan(self, shown: list[str]) -> bool:
        """Look for the closing brace. Returns whether it was found."""
        while mark := _MARKS.search(self._buffer, self._scanned):
            if mark[0] == "\\" and mark.end() == len(self._buffer):
                self._scanned = mark.start()  # what it stands before has not come yet
                return False
            self._scanned = mark.end() + (mark[0] == "\\")
            if mark[0] == '"':
                self._in_string = not self._in_string
            elif mark[0] != "\\" and not self._in_string:
                self._depth += 1 if mark[0] == "{" else -1
                if self._depth == 0:
                    self._close(shown)
                    return True
        self._scanned = len(self._buffer)
        return False

    def _close(self, shown: list[str]) -> None:
        found = self._buffer[self._brace : self._scanned]
        if _is_other(found, self._names):
            shown.append(self._buffer[: self._scanned])
        else:
            self._verdicts.append(found)
            self._behind = True
        self._buffer, self._brace = self._buffer[self._scanned :], -1


def _is_other(found: str, names: Collection[str]) -> bool:
    """Whether it is an object about something else. What is not JSON counts as a verdict, to be refused as one."""
    try:
        value = json.loads(found)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and not value.keys() & set(names)
