"""A target: a function that takes any bytes, and what to begin with."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen


@frozen
class Target:
    """What is fuzzed.

    Args:
        check: raises nothing, whatever bytes it gets, but AssertionError where a promise is broken. Returns what came
            of them in a word or two: an input with a new outcome is kept, and others are made of it.
        seeds: good inputs.
        words: of their grammar.
        outcomes: that a short run reaches, so that it is known to get somewhere.
    """

    name: str
    check: Callable[[bytes], str]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...] = ()
    outcomes: frozenset[str] = frozenset()
    max_bytes: int = 20_000
