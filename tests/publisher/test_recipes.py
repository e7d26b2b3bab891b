"""Every code block of docs/publishing.md and of "Publish" in the README runs, against a real Redis or the daemon."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from broker.cli import group
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.publisher.surfaces import RedisEar

_PAGE = Path(__file__).parents[2] / "docs" / "publishing.md"
_README = _PAGE.parent.parent / "README.md"
_EMBEDDED_URL = "redis://127.0.0.1:6399/0"


def _blocks(heading: str, page: Path = _PAGE) -> list[str]:
    """The indented blocks under a heading, as a reader would paste them."""
    section = re.split(r"^#+ ", page.read_text(), flags=re.MULTILINE)
    [text] = [part for part in section if part.partition("\n")[0] == heading]
    found = re.findall(r"(?:(?<=\n\n)|\A)((?:    .*\n|\n)+)", text.partition("\n")[2])
    return [textwrap.dedent(block).strip("\n") + "\n" for block in found if block.strip()]


@pytest.fixture
def ear(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisEar]:
    """What a subscriber hears; publishers that are given no URL publish to the same Redis."""
    monkeypatch.setenv("BROKER_REDIS_URL", redis_server.url)
    monkeypatch.delenv("BROKER_REDIS_CHANNEL_PREFIX", raising=False)
    ear = RedisEar(redis_server.client())
    yield ear
    ear.close()


def _run(block: str, name: str = "recipe") -> ModuleType:
    """The recipe as a module that has been imported."""
    module = ModuleType(name)
    exec(compile(block, name, "exec"), module.__dict__)
    return module


def _heard(ear: RedisEar, count: int | None) -> list[tuple[str, Any]]:
    return [(channel, json.loads(payload)) for channel, payload in ear.hear(count)]


def test_every_block_of_the_page_is_run_here() -> None:
    headings = re.findall(r"^#+ (.*)$", _PAGE.read_text(), flags=re.MULTILINE)
    assert {heading: len(_blocks(heading)) for heading in headings if _blocks(heading)} == {
        "Publishing from Python": 1,
        "To a user": 1,
        "Progress of a job": 1,
        "In tests": 3,
        "redis-py alone": 1,
        "Any language": 1,
        "FastAPI": 1,
        "Django, after the commit": 1,
        "Celery": 1,
        "A shell script": 1,
        "curl": 2,
    }


def test_the_first_lines(ear: RedisEar) -> None:
    module = _run(*_blocks("Publishing from Python"))
    module.publisher.close()
    (first, job), (second, alert) = _heard(ear, 2)
    assert (first, job["type"], job["progress"]) == ("job_progress:42", "job_progress", 0.4)
    assert (second, alert["type"], alert["title"]) == ("alerts:user_7", "alert", "Budget spent")
    assert set(alert) == {"type", "title", "message", "timestamp"}


def test_to_a_user(ear: RedisEar) -> None:
    module = _run(*_blocks("To a user"))
    module.publisher.close()
    [(channel, message)] = _heard(ear, 1)
    assert (channel, message["user"], message["event"]["title"]) == ("broker:users", "user_7", "Budget spent")


def test_progress_of_a_job(ear: RedisEar) -> None:
    module = _run(*_blocks("Progress of a job"))
    module.publisher.close()
    events = [event for _, event in _heard(ear, None)]
    assert [(event["status"], event["progress"]) for event in (*events[:2], *events[-2:])] == [
        ("queued", 0),
        ("processing", 0),
        ("processing", 0.99),
        ("completed", 1),
    ]
    assert len(events) < 20


def test_in_tests(tmp_path: Path) -> None:
    recording, conftest, test = _blocks("In tests")
    _run(recording)
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_it.py").write_text(
        "from broker.publisher import Publisher\n"
        "publisher = Publisher()\n"
        "def approve_budget(campaign):\n"
        "    publisher.publish('alerts:user_7', {'type': 'alert', 'title': 'Budget spent'})\n\n" + test
    )
    environ = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_redis_py_alone(ear: RedisEar, redis_server: RedisServer) -> None:
    from broker.events import JobProgress, decode

    [block] = _blocks("redis-py alone")
    assert _EMBEDDED_URL in block
    module = _run(block.replace(_EMBEDDED_URL, redis_server.url))
    module.client.close()
    [(channel, payload)] = ear.hear(1)
    assert (channel, json.loads(payload)) == ("job_progress:42", module.event)
    # The recipe leaves the timestamp out; all else is a job's progress.
    event = decode(json.dumps({**module.event, "timestamp": "2026-01-31T12:00:00.000Z"}))
    assert isinstance(event, JobProgress)


_REDIS_CLI = """#!{python}
import sys, redis
_, flag, port, *command = sys.argv
assert (flag, port) == ("-p", "6399")
with redis.Redis.from_url({url!r}) as client:
    print(client.execute_command(*command))
"""


def test_any_language(ear: RedisEar, redis_server: RedisServer, tmp_path: Path) -> None:
    [script] = _blocks("Any language")
    # Few machines have a redis-cli, and it reaches this Redis.
    (tmp_path / "redis-cli").write_text(_REDIS_CLI.format(python=sys.executable, url=redis_server.url))
    (tmp_path / "redis-cli").chmod(0o755)
    environ = {**os.environ, "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-ec", script], env=environ, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")
    [(channel, message)] = ear.hear_stamped(1)
    assert channel == "job_progress:42"
    assert re.fullmatch(rb'\x01s:(\d+):1:\1 \{"type": "job_progress", .*\}', message)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:fastapi.*", "ignore::DeprecationWarning:starlette.*")
async def test_fastapi(ear: RedisEar) -> None:
    import asyncio

    import trio

    module = _run(*_blocks("FastAPI"))

    async def main() -> None:
        transport = httpx.ASGITransport(app=module.app)
        for _ in range(2):  # as a suite of tests starts it, again and again
            async with module.app.router.lifespan_context(module.app):
                async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                    answer = await client.post("/budgets/user_7")
                assert (answer.status_code, answer.json()) == (200, {"approved": True})
                assert module.app.state.publisher.statistics().published == 1

    await trio.to_thread.run_sync(asyncio.run, main())
    (channel, event), _ = _heard(ear, 2)
    assert (channel, event["title"]) == ("alerts:user_7", "Budget approved")


_DJANGO = """
import django
from django.conf import settings

settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
django.setup()

from django.db import connection, models, transaction


class Budget(models.Model):
    user_id = models.CharField(max_length=40)
    approved = models.BooleanField(default=False)

    class Meta:
        app_label = "recipe"


with connection.schema_editor() as editor:
    editor.create_model(Budget)

{recipe}

budget = Budget.objects.create(user_id="user_7")
try:
    with transaction.atomic():
        approve_budget(budget)
        raise LookupError
except LookupError:
    assert not Budget.objects.get().approved
assert publisher.statistics().published == 0
with transaction.atomic():
    approve_budget(budget)
    assert publisher.statistics().published == 0
assert Budget.objects.get().approved
assert publisher.statistics().published == 1
"""


def _run_apart(code: str) -> None:
    """Run in a process of its own: these frameworks keep settings for a whole process."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_django_publishes_after_the_commit_only(ear: RedisEar) -> None:
    [recipe] = _blocks("Django, after the commit")
    _run_apart(_DJANGO.replace("{recipe}", recipe))
    [(channel, event)] = _heard(ear, 1)
    assert (channel, event["title"]) == ("alerts:user_7", "Budget approved")


_CELERY = """
{recipe}
import logging, os
from celery.contrib.testing.worker import start_worker

logging.disable(logging.CRITICAL)
app.conf.result_backend = "cache+memory://"
app.conf.broker_transport_options = {"polling_interval": 0.01}
with start_worker(app, perform_ping_check=False, pool="solo"):
    assert render.apply_async((4,), task_id="task-1").get(timeout=10) is None
    failing = render.apply_async(("four",), task_id="task-2")
    assert isinstance(failing.get(timeout=10, propagate=False), TypeError)
    os._exit(0)  # the worker would take 4 s to stop
"""


def test_celery(ear: RedisEar) -> None:
    [recipe] = _blocks("Celery")
    _run_apart(_CELERY.replace("{recipe}", recipe))
    told: dict[str, list[tuple[str, float, str]]] = {}
    for channel, event in _heard(ear, None):
        told.setdefault(channel, []).append((event["status"], event["progress"], event["message"]))
    assert [each[:2] for each in told["job_progress:task-1"]] == [
        ("queued", 0),
        ("processing", 0),
        ("processing", 0.75),
        ("completed", 1),
    ]
    assert told["job_progress:task-2"] == [("queued", 0, ""), ("failed", 0, "failed: TypeError")]


def test_a_shell_script(ear: RedisEar, tmp_path: Path) -> None:
    [script] = _blocks("A shell script")
    (tmp_path / "broker").write_text(f'#!/bin/sh\nexec {sys.executable} -m broker "$@"\n')
    (tmp_path / "broker").chmod(0o755)
    environ = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", script], env=environ, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    *progress, to_user = _heard(ear, 5)
    assert [(channel, event["progress"]) for channel, event in progress] == [
        ("job_progress:42", progress) for progress in (0.5, 0.1, 0.2, 0.3)
    ]
    assert to_user == ("broker:users", {"user": "user_7", "event": {"type": "alert", "title": "Budget spent"}})


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]) -> None:
    ear = RedisEar(redis_server.client())
    daemon = start_daemon(redis_server.url)
    script, _ = _blocks("curl")
    assert "http://127.0.0.1:8000" in script
    script = script.replace("http://127.0.0.1:8000", daemon.url)
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    [(channel, event)] = _heard(ear, 1)
    assert (channel, event) == ("job_progress:42", {"type": "job_progress", "jobId": "42", "progress": 0.5})
    ear.close()


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl_with_an_api_key(redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess]) -> None:
    done = CliRunner().invoke(group, ["key", "create", "billing"])
    key, line = done.stdout.splitlines()[:2]
    [digest] = re.findall(r'publish_keys = \["(billing:[0-9a-f]+)"\]', line)
    ear = RedisEar(redis_server.client())
    daemon = start_daemon(redis_server.url, "--auth-publish-keys", digest)
    _, script = _blocks("curl")
    script = script.replace("http://127.0.0.1:8000", daemon.url)
    for shown, status in ((f"{key}x", 22), (key, 0)):
        environ = os.environ | {"BROKER_KEY": shown}
        done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, timeout=30, env=environ)
        assert done.returncode == status, done.stdout + done.stderr
    assert _heard(ear, 2) == [
        ("job_progress:42", {"type": "job_progress", "jobId": "42", "progress": 0.5}),
        ("broker:users", {"user": "user_7", "event": {"type": "alert", "title": "Budget spent"}}),
    ]
    ear.close()


def test_the_readme(ear: RedisEar, daemon: DaemonProcess) -> None:
    python, shell = _blocks("Publish", _README)
    _run(python).publisher.close()
    events = [event for _, event in _heard(ear, None)]
    assert [(event["status"], event["progress"]) for event in events] == [
        ("processing", 0.5),
        ("queued", 0),
        ("processing", 0.6),
        ("completed", 1),
    ]
    command = shell.replace("http://127.0.0.1:8000", daemon.url)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=20, check=True)
    assert json.loads(done.stdout) == {"published": 1}
    assert _heard(ear, 1) == [("job_progress:42", {"type": "job_progress", "progress": 0.5})]
