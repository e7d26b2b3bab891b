"""Sheets: figures as tables and words, on a terminal, in a pipe, and where there is little room.

Laws: what a daemon tells never commands a terminal (`cell`); without a terminal there are no colours and no cut
lines; a figure that is not there is `-`, never 0.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from attrs import frozen

from broker.cli.sub import escaped

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

NOTHING = "-"
PIPE_COLUMNS = 200
_BYTES = ("B", "KB", "MB", "GB", "TB")
_COUNTS = ("", "k", "M", "G", "T")


@frozen
class Column:
    """A column of a table.

    Args:
        is_number: it stands on the right.
        least: columns of the terminal below which it is left out.
    """

    title: str
    is_number: bool = False
    least: int = 0


def open_console() -> Console:
    """Standard output, as wide as the terminal; in a pipe so wide that nothing is cut."""
    from rich.console import Console

    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else max(PIPE_COLUMNS, int(os.environ.get("COLUMNS", 0)))
    return Console(
        width=width,
        no_color=not is_terminal or bool(os.environ.get("NO_COLOR")),
        force_terminal=is_terminal,
        highlight=False,
        markup=False,
        emoji=False,
    )


def make_table(columns: Sequence[Column], rows: Iterable[Sequence[str]], width: int, *, sorted_by: str = "") -> Table:
    """A table without lines, a row a line. `rows` have a cell for every column, shown or not."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_edge=False)
    shown = [index for index, column in enumerate(columns) if width >= column.least]
    for index in shown:
        column = columns[index]
        table.add_column(
            f"{column.title}*" if column.title == sorted_by else column.title,
            justify="right" if column.is_number else "left",
            no_wrap=True,
            overflow="ellipsis",
        )
    for row in rows:
        table.add_row(*(cell(row[index]) for index in shown))
    return table


def cell(text: str, style: str = "") -> Text:
    """Text as it is: no markup, and nothing that a terminal obeys."""
    from rich.text import Text

    return Text(escaped(text), style=style, no_wrap=True, overflow="ellipsis")


def count(value: object) -> str:
    """A whole number, in groups of three."""
    return f"{value:,}".replace(",", " ") if _is_number(value) and isinstance(value, int) else NOTHING


def short(value: object) -> str:
    """A number in at most five characters, such as 12.3k."""
    return _scaled(float(value), 1000.0, _COUNTS, "") if _is_number(value) else NOTHING  # type: ignore[arg-type]


def size(value: object) -> str:
    """Bytes, such as 1.2 MB (of 1024)."""
    return _scaled(float(value), 1024.0, _BYTES, " ") if _is_number(value) else NOTHING  # type: ignore[arg-type]


def duration(seconds: object) -> str:
    """Such as 350 us, 1.2 ms, 12 s, 3 min, 5 h, 2 d."""
    if not _is_number(seconds):
        return NOTHING
    value = float(seconds)  # type: ignore[arg-type]
    for unit, least in (("d", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if value >= least:
            found = value / least
            return f"{found:.1f} {unit}" if found < 10 and unit in ("s", "ms") else f"{found:.0f} {unit}"
    return f"{max(0.0, value) * 1e6:.0f} us"


def ago(timestamp: object, now: datetime | None = None) -> str:
    """How long ago an ISO time was, by this machine's clock."""
    try:
        then = datetime.fromisoformat(str(timestamp))
        seconds = ((now or datetime.now().astimezone()) - then).total_seconds()
    except (ValueError, TypeError):
        return NOTHING
    return duration(max(0.0, seconds)) if seconds >= 0.001 else "0 s"


def text_of(value: object) -> str:
    """A figure, whatever it is, in a cell."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def inside(value: object, *path: str) -> Any:
    """What stands at a path in JSON; None where there is no such thing: another version has other figures."""
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _scaled(value: float, step: float, units: Sequence[str], gap: str) -> str:
    unit = 0
    while abs(value) >= step and unit < len(units) - 1:
        value, unit = value / step, unit + 1
    digits = 0 if abs(value) >= 100 or value == int(value) else 1
    return f"{value:.{digits}f}{gap}{units[unit]}"
