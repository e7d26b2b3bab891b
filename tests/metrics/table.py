"""Writes the table in `docs/metrics.md` anew: `python -m tests.metrics.table`."""

from __future__ import annotations

from pathlib import Path

from broker.metrics.metriclist import table

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
MARK = "<!-- from here on: python -m tests.metrics.table -->\n"


def document() -> str:
    """The document as it should be."""
    head, _, _ = DOCUMENT.read_text().partition(MARK)
    return f"{head}{MARK}\n" + "\n".join(table()) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(document())
