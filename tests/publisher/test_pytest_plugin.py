"""The fixture `published_events`, in a pytest run of its own, as a user has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_CONFTEST = 'pytest_plugins = ["broker.publisher.pytest_plugin"]\n'

_TESTS = """
import asyncio
import pytest
import trio
from broker.errors import PublishError
from broker.publisher import AsyncPublisher, Publisher, RecordingPublisher, TrioPublisher

# Made before the fixture, with a Redis that is not there.
sync = Publisher("redis://127.0.0.1:1/0")
asynchronous = AsyncPublisher("redis://127.0.0.1:1/0")
of_trio = TrioPublisher("redis://127.0.0.1:1/0")


def business():
    with sync.job("42") as job:
        for n in range(5):
            job.progress(n / 10, "rendering")
    sync.publish("alerts:ops", {"type": "alert", "title": "x", "timestamp": "now"})


def test_before():
    assert sync.publish("a", "1") is False


def test_sync(published_events):
    business()
    assert published_events.types == ["job_progress"] * 7 + ["alert"]
    assert published_events.channels == ["job_progress:42"] * 7 + ["alerts:ops"]
    assert published_events.on("alerts:ops") == [{"type": "alert", "title": "x", "timestamp": "now"}]
    assert [event["progress"] for event in published_events.on("job_progress:42")] == [0, 0, 0.1, 0.2, 0.3, 0.4, 1]
    assert published_events[-1].payload == b'{"type":"alert","title":"x","timestamp":"now"}'
    assert [event.channel for event in published_events[6:]] == ["job_progress:42", "alerts:ops"]
    published_events.clear()
    assert not published_events


def test_each_test_has_its_own(published_events):
    assert list(published_events) == []


def test_async_and_trio(published_events):
    async def main(publisher):
        assert await publisher.publish("a", "1", confirm=True) == 1
        async with publisher.job("42") as job:
            await job.progress(0.5)
            await job.progress(0.6)
    asyncio.run(main(asynchronous))
    trio.run(main, of_trio)
    assert published_events.channels == (["a"] + ["job_progress:42"] * 4) * 2


def test_failing(published_events):
    published_events.fail("the disk is full")
    with pytest.raises(PublishError, match="^a: the disk is full$"):
        sync.publish("a", "1", confirm=True)
    assert sync.publish("a", "1") is False
    published_events.recover()
    assert sync.publish("a", "1") is True
    assert len(published_events) == 1


def test_a_recording_publisher_keeps_its_own(published_events):
    recording = RecordingPublisher(receivers=3)
    assert recording.publish("a", "1", confirm=True) == 3
    assert (len(recording.published), len(published_events)) == (1, 0)
    recording.published.fail()
    assert recording.publish("a", "1") is False
    recording.published.recover()
    assert recording.publish("a", "1") is True


def test_after():
    assert sync.publish("a", "1") is False
"""


def test_the_fixture_in_a_project_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(_CONFTEST)
    (tmp_path / "test_theirs.py").write_text(_TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        cwd=tmp_path,
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "7 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
