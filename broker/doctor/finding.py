"""Findings: what one check came to, in words that a person can act on."""

from __future__ import annotations

from typing import Literal

from attrs import frozen

Verdict = Literal["ok", "fail", "skip"]


@frozen
class Finding:
    """What one check came to.

    Args:
        text: what was seen, or why it was not looked at.
        advice: what to do about it; empty unless it failed.
        milliseconds: how long it took, as the text says too; None where it failed, was left out or is not measured.
    """

    check: str
    verdict: Verdict
    text: str
    advice: str = ""
    milliseconds: float | None = None


class CheckSkipped(Exception):
    """What a check raises that cannot be made, which is nobody's fault. It never leaves the doctor."""


class CheckFailed(Exception):
    """What a check raises: what is wrong, and what to do. It never leaves the doctor."""

    def __init__(self, text: str, advice: str) -> None:
        super().__init__(text)
        self.text = text
        self.advice = advice
