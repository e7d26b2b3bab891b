"""The demo: events as the contract has them, a render that ends once a run, a Redis that may fail."""

from __future__ import annotations

import itertools
import json
import socket
from collections import Counter

import pytest
import redis
import trio
from structlog.testing import capture_logs

from broker import demo
from broker.channel import Channel
from broker.config.sections import Embedded
from broker.demo import TICK_SECONDS, DemoScript, publish_demo
from broker.upstream.embedded import open_embedded

_NOW = 1_700_000_000.0
_TICKS = 2000

# Each channel's event type and its fields besides type, timestamp, id and message.
_CONTRACT = {
    "job_progress:demo": ("job_progress", {"jobId", "status", "stage", "progress"}),
    "video_render:demo": (
        "video_render_progress",
        {"jobId", "currentFrame", "totalFrames", "progress", "fps", "estimatedTimeRemaining", "stage"},
    ),
    "campaign_metrics:demo": ("campaign_metrics", {"campaignId", "metrics", "change"}),
    "ab_test_results:demo": (
        "ab_test_result",
        {"testId", "variantId", "metrics", "isWinner", "statisticalSignificance"},
    ),
    "alerts:demo": (
        "alert",
        {"alertId", "severity", "category", "title", "entityId", "entityType", "actionRequired"},
    ),
    "live_metrics:demo": (
        "live_metric_update",
        {"entityId", "entityType", "metric", "value", "delta", "deltaPercent"},
    ),
}


def _story(ticks: int = _TICKS, seed: int = 0) -> list[tuple[int, str, dict]]:
    script = DemoScript(seed)
    return [
        (tick, channel, event)
        for tick in range(ticks)
        for channel, event in script.events_at(tick, _NOW + tick * TICK_SECONDS)
    ]


def test_every_event_is_as_the_contract_has_it() -> None:
    seen = set()
    for _, channel, event in _story():
        assert Channel.from_name(channel).name == channel
        kind, fields = _CONTRACT[channel]
        assert event["type"] == kind
        assert set(event) == fields | {"type", "timestamp", "id", "message"}
        assert event["message"].startswith("Demo: ")
        assert 0 <= event.get("progress", 0) <= 1
        assert event["timestamp"].endswith("Z")
        json.dumps(event, allow_nan=False)
        seen.add(channel)
    assert seen == set(_CONTRACT)


def test_enums_are_the_contracts() -> None:
    values: dict[tuple[str, str], set[str]] = {}
    for _, channel, event in _story():
        for name in ("status", "severity", "category", "entityType"):
            if name in event:
                values.setdefault((channel, name), set()).add(event[name])
    assert values[("job_progress:demo", "status")] == {"queued", "processing", "completed"}
    assert values[("alerts:demo", "severity")] == {"info", "warning", "critical"}
    assert values[("alerts:demo", "category")] == {"performance", "budget", "technical", "policy"}
    assert values[("live_metrics:demo", "entityType")] == {"campaign"}


def test_ids_are_unique_and_the_first_event_is_whole() -> None:
    story = _story()
    assert len({event["id"] for _, _, event in story}) == len(story)
    assert story[0] == (
        0,
        "video_render:demo",
        {
            "type": "video_render_progress",
            "jobId": "demo",
            "currentFrame": 0,
            "totalFrames": 720,
            "progress": 0.0,
            "fps": 0.0,
            "estimatedTimeRemaining": 23.0,
            "stage": "preparing",
            "message": "Demo: preparing, frame 0 of 720",
            "timestamp": "2023-11-14T22:13:20.000Z",
            "id": "video_render_progress_demo_1700000000000_0",
        },
    )


def test_a_render_completes_once_a_run_and_begins_again_after_5_seconds() -> None:
    stages = [(tick, event["stage"]) for tick, channel, event in _story() if channel == "video_render:demo"]
    order = [stages[0][1]]
    for _, stage in stages:
        if stage != order[-1]:
            order.append(stage)
    run = ["preparing", "rendering", "encoding", "uploading", "complete"]
    assert order == (run * (len(order) // 5 + 1))[: len(order)]
    assert len(order) > 50
    for (tick, stage), (following, next_stage) in itertools.pairwise(stages):
        if stage == "complete":
            assert next_stage == "preparing"
            assert (following - tick) * TICK_SECONDS == 5.0
        else:
            assert following == tick + 1


def test_a_render_never_goes_back_within_a_run() -> None:
    runs: list[list[dict]] = [[]]
    for _, channel, event in _story():
        if channel == "video_render:demo":
            runs[-1].append(event)
            if event["stage"] == "complete":
                runs.append([])
    for run in runs[:-1]:
        for name in ("progress", "currentFrame"):
            assert [event[name] for event in run] == sorted(event[name] for event in run)
        assert (run[-1]["progress"], run[-1]["currentFrame"], run[-1]["estimatedTimeRemaining"]) == (1.0, 720, 0.0)


def test_campaign_metrics_come_every_2_seconds_with_their_change() -> None:
    story = [(tick, event) for tick, channel, event in _story() if channel == "campaign_metrics:demo"]
    assert {(b - a) * TICK_SECONDS for (a, _), (b, _) in itertools.pairwise(story)} == {2.0}
    for (_, before), (_, after) in itertools.pairwise(story):
        assert set(after["metrics"]) == {"impressions", "clicks", "ctr", "spend", "conversions", "roas"}
        assert set(after["change"]) == {"impressions", "clicks", "ctr", "spend"}
        for name, change in after["change"].items():
            assert after["metrics"][name] - before["metrics"][name] == pytest.approx(change, abs=1e-4)


def test_alerts_come_about_every_20_seconds_and_the_first_sooner() -> None:
    ticks = [tick for tick, channel, _ in _story() if channel == "alerts:demo"]
    assert ticks[0] * TICK_SECONDS < 10
    gaps = [(b - a) * TICK_SECONDS for a, b in itertools.pairwise(ticks)]
    assert 18 <= min(gaps) <= max(gaps) <= 22


def test_an_ab_test_has_two_variants_and_at_most_one_winner() -> None:
    by_tick: dict[int, list[dict]] = {}
    for tick, channel, event in _story():
        if channel == "ab_test_results:demo":
            by_tick.setdefault(tick, []).append(event)
    winners = Counter()
    for pair in by_tick.values():
        assert [event["variantId"] for event in pair] == ["A", "B"]
        assert sum(event["isWinner"] for event in pair) <= 1
        winners.update(event["variantId"] for event in pair if event["isWinner"])
    assert winners["B"] > 0


def test_live_metrics_stay_in_sight_for_days() -> None:
    script = DemoScript()
    values: dict[str, list[float]] = {}
    for tick in range(200_000):
        if tick % 2:
            for _, event in script._live_metrics():
                values.setdefault(str(event["metric"]), []).append(float(str(event["value"])))
    for metric, start in (("impressions", 48_000.0), ("ctr", 0.021), ("spend", 310.0)):
        assert start / 3 < min(values[metric]) < max(values[metric]) < start * 3


def test_equal_seeds_tell_equal_stories() -> None:
    assert _story(200, seed=7) == _story(200, seed=7)
    assert _story(200, seed=7) != _story(200, seed=8)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _receive(url: str, pattern: str, wanted: int) -> list[tuple[str, dict]]:
    """The next `wanted` messages behind a pattern; fewer if they do not come in time."""
    received = []
    with redis.Redis.from_url(url) as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.psubscribe(pattern)
        for _ in range(200):
            message = pubsub.get_message(timeout=0.1)
            if message is not None:
                received.append((message["channel"].decode(), json.loads(message["data"])))
            if len(received) == wanted:
                break
    return received


async def test_the_demo_reaches_redis_behind_the_prefix() -> None:
    async with open_embedded(Embedded(port=_free_port())) as server, trio.open_nursery() as nursery:
        nursery.start_soon(lambda: publish_demo(server.url, channel_prefix="app."))
        received = await trio.to_thread.run_sync(_receive, server.service_url, "app.*", 4)
        nursery.cancel_scope.cancel()
    assert len(received) == 4
    for channel, event in received:
        assert event["type"] == _CONTRACT[channel.removeprefix("app.")][0]


async def test_a_redis_that_is_away_is_logged_once_a_burst_and_then_published_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = _free_port()
    tried = []
    publish = demo._publish
    monkeypatch.setattr(demo, "_publish", lambda *arguments: (tried.append(arguments), publish(*arguments)))
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish_demo, f"redis://127.0.0.1:{port}/0")
            with trio.fail_after(10):
                while len(tried) < 3:
                    await trio.sleep(0.01)
            async with open_embedded(Embedded(port=port)) as server:
                received = await trio.to_thread.run_sync(_receive, server.service_url, "*", 2)
                with trio.fail_after(10):
                    while len(logs) < 2:
                        await trio.sleep(0.01)
            with trio.fail_after(10):
                while len(logs) < 3:
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
    assert len(received) == 2
    assert [line["log_level"] for line in logs] == ["warning", "info", "warning"]


async def test_cancelling_does_not_wait_for_a_redis_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(publish_demo, f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
            # Accepted and never answered: the publisher is in the middle of its call now.
            connection, _ = await trio.to_thread.run_sync(silent.accept)
            started = trio.current_time()
            nursery.cancel_scope.cancel()
        assert trio.current_time() - started < 1
        connection.close()
