"""The keyboard: single keys from a terminal, while it is in our hands, and the terminal as it was afterwards.

    h c n   channels, clients, nodes        s   the next order
    /       filter; Enter takes it, Escape drops it
    p       stand still, and go on          q   leave; Ctrl-C too

Arrows and other keys that send several bytes are one key, which nobody uses.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ESCAPE, ENTER, RUBOUT, OTHER = "escape", "enter", "rubout", "other"
_NAMED = {"\r": ENTER, "\n": ENTER, "\x7f": RUBOUT, "\b": RUBOUT}


@contextmanager
def held_terminal() -> Iterator[int | None]:
    """Keys come one by one and are not shown. Yields the terminal's descriptor; None where there is none."""
    if not sys.stdin.isatty():
        yield None
        return
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def wait_keys(descriptor: int | None, wake: int, seconds: float) -> tuple[list[str], bool]:
    """Wait for keys or for a byte in `wake`, at most `seconds`. Returns the keys, and whether it was woken.

    Raises:
        EOFError: the terminal is gone.
    """
    watched = [wake] if descriptor is None else [wake, descriptor]
    ready, _, _ = select.select(watched, [], [], seconds)
    if wake in ready:
        os.read(wake, 4096)
    if descriptor is None or descriptor not in ready:
        return [], wake in ready
    data = os.read(descriptor, 1024)
    if not data:
        raise EOFError
    return keys_in(data), wake in ready


def keys_in(data: bytes) -> list[str]:
    """The keys in what came at once. An escape with something behind it is one key."""
    keys = []
    text = data.decode("utf-8", "replace")
    index = 0
    while index < len(text):
        letter = text[index]
        if letter == "\x1b":
            end = _sequence_end(text, index)
            keys.append(ESCAPE if end == index + 1 else OTHER)
            index = end
            continue
        keys.append(_NAMED.get(letter, letter if letter.isprintable() else OTHER))
        index += 1
    return keys


def _sequence_end(text: str, begin: int) -> int:
    """Where an escape sequence ends: CSI (ECMA-48, 5.4) up to its final byte, SS3 and Alt with one letter."""
    if begin + 1 >= len(text):
        return begin + 1
    if text[begin + 1] not in "[O":
        return begin + 2
    index = begin + 2
    while index < len(text) and not "@" <= text[index] <= "~":
        index += 1
    return min(index + 1, len(text))
