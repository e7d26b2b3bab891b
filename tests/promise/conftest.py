"""What every promise is kept with: two daemons on one Redis, and clients that are gone before they are stopped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.actors import peers


@pytest.fixture(autouse=True)
def peers_leave_first(start_daemon: Any) -> Iterator[None]:
    yield
    peers.close_all()
