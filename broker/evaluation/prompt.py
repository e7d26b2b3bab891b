"""A prompt: what a model is told, with marked places for what the client sent.

A prompt file has two parts with a line `---` between them. Above it are the instructions (the system
message), below it what is to be judged (the user message). A place is a name in braces, `{transcript}`;
other braces are text, so a prompt can show JSON as it is.

Laws: a place is filled once, and what fills it is never looked at for places. Text of a client goes only
below the line, and only between two lines that carry a mark. The mark is drawn anew for every evaluation,
after the text is known, so that no text can hold the line that ends it.
Limit: a model reads such text all the same, and may do what it says. Nothing here prevents that; the
prompt says which lines are quoted, and the verdict is checked for its form and range only.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from attrs import field, frozen

PROMPT_MAX_BYTES = 65536

_PLACE = re.compile(r"\{([A-Za-z]+)\}")
_LINE = re.compile(r"^---[ \t]*$", re.MULTILINE)
_MARK = "mark"
_MARK_BYTES = 8


@frozen
class Places:
    """The places that a prompt may have.

    Args:
        required: quoted, and must be there.
        optional: quoted, and may be left out.
        words: filled with the worker's own words, so they may stand above the line too.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    @property
    def quoted(self) -> tuple[str, ...]:
        return (*self.required, *self.optional)


COUNCIL_PLACES = Places(required=("transcript",), optional=("videoUrl", "features"))
CREATIVE_PLACES = Places(required=("content",), optional=("creativeId",), words=("type",))


@frozen
class Prompt:
    """One prompt, checked. Make it with `parse` or `from_file`."""

    instructions: str = field(repr=False)
    matter: str = field(repr=False)
    places: Places

    @classmethod
    def from_file(cls, file: Path, places: Places) -> Prompt:
        """Read a file.

        Raises:
            ValueError: it cannot be read or is no such prompt; each of `args` is one problem, without the path.
        """
        try:
            with open(file, "rb") as stream:
                content = stream.read(PROMPT_MAX_BYTES + 1)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            why = error.strerror if isinstance(error, OSError) else "not a file's name"
            raise ValueError(f"cannot be read: {why}; paths are relative to the settings file") from None
        if len(content) > PROMPT_MAX_BYTES:
            raise ValueError(f"is over {PROMPT_MAX_BYTES} bytes; shorten it")
        try:
            return cls.parse(content.decode(), places)
        except UnicodeDecodeError:
            raise ValueError("is not UTF-8; save the file in that encoding") from None

    @classmethod
    def parse(cls, text: str, places: Places) -> Prompt:
        """Check a prompt's text.

        Raises:
            ValueError: each of `args` is one problem.
        """
        parts = _LINE.split(text.replace("\r\n", "\n"))
        if len(parts) != 2:
            raise ValueError(f"has {len(parts) - 1} lines of ---; write one, between the instructions and the matter")
        instructions, matter = (part.strip() for part in parts)
        above, below = set(_PLACE.findall(instructions)), set(_PLACE.findall(matter))
        known = {*places.quoted, *places.words, _MARK}
        problems = [
            f"{{{name}}} is not a place; the places are {', '.join(sorted(known))}"
            for name in sorted((above | below) - known)
        ]
        problems += [
            f"{{{name}}} is above the line ---; what clients send belongs below it"
            for name in sorted(above & set(places.quoted))
        ]
        problems += [f"has no {{{name}}} below the line ---" for name in places.required if name not in below]
        if not instructions:
            problems.append("has nothing above the line ---; write there what to judge, and how to answer")
        if problems:
            raise ValueError(*problems)
        return cls(instructions, matter, places)

    def fill(self, texts: Mapping[str, str], mark: str | None = None) -> list[dict[str, str]]:
        """The two messages of a chat.

        Args:
            texts: by place; one that is not there is told as not given.
            mark: what the lines around quoted text carry; None: a new one. Tests give their own.
        """
        mark = secrets.token_hex(_MARK_BYTES) if mark is None else mark

        def filled(match: re.Match[str]) -> str:
            name = match[1]
            if name == _MARK:
                return mark
            text = texts.get(name, "(not given)")
            return text if name in self.places.words else f"[begin {name} {mark}]\n{text}\n[end {name} {mark}]"

        return [
            {"role": "system", "content": _PLACE.sub(filled, self.instructions)},
            {"role": "user", "content": _PLACE.sub(filled, self.matter)},
        ]
