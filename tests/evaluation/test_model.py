"""One model over a real socket: what it says arrives, and every way to fail is an error in words, without the key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog
import trio
from trio.testing import MockClock

from broker.errors import EvaluationError
from broker.evaluation.model import Model, open_http
from broker.evaluation.settings import ModelSettings
from tests.actors.model_server import PROSE, Call, ModelServer, open_model_server, verdict
from tests.actors.redis_server import free_port

KEY = "sk-hunter2"
MESSAGES = [{"role": "system", "content": "a verdict, please"}, {"role": "user", "content": "x"}]


@pytest.fixture
def clock() -> MockClock:
    """Skips what is waited for; the threshold lets bytes on the loopback arrive first."""
    return MockClock(autojump_threshold=0.05)


@pytest.fixture
async def server() -> AsyncIterator[ModelServer]:
    async with open_model_server() as server:
        yield server


async def ask(base_url: str, name: str, key: str | None = KEY, **settings: Any) -> tuple[str, str]:
    """What was heard, and why it failed; the text is empty where it did not."""
    heard: list[str] = []

    async def hear(piece: str) -> None:
        await trio.lowlevel.checkpoint()
        heard.append(piece)

    async with open_http() as http:
        chosen = ModelSettings(base_url=base_url, model=name, key_env="MODEL_KEY", **settings)
        model = Model.from_environment(name, chosen, {"MODEL_KEY": key} if key is not None else {}, http)
        assert KEY not in repr(model)
        try:
            with structlog.testing.capture_logs() as log:
                await model.ask(MESSAGES, hear)
        except EvaluationError as error:
            assert [(line["event"], line["reason"]) for line in log] == [("model_failed", str(error))]
            assert KEY not in str(log) + str(error) + str(getattr(error, "__notes__", ""))
            return "".join(heard), str(error)
    assert log == []
    return "".join(heard), ""


async def test_what_is_asked_and_what_is_heard(server: ModelServer) -> None:
    assert await ask(server.base_url, "well", parameters={"temperature": 0.5}) == ("".join(PROSE) + verdict(), "")
    (call,) = server.calls
    assert call.body == {"temperature": 0.5, "model": "well", "messages": MESSAGES, "stream": True}
    wanted = {"authorization": f"Bearer {KEY}", "accept": "text/event-stream", "accept-encoding": "identity"}
    assert {name: call.headers[name] for name in wanted} == wanted


async def test_a_model_that_needs_no_key_is_sent_none(server: ModelServer) -> None:
    async def hear(piece: str) -> None:
        await trio.lowlevel.checkpoint()

    async with open_http() as http:
        settings = ModelSettings(base_url=server.base_url, model="well")
        await Model.from_environment("a", settings, {"": KEY}, http).ask(MESSAGES, hear)
    assert "authorization" not in server.calls[0].headers


@pytest.mark.parametrize(
    ("name", "heard", "why"),
    [
        ("bytewise", "Schön — 漢字 😀." + verdict(reasoning="Für 漢字 😀"), ""),
        ("undone", "".join(PROSE) + verdict(), ""),
        ("half", "".join(PROSE[:2]), "the connection broke"),
        ("short", "".join(PROSE[:2]), "its answer ended half way"),
        ("malformed", PROSE[0], "it sent something that is no chat completion chunk"),
        ("error", PROSE[0], "its provider reported an error half way"),
        ("cut", "".join(PROSE), "its answer was cut off at its length limit"),
        ("html", "", "its provider answered with something that is no event stream"),
        ("key", "", "its provider refused the key (HTTP 401)"),
        ("busy", "", "its provider allows no more requests now (HTTP 429)"),
        ("broken", "", "its provider failed (HTTP 500)"),
        ("mute", "", "it was silent for 60 s"),
        ("silent", PROSE[0], "it was silent for 60 s"),
        ("forever", "", "it did not finish within 120 s"),
    ],
)
async def test_how_a_call_ends(server: ModelServer, clock: MockClock, name: str, heard: str, why: str) -> None:
    # A silence is httpx's to measure, by trio's clock; a whole answer without an end is waited for 2 s.
    began = trio.current_time()
    assert await ask(server.base_url, name) == (heard, why)
    took = trio.current_time() - began
    seconds = {"mute": 60, "silent": 60, "forever": 120, "undone": 2}.get(name, 0)
    assert seconds <= took < seconds + 1.5


async def test_an_answer_without_end_is_bounded(server: ModelServer) -> None:
    heard, why = await ask(server.base_url, "endless")
    assert why == "it answered more than 131072 characters"
    assert len(heard) <= 131072
    await server.calls[0].disconnected.wait()


async def test_what_the_provider_says_is_in_the_log_only_and_without_the_key(server: ModelServer) -> None:
    found = []
    for name in ("broken", "busy", "key", "error"):
        with structlog.testing.capture_logs() as log:
            async with open_http() as http:
                settings = ModelSettings(base_url=server.base_url, model=name, key_env="K")
                with pytest.raises(EvaluationError):
                    await Model.from_environment(name, settings, {"K": KEY}, http).ask(MESSAGES, _deaf)
        found.append(log[0]["said"])
    assert found == [
        ["cannot work with Bearer ***"],
        ["Quota of organization org-1234 is used up"],
        [],
        ["overloaded, said the machine"],
    ]


async def _deaf(piece: str) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (None, "it has no key"),
        ("  \n", "it has no key"),
        (f"{KEY}\nx-header: 1", "its key is not usable"),
        (f"{KEY}é", "its key is not usable"),
    ],
)
async def test_without_a_usable_key_nothing_is_sent(server: ModelServer, key: str | None, why: str) -> None:
    assert await ask(server.base_url, "well", key) == ("", why)
    assert server.calls == []


async def test_spaces_around_a_key_are_not_the_key(server: ModelServer) -> None:
    assert (await ask(server.base_url, "well", f" {KEY}\n"))[1] == ""
    assert server.calls[0].headers["authorization"] == f"Bearer {KEY}"


async def test_nobody_listens() -> None:
    assert await ask(f"http://127.0.0.1:{free_port()}/v1", "well") == ("", "its provider cannot be reached")


async def test_a_redirect_is_not_followed(server: ModelServer) -> None:
    async def redirect(call: Call) -> None:
        await call.refuse(307, {"error": "elsewhere"})

    server.scripts["redirect"] = redirect
    assert await ask(server.base_url, "redirect") == ("", "its provider did not answer as asked (HTTP 307)")


async def test_a_deadline_does_not_cut_hearing(server: ModelServer, clock: MockClock) -> None:
    heard: list[str] = []

    async def slow(piece: str) -> None:
        await trio.sleep(50)
        heard.append(piece)

    async with open_http() as http:
        settings = ModelSettings(base_url=server.base_url, model="silent", timeout_seconds=10)
        with pytest.raises(EvaluationError) as caught:
            await Model.from_environment("a", settings, {}, http).ask(MESSAGES, slow)
    assert (heard, str(caught.value)) == ([PROSE[0]], "it did not finish within 10 s")


async def test_what_hearing_raises_is_not_the_models_fault(server: ModelServer) -> None:
    async def deaf(piece: str) -> None:
        raise trio.TooSlowError(piece)

    async with open_http() as http:
        settings = ModelSettings(base_url=server.base_url, model="silent")
        with pytest.raises(trio.TooSlowError, match=PROSE[0]):
            await Model.from_environment("a", settings, {}, http).ask(MESSAGES, deaf)


async def test_who_cancels_ends_the_connection(server: ModelServer) -> None:
    for name in ("mute", "silent"):
        async with open_http() as http, trio.open_nursery() as nursery:
            settings = ModelSettings(base_url=server.base_url, model=name)
            nursery.start_soon(Model.from_environment(name, settings, {}, http).ask, MESSAGES, _deaf)
            call = (await server.wait_calls(1)).pop()
            assert not call.disconnected.is_set()
            nursery.cancel_scope.cancel()
        with trio.fail_after(5):
            await call.disconnected.wait()
