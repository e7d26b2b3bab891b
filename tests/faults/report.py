"""What the suite tells: a line for each row, a JSON document, and the table in `docs/reliability.md`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.faults.row import BROKEN, SKIPPED, Outcome

MARK = "<!-- generated: fault suite -->"


def line(outcome: Outcome) -> str:
    """What a person reads while the suite runs: promise, figure to reach, figures measured, verdict."""
    text = (
        f"{outcome.number:>2} {outcome.verdict:<7} {outcome.seconds:6.1f} s  {outcome.promise}\n"
        f"   to reach: {outcome.figure}\n   measured: {outcome.figures()}"
    )
    if outcome.note:
        text += f"\n   note:     {outcome.note}"
    if outcome.verdict == BROKEN:
        text += f"\n   again:    {outcome.again}"
    return "\n".join((text, *(f"   WRONG:    {fault}" for fault in outcome.faults)))


def document(outcomes: Sequence[Outcome], machine: dict[str, Any]) -> str:
    """The machine-readable copy. `outcomes` and `machine` (Python, Redis, processors, when, and how long all took)."""
    return json.dumps({"machine": machine, "rows": [each.as_json() for each in outcomes]}, indent=1) + "\n"


def table(told: dict[str, Any]) -> str:
    """The rows of such a document as a Markdown table."""
    machine = told["machine"]
    lines = [
        f"`make faults` on {machine['date']}: {machine['processors']} processors, Python {machine['python']}, "
        f"{machine['redis']}; {machine['minutes']:.0f} minutes, commit {machine['commit']}.",
        "",
        "| # | Promise | How it is tried | To reach | Measured | |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in told["rows"]:
        measured = "; ".join(map(_figure, row["measured"])) if row["verdict"] != SKIPPED else ""
        measured = ". ".join(filter(None, (measured, row["note"]))) or "-"
        cells = (str(row["number"]), row["promise"], row["trial"], row["figure"], measured, row["verdict"])
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def _figure(each: dict[str, Any]) -> str:
    value = each["value"]
    shown = f"{int(value)}" if math.isfinite(value) and value == int(value) else f"{value:.3g}"
    return f"{each['what']} {shown}{' ' + each['unit'] if each['unit'] else ''}"


def write_table(told: dict[str, Any], page: Path) -> None:
    """Put the table behind the mark in a page, instead of what is there."""
    before, mark, _ = page.read_text().partition(MARK)
    assert mark, f"{page} has no line {MARK}"
    page.write_text(f"{before}{MARK}\n\n{table(told)}")
