"""Demo events: something to look at before the first service publishes.

Laws: `DemoScript` is sans-I/O, and the same seed tells the same story; `publish_demo` only carries
it to Redis. Every event says that it is one: its `message` begins with `Demo:`.

Bounds: one pipeline of at most ten events a tick, two ticks a second; nothing is kept for a Redis
that is away, its events are left out.

Source of the events: the wire contract, "Events".
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

import structlog
import trio

from broker.timestamp import timestamp

if TYPE_CHECKING:
    from redis import Redis

_log = structlog.get_logger(__name__)

TICK_SECONDS = 0.5
DEMO_CHANNELS = (
    "video_render:demo",
    "job_progress:demo",
    "campaign_metrics:demo",
    "ab_test_results:demo",
    "live_metrics:demo",
    "alerts:demo",
)
_REDIS_SECONDS = 2.0

_FRAMES = 720
_RENDER_STAGES = (("preparing", 4), ("rendering", 30), ("encoding", 8), ("uploading", 4))
_RENDER_TICKS = sum(ticks for _, ticks in _RENDER_STAGES)
_RENDER_REST_TICKS = 10
_JOB_STAGES = ("fetching the brief", "writing variants", "scoring variants", "saving")
_JOB_EVERY_TICKS, _JOB_STEPS = 2, 20
_CAMPAIGN_EVERY_TICKS = 4
_AB_EVERY_TICKS = 6
_LIVE_EVERY_TICKS = 2
_ALERT_TICKS = (36, 44)
_LIVE_START = {"impressions": 48_000.0, "ctr": 0.021, "spend": 310.0}
_ALERTS = (
    ("info", "performance", "New best creative", "variant B overtook variant A", False),
    ("warning", "budget", "Budget nearly spent", "90 % of today's budget is spent", True),
    ("critical", "technical", "Landing page down", "the landing page answers 503", True),
    ("warning", "policy", "Creative under review", "a creative waits for a policy review", False),
)

Event = tuple[str, dict[str, object]]


class DemoScript:
    """What the demo publishes, tick by tick.

    Args:
        seed: equal seeds give equal events at equal ticks and times.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = Random(seed)
        self._impressions, self._clicks, self._conversions, self._spend = 20_000, 420, 31, 140.0
        self._variants = {"A": [4_000, 84, 6], "B": [4_000, 92, 7]}
        self._live = dict(_LIVE_START)
        self._next_alert = self._random.randint(*_ALERT_TICKS) // 4

    def events_at(self, tick: int, now: float) -> list[Event]:
        """The events of one tick, each with the channel that it goes to; often none.

        Args:
            tick: counts from 0, `TICK_SECONDS` apart; ask for each once, in rising order. The
                events of a tick that is left out are not made up for.
            now: seconds since 1970, for `timestamp` and `id`.
        """
        events: list[Event] = []
        events += self._render(tick)
        if tick % _JOB_EVERY_TICKS == 0:
            events += self._job(tick // _JOB_EVERY_TICKS)
        if tick % _CAMPAIGN_EVERY_TICKS == 0:
            events += self._campaign()
        if tick % _AB_EVERY_TICKS == 1:
            events += self._ab_test()
        if tick % _LIVE_EVERY_TICKS == 1:
            events += self._live_metrics()
        if tick >= self._next_alert:
            self._next_alert = tick + self._random.randint(*_ALERT_TICKS)
            events += self._alert(round(now * 1000))
        milliseconds = round(now * 1000)
        for number, (_, event) in enumerate(events):
            event["timestamp"] = timestamp(now)
            event["id"] = _id(event, milliseconds, number)
        return events

    def _render(self, tick: int) -> Iterator[Event]:
        step = tick % (_RENDER_TICKS + _RENDER_REST_TICKS)
        if step > _RENDER_TICKS:
            return
        stage = _render_stage(step)
        done = {"preparing": 0.0, "rendering": _within("rendering", step)}.get(stage, 1.0)
        frame = round(_FRAMES * done)
        fps = round(self._random.uniform(46, 50), 1) if stage == "rendering" else 0.0
        yield (
            "video_render:demo",
            {
                "type": "video_render_progress",
                "jobId": "demo",
                "currentFrame": frame,
                "totalFrames": _FRAMES,
                "progress": round(step / _RENDER_TICKS, 3),
                "fps": fps,
                "estimatedTimeRemaining": (_RENDER_TICKS - step) * TICK_SECONDS,
                "stage": stage,
                "message": f"Demo: {stage}, frame {frame} of {_FRAMES}",
            },
        )

    def _job(self, count: int) -> Iterator[Event]:
        step = count % (_JOB_STEPS + 1)
        status = "queued" if step == 0 else "completed" if step == _JOB_STEPS else "processing"
        stage = _JOB_STAGES[min(step * len(_JOB_STAGES) // _JOB_STEPS, len(_JOB_STAGES) - 1)]
        yield (
            "job_progress:demo",
            {
                "type": "job_progress",
                "jobId": "demo",
                "status": status,
                "stage": stage,
                "progress": step / _JOB_STEPS,
                "message": f"Demo: {status}, {stage}",
            },
        )

    def _campaign(self) -> Iterator[Event]:
        before = self._campaign_metrics()
        shown = self._random.randint(80, 260)
        clicked = sum(self._random.random() < 0.021 for _ in range(shown))
        self._impressions += shown
        self._clicks += clicked
        self._conversions += sum(self._random.random() < 0.08 for _ in range(clicked))
        self._spend += clicked * self._random.uniform(0.25, 0.45)
        metrics = self._campaign_metrics()
        yield (
            "campaign_metrics:demo",
            {
                "type": "campaign_metrics",
                "campaignId": "demo",
                "metrics": metrics,
                "change": {
                    name: round(metrics[name] - before[name], 5) for name in ("impressions", "clicks", "ctr", "spend")
                },
                "message": f"Demo: {shown} more impressions, {clicked} more clicks",
            },
        )

    def _campaign_metrics(self) -> dict[str, float]:
        return {
            "impressions": self._impressions,
            "clicks": self._clicks,
            "ctr": round(self._clicks / self._impressions, 5),
            "spend": round(self._spend, 2),
            "conversions": self._conversions,
            "roas": round(self._conversions * 14.0 / self._spend, 2),
        }

    def _ab_test(self) -> Iterator[Event]:
        for name, rate in (("A", 0.021), ("B", 0.025)):
            counts = self._variants[name]
            shown = self._random.randint(60, 120)
            clicked = sum(self._random.random() < rate for _ in range(shown))
            counts[0] += shown
            counts[1] += clicked
            counts[2] += sum(self._random.random() < 0.08 for _ in range(clicked))
        rates = {name: clicks / impressions for name, (impressions, clicks, _) in self._variants.items()}
        winner = max(rates, key=lambda name: rates[name])
        # Not statistics, only a number that grows with the difference and with what was shown.
        shown_in_all = sum(counts[0] for counts in self._variants.values())
        confidence = min(0.999, 0.5 + abs(rates["A"] - rates["B"]) * shown_in_all**0.5)
        for name, (impressions, clicks, conversions) in self._variants.items():
            yield (
                "ab_test_results:demo",
                {
                    "type": "ab_test_result",
                    "testId": "demo",
                    "variantId": name,
                    "metrics": {
                        "impressions": impressions,
                        "clicks": clicks,
                        "ctr": round(rates[name], 5),
                        "conversions": conversions,
                        "confidence": round(confidence, 3),
                    },
                    "isWinner": name == winner and confidence >= 0.95,
                    "statisticalSignificance": round(confidence, 3),
                    "message": f"Demo: variant {name}, {clicks} clicks of {impressions}",
                },
            )

    def _live_metrics(self) -> Iterator[Event]:
        metric = self._random.choice(list(self._live))
        before = self._live[metric]
        # Back towards where it began, so that a demo of days does not drift out of sight.
        pull = 0.01 * (_LIVE_START[metric] - before)
        after = round(before + pull + before * self._random.uniform(-0.02, 0.02), 5)
        self._live[metric] = after
        delta = round(after - before, 5)
        yield (
            "live_metrics:demo",
            {
                "type": "live_metric_update",
                "entityId": "demo",
                "entityType": "campaign",
                "metric": metric,
                "value": after,
                "delta": delta,
                "deltaPercent": round(100 * delta / before, 2),
                "message": f"Demo: {metric} is {after:g}",
            },
        )

    def _alert(self, milliseconds: int) -> Iterator[Event]:
        severity, category, title, text, action_required = self._random.choice(_ALERTS)
        yield (
            "alerts:demo",
            {
                "type": "alert",
                "alertId": f"alert_{milliseconds}",
                "severity": severity,
                "category": category,
                "title": title,
                "message": f"Demo: {text}",
                "entityId": "demo",
                "entityType": "campaign",
                "actionRequired": action_required,
            },
        )


def _id(event: dict[str, object], milliseconds: int, number: int) -> str:
    """The contract's form where it names one; elsewhere the type, and a number that keeps it unique."""
    if event["type"] == "job_progress":
        return f"job_{event['jobId']}_{milliseconds}"
    if event["type"] == "alert":
        return f"alert_{milliseconds}"
    return f"{event['type']}_demo_{milliseconds}_{number}"


def _render_stage(step: int) -> str:
    for stage, ticks in _RENDER_STAGES:
        if step < ticks:
            return stage
        step -= ticks
    return "complete"


def _within(wanted: str, step: int) -> float:
    """How far `step` is into a stage of the render, 0 to 1."""
    for stage, ticks in _RENDER_STAGES:
        if stage == wanted:
            return max(0.0, min(1.0, step / ticks))
        step -= ticks
    raise LookupError(wanted)


async def publish_demo(url: str, *, channel_prefix: str = "") -> None:
    """Publish the demo over a Redis connection of its own. Runs until cancelled.

    Args:
        url: the Redis that the daemon reads from; one that cannot be read as a URL is a ValueError.
        channel_prefix: put in front of the channels' names in Redis.

    A Redis that fails is logged once, at warning, until it answers again; the ticks in between are
    left out. Cancellation does not wait for Redis.
    """
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    # Without a retry of its own: it would hold back the next tick, and ours is the next tick.
    client = Redis.from_url(
        url, socket_timeout=_REDIS_SECONDS, socket_connect_timeout=_REDIS_SECONDS, retry=Retry(NoBackoff(), 0)
    )
    try:
        await _publish_ticks(client, channel_prefix)
    finally:
        client.close()


async def _publish_ticks(client: Redis, prefix: str) -> None:
    from redis import RedisError

    script = DemoScript()
    failing = False
    tick, due = 0, trio.current_time()
    while True:
        events = script.events_at(tick, time.time())
        try:
            await trio.to_thread.run_sync(_publish, client, prefix, events, abandon_on_cancel=True)
        except (RedisError, OSError) as error:
            if not failing:
                _log.warning("demo: Redis does not take the events; trying on", error=str(error))
            failing = True
        else:
            if failing:
                _log.info("demo: Redis takes the events again")
            failing = False
        tick += 1
        # After a stall the ticks go on from now; what was missed does not come in a burst.
        due = max(due + TICK_SECONDS, trio.current_time())
        await trio.sleep_until(due)


def _publish(client: Redis, prefix: str, events: list[Event]) -> None:
    """One pipeline. Waits for Redis, in a thread."""
    if not events:
        return
    with client.pipeline(transaction=False) as pipeline:
        for channel, event in events:
            pipeline.publish(prefix + channel, json.dumps(event, separators=(",", ":")))
        pipeline.execute()
