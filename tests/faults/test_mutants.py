"""Each deliberate bug of `mutants` has its place in the code, as it is now."""

from __future__ import annotations

import pytest

from tests.faults.mutants import MUTANTS, ROOT, Mutant
from tests.faults.rows import all_rows


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_has_one_place_and_rows(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1
    assert set(mutant.rows) <= {row.number for row in all_rows()}
