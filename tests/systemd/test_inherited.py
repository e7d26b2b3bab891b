"""Which of the sockets that systemd hands over are taken, and what is said of the others."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

FD = "descriptor 3 (broker.socket) from systemd"
_TAKEN = [[3, True, False]]  # it was inheritable, and is not any more
CASES: dict[str, Any] = {
    "1=tcp": _TAKEN,
    "1=unix": _TAKEN,
    "0=tcp": [],
    "=tcp": [],
    "1=of_another": [],
    "1=datagram": f"{FD} is no stream socket; write ListenStream= in place of what is in the .socket unit",
    "1=packets": f"{FD} is no stream socket; write ListenStream= in place of what is in the .socket unit",
    "1=connection": f"{FD} is a connection and does not listen; write Accept=no into the .socket unit",
    "1=not_listening": f"{FD} is a connection and does not listen; write Accept=no into the .socket unit",
    "1=file": f"{FD} is no socket; write ListenStream= into the .socket unit, and nothing else",
    "1=nothing": f"{FD} is not open; there are fewer sockets than LISTEN_FDS says: "
    "start the daemon by its .socket unit",
    "-1=tcp": "LISTEN_FDS is '-1', which is no number of sockets; start the daemon by systemd",
    "many=tcp": "LISTEN_FDS is 'many', which is no number of sockets; start the daemon by systemd",
    "99999999=tcp": "LISTEN_FDS is '99999999', which is no number of sockets; start the daemon by systemd",
}


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.systemd.inheriting", *CASES, "2=short", "1=abstract"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    return dict(zip([*CASES, "2=short", "1=abstract"], map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_taken_or_told(case: str, answers: dict[str, Any]) -> None:
    assert answers[case] == [CASES[case], {"HOME": "/"}]


def test_the_second_of_which_there_is_none(answers: dict[str, Any]) -> None:
    """It has no name either."""
    told, environ = answers["2=short"]
    assert told == (
        "descriptor 4 from systemd is no socket; write ListenStream= into the .socket unit, and nothing else"
    )
    assert environ == {"HOME": "/"}


def test_an_abstract_name(answers: dict[str, Any]) -> None:
    told, environ = answers["1=abstract"]
    assert told.startswith(f"{FD} has no path but the name b'\\x00broker-test-")
    assert told.endswith("; write ListenStream= with a path, such as /run/broker.sock")
    assert environ == {"HOME": "/"}
