"""All rows: each is the `ROW` of a file of this folder."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path

from tests.faults.row import Row


def all_rows() -> Sequence[Row]:
    """In the order of their numbers."""
    names = [path.stem for path in Path(__file__).parent.glob("test_*.py")]
    modules = [importlib.import_module(f"tests.faults.{name}") for name in names]
    return sorted((module.ROW for module in modules if hasattr(module, "ROW")), key=lambda row: row.number)
