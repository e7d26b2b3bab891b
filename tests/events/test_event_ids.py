"""Ids of events: never the same twice, whatever clock, threads and forks do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from broker.events import ids


def test_no_two_are_the_same_whatever_the_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([5000.0, 5000.0, 5000.0, 5000.001, 4000.0, 5000.001])
    monkeypatch.setattr(ids, "time", lambda: next(readings))
    monkeypatch.setattr(ids, "_millisecond", 0)
    assert [ids.unique_id("a") for _ in range(2)] == ["a_5000000", "a_5000000-2"]
    assert ids.unique_id("b") == "b_5000000"
    assert [ids.unique_id("a") for _ in range(3)] == ["a_5000001", "a_5000001-2", "a_5000001-3"]


def test_the_memory_of_one_millisecond_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "time", lambda: 5000.0)
    monkeypatch.setattr(ids, "_millisecond", 0)
    monkeypatch.setattr(ids, "_STEMS_MAX", 2)
    assert [ids.unique_id(stem) for stem in "abab"] == ["a_5000000", "b_5000000", "a_5000001", "b_5000001"]


def test_from_many_threads() -> None:
    given: list[str] = []

    def draw() -> None:
        given.extend([ids.unique_id("t") for _ in range(2000)])

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(given)) == 8000


def test_a_child_does_not_wait_for_a_thread_of_its_parent() -> None:
    code = (
        "import os, signal; from broker.events import ids\n"
        "ids._lock.acquire()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.alarm(5); ids.unique_id('a'); os._exit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout == "7\n"
