"""docs/events.md says what is so: its code runs, its comments are what comes out, its errors are the errors."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import broker.events
from broker.errors import EventError
from broker.events import Heartbeat, JobProgress, decode
from tests.events.examples import BY_TYPE, STAMP

TEXT = (Path(__file__).parents[2] / "docs" / "events.md").read_text()
BLOCKS = [re.sub(r"(?m)^    ", "", block) for block in re.findall(r"(?:(?:^    .*)?\n)+", TEXT, re.M) if block.strip()]
ROWS = re.findall(r"(?m)^\| `(.+)` \| `(.+)` \|$", TEXT)
JOB = "job_id='1', status='queued', stage='s', progress=0, message='m'"


@pytest.mark.parametrize("block", [block for block in BLOCKS if "import" in block])
def test_the_code_runs_and_its_comments_are_what_comes_out(block: str) -> None:
    names: dict[str, Any] = {}
    exec(block, names)
    for expression, comment in re.findall(r"(?m)^(event\.\S+)\s+# (.+)$", block):
        found = repr(eval(expression, names))
        shown, dots, _ = comment.partition(", ...")
        assert found.startswith(shown) if dots else found == shown


def test_there_is_code() -> None:
    assert len([block for block in BLOCKS if "import" in block]) == 3


@pytest.mark.parametrize(("code", "message"), [row for row in ROWS if ": " in row[1] or "must" in row[1]])
def test_the_errors_are_the_errors(code: str, message: str) -> None:
    names = {"JobProgress": JobProgress, "Heartbeat": Heartbeat, "decode": decode, "datetime": datetime}
    given = eval(f"dict({JOB})")
    changes = re.search(r"JobProgress\(\.\.\., (.*)\)", code)
    with pytest.raises(EventError) as caught:
        if changes:
            JobProgress(**given | eval(f"dict({changes[1]})", names))
        else:
            eval(code.replace("Heartbeat(...)", f"Heartbeat(server_time={STAMP!r})"), names)
    assert str(caught.value) == message


def test_the_table_has_every_class_and_its_channel() -> None:
    table = TEXT[TEXT.index("| Class |") : TEXT.index("`ai_stream`, `council_score`,")]
    named = set(re.findall(r"`([A-Z]\w+)`", table))
    classes = {name for name in broker.events.__all__ if name[0].isupper() and not name.isupper()}
    assert named == {name for name in classes if name not in ("Event", "EVENT_TYPES")}
    for name, channel in re.findall(r"(?m)^\| `(\w+)` \| `(.+?)` \|", table):
        (example,) = (each for each in BY_TYPE.values() if each.event_type.__name__ == name)
        assert example.build().channel == re.sub(r"<(\w+)>", r"{0.\1}", channel).format(example.build())
