"""The table of endings, and that the docs have the same one."""

from __future__ import annotations

from pathlib import Path

from broker import errorcode
from broker.ending import ENDINGS, Ending

DOCS = Path(__file__).resolve().parents[2] / "docs" / "endings.md"


def row(ending: Ending) -> str:
    cells = (
        f"`{ending.name}`",
        ending.code or "",
        ending.reason,
        "yes" if ending.reconnect else "no",
        ending.fault,
        ending.meaning,
    )
    return "| " + " | ".join(map(str, cells)) + " |"


def test_the_docs_have_this_table() -> None:
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| `") and line.count("|") == 7]
    assert rows == [row(ending) for ending in ENDINGS]


def test_names_are_unique_and_reasons_fit_a_close_frame() -> None:
    assert len({ending.name for ending in ENDINGS}) == len(ENDINGS)
    assert all(len(ending.reason.encode()) <= 123 for ending in ENDINGS)


def test_the_docs_name_every_error_code() -> None:
    codes = {value for name, value in vars(errorcode).items() if name.isupper() and isinstance(value, str)}
    text = DOCS.read_text()
    assert {code for code in codes if f"`{code}`" not in text} == set()
