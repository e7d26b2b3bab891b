"""`broker evaluate` as a person starts it: beside a daemon, with models that the tests play."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from tests.actors.daemon_process import DaemonProcess
from tests.actors.forks import run_fork, start_fork
from tests.actors.model_server import PROSE, Call, ModelServer, open_model_server, verdict
from tests.actors.redis_server import RedisServer, free_port

ROOT = Path(__file__).parents[2]
BOUND_SECONDS = 15.0
KEYS = ("GEMINI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_KEY", "PERPLEXITY_API_KEY")


def environ(**variables: str) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    return {name: value for name, value in clean.items() if name not in ("REDIS_URL", *KEYS)} | variables


def config(tmp_path: Path, base_url: str, *changes: tuple[str, str]) -> Path:
    """tests/evaluation/evaluators.toml, pointed at a server of this test."""
    text = (ROOT / "tests" / "evaluation" / "evaluators.toml").read_text()
    for old, new in (("http://127.0.0.1:8765/v1", base_url), ("../../conf", str(ROOT / "conf")), *changes):
        assert old in text
        text = text.replace(old, new)
    file = tmp_path / "evaluators.toml"
    file.write_text(text)
    return file


def refusal(*arguments: str, **variables: str) -> tuple[int, str]:
    """Run `broker evaluate` that must end by itself. Returns its status and what it said on standard error."""
    done = run_fork("broker", ["evaluate", *arguments], environ=environ(**variables), timeout=BOUND_SECONDS)
    assert done.stdout == ""
    return done.returncode, done.stderr


@asynccontextmanager
async def worker(*arguments: str, **variables: str) -> AsyncIterator[list[str]]:
    """A worker that runs: what it printed before it did. It must end well by SIGTERM, and log no error."""
    with tempfile.TemporaryFile() as log:

        def errors() -> str:
            log.seek(0)
            return log.read().decode()

        process = start_fork("broker", ["evaluate", *arguments], environ=environ(**variables), stderr=log.fileno())
        assert process.stdout is not None
        with process.stdout as output:
            try:
                with trio.fail_after(BOUND_SECONDS):
                    printed = b""
                    while b"Ctrl-C ends it\n" not in printed:
                        await trio.lowlevel.wait_readable(output)
                        data = os.read(output.fileno(), 1 << 16)
                        assert data, errors()
                        printed += data
                yield printed.decode().splitlines()
            finally:
                process.terminate()
                with trio.CancelScope(shield=True), suppress(subprocess.TimeoutExpired):
                    await trio.to_thread.run_sync(process.wait, BOUND_SECONDS)
                process.kill()
        assert (process.returncode, '"level": "error"' in errors()) == (0, False), errors()


async def stream(url: str, path: str, parameters: dict[str, str]) -> list[tuple[str, dict[str, Any]]]:
    """The whole SSE stream: what each event is called, and its data less the timestamp."""
    found: list[tuple[str, dict[str, Any]]] = []
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{url}{path}", params=parameters, timeout=BOUND_SECONDS)
    assert answer.status_code == 200
    for block in answer.text.split("\n\n"):
        fields = [line.partition(": ")[::2] for line in block.split("\n")]
        data = "\n".join(value for name, value in fields if name == "data")
        if data:
            seen = json.loads(data)
            del seen["timestamp"]
            found.append((dict(fields).get("event", "message"), seen))
    return found


@pytest.fixture
async def models() -> AsyncIterator[ModelServer]:
    async with open_model_server() as server:
        yield server


async def test_a_whole_council_streams_to_a_client(
    tmp_path: Path, redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess], models: ModelServer
) -> None:
    daemon = await trio.to_thread.run_sync(lambda: start_daemon(redis_server.url, "--redis-channel-prefix", "app."))
    settings = tmp_path / "broker.toml"
    settings.write_text(f'[redis]\nurl = "{redis_server.url}"\nchannel_prefix = "app."\n')
    file = config(tmp_path, models.base_url, ('"slow"', '"key"'))
    async with worker("--config", str(file), "--settings", str(settings)) as lines:
        assert lines == [
            f"gemini      well at {models.base_url}: needs no key",
            f"claude      key at {models.base_url}: needs no key",
            f"gpt4        bytewise at {models.base_url}: needs no key",
            f"perplexity  half at {models.base_url}: needs no key",
            f"evaluates, with {redis_server.url}; Ctrl-C ends it",
        ]
        sent = {"videoUrl": "https://v/1", "transcript": "Tired?", "features": '{"cuts": 3}'}
        council = await stream(daemon.url, "/api/stream/council-score", sent)
        creative = await stream(daemon.url, "/api/stream/evaluate-creative", {"creativeId": "c1", "content": "Buy."})
    events = [data for name, data in council if name == "message" and data["type"] == "council_score_stream"]
    assert "".join(one.get("thinking", "") for one in events if one["stage"] == "gemini") == "".join(PROSE) + "\n\n"
    assert [one["error"] for one in events if "error" in one] in (
        ["its provider refused the key (HTTP 401)", "the connection broke"],
        ["the connection broke", "its provider refused the key (HTTP 401)"],
    )
    assert [one["stage"] for one in events[-2:]] == ["aggregating", "complete"]
    name, last = council[-1]
    assert name == "complete"
    assert last["type"] == "complete"
    assert last["data"] == {
        "scores": [
            {"model": "gemini", "score": 72, "reasoning": "Good hook."},
            {"model": "gpt4", "score": 72, "reasoning": "Für 漢字 😀"},
        ],
        "compositeScore": 72,
        "failed": [
            {"model": "claude", "error": "its provider refused the key (HTTP 401)"},
            {"model": "perplexity", "error": "the connection broke"},
        ],
    }
    assert '{"cuts": 3}' in models.calls[0].body["messages"][1]["content"]
    name, last = creative[-1]
    assert (name, last["error"]) == (
        "error",
        "no model answered (perplexity: the connection broke; claude: its provider refused the key (HTTP 401))",
    )


async def test_the_keys_that_are_there_are_said_and_never_shown(
    tmp_path: Path, redis_server: RedisServer, models: ModelServer
) -> None:
    file = ROOT / "conf" / "evaluators.toml"
    async with worker("--config", str(file), "--redis", redis_server.url, OPENAI_API_KEY="sk-hunter2") as lines:
        assert [line.partition(": ")[2] for line in lines[:5]] == [
            "it has no key; set GEMINI_API_KEY",
            "it has no key; set ANTHROPIC_API_KEY",
            "key from OPENAI_API_KEY",
            "it has no key; set PERPLEXITY_API_KEY",
            "1 of the council's models can be asked, quorum is 2: every council evaluation will end in an error",
        ]
    assert "hunter2" not in "".join(lines)


def test_without_any_key_it_does_not_start() -> None:
    assert refusal("--config", str(ROOT / "conf" / "evaluators.toml")) == (
        1,
        f"broker: environment: no model has its key; set at least one of {', '.join(KEYS)}\n",
    )


def test_every_problem_is_a_line(tmp_path: Path) -> None:
    file = config(tmp_path, "ftp://h", ("quorum = 2", "quorum = 9"))
    broken = [
        f"{file}: models.{name}.base_url: is not an http or https URL such as https://api.openai.com/v1"
        for name in ("gemini", "claude", "gpt4", "perplexity")
    ]
    assert refusal("--config", str(file), "--redis", "http://x") == (
        1,
        "broker: flag --redis: 'http://x' must start with redis://, rediss:// or unix://\n"
        + "\n".join([*broken, f"{file}: council.quorum: 9 is more than the 4 models of the council; lower it"])
        + "\n",
    )


def test_the_model_server_runs_for_a_person() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.actors.model_server", "0"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith("models on 127.0.0.1:")
        process.terminate()
        assert process.wait(BOUND_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def test_dev_evaluate_and_curl_stream_a_council_as_it_speaks(
    tmp_path: Path, start_daemon: Callable[..., DaemonProcess], models: ModelServer
) -> None:
    """What curl prints comes while a model still speaks, not when all is over."""
    go_on = trio.Event()

    async def held(call: Call) -> None:
        await call.start()
        await call.say(*PROSE)
        await go_on.wait()
        await call.say(verdict())
        await call.finish()

    models.scripts["held"] = held
    port = free_port()
    daemon = await trio.to_thread.run_sync(lambda: start_daemon(None, "--dev", "--embedded-port", str(port)))
    file = config(tmp_path, models.base_url, ('"slow"', '"held"'))
    url = f"{daemon.url}/api/stream/council-score?videoUrl=v&transcript=t"
    async with worker("--config", str(file), "--redis", f"redis://127.0.0.1:{port}/0"):
        async with trio.open_nursery() as nursery:
            curl = await nursery.start(
                partial(trio.run_process, ["curl", "-sN", "--max-time", "30", url], stdout=subprocess.PIPE)
            )
            printed = b""
            with trio.fail_after(BOUND_SECONDS):
                while json.dumps(PROSE[-1])[1:-1].encode() not in b"".join(
                    line for line in printed.split(b"\n") if b'"stage":"claude"' in line
                ):
                    printed += await curl.stdout.receive_some()
                assert b"event: complete" not in printed
                go_on.set()
                while data := await curl.stdout.receive_some():
                    printed += data
    *_, last = printed.decode().strip().split("\n\n")
    assert last.split("\n")[1] == "event: complete"
    assert [score["model"] for score in json.loads(last.partition("data: ")[2])["data"]["scores"]] == [
        "gemini",
        "claude",
        "gpt4",
    ]


async def test_who_leaves_ends_the_calls_to_the_models(
    tmp_path: Path, redis_server: RedisServer, start_daemon: Callable[..., DaemonProcess], models: ModelServer
) -> None:
    """So that no tokens are burnt for nobody."""
    daemon = await trio.to_thread.run_sync(lambda: start_daemon(redis_server.url, "--evaluations-grace-seconds", "1"))
    file = config(tmp_path, models.base_url, ('"slow"', '"forever"'))
    async with worker("--config", str(file), "--redis", redis_server.url):
        async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as browser:
            request = "GET /api/stream/council-score?videoUrl=v&transcript=t HTTP/1.1\r\nHost: localhost\r\n\r\n"
            await browser.send_all(request.encode())
            with trio.fail_after(BOUND_SECONDS):
                calls = await models.wait_calls(4)
            (call,) = [call for call in calls if call.model == "forever"]
            assert not call.disconnected.is_set()
        with trio.fail_after(1 + 2 + BOUND_SECONDS / 3):
            await call.disconnected.wait()
