"""docs/examples/dashboard as a person sees it: built, on another origin than its daemon's, with the demo worker."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any

import pytest
import trio

from broker.evaluation import serve
from broker.evaluation.demo import MODELS, handlers
from tests.actors.chromium import Complaints, PageServer, axe_faults
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.browser.dashboard import app_server, build, prepare, run
from tests.evaluation.answers import Answers, request

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page

NOW = "2026-11-23T12:00:00.000Z"
TRANSCRIPT = "Tired of invoices? We read them, and fail perplexity."
VALUES = {"impressions": 20431, "clicks": 428, "ctr": 0.02095, "spend": 143.2, "conversions": 32.5, "roas": 3.1}
EMPTY = {
    "Campaign": "No numbers yet. They appear with the campaign's next event.",
    "Alerts": "No alerts. New ones appear here.",
    "Render": "Nothing is rendered yet. The first event of the job appears here.",
    "A/B test": "No results yet. They appear with the test's next event.",
    "Council": "Four models judge the script side by side. Nothing is evaluated yet.",
}


@pytest.fixture(scope="module")
def app_folder(tmp_path_factory: pytest.TempPathFactory, chromium: object) -> Path:
    """The app's sources, and the packages that they import."""
    folder = tmp_path_factory.mktemp("example") / "dashboard"
    prepare(folder)
    return folder


@pytest.fixture(scope="module")
def app(app_folder: Path) -> Iterator[PageServer]:
    """Where the app is; it is built by whoever knows its daemon."""
    server = app_server(app_folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def daemon(
    app: PageServer, app_folder: Path, module_redis: RedisServer, start_module_daemon: Callable[..., DaemonProcess]
) -> DaemonProcess:
    daemon = start_module_daemon(module_redis.url, "--listen-allowed-origins", app.origin)
    build(app_folder, daemon.url)
    return daemon


@pytest.fixture(scope="module")
def worker(module_redis: RedisServer) -> Iterator[None]:
    """What `broker evaluate --demo` runs, three times as fast; in a thread."""
    started: Queue[tuple[trio.CancelScope, trio.lowlevel.TrioToken]] = Queue()

    async def work() -> None:
        with trio.CancelScope() as scope:
            started.put((scope, trio.lowlevel.current_trio_token()))
            await serve(handlers(pace=0.3), module_redis.url)

    with ThreadPoolExecutor() as threads:
        working = threads.submit(trio.run, work)
        scope, token = started.get(timeout=10)
        yield
        trio.from_thread.run_sync(scope.cancel, trio_token=token)
        working.result(10)


@pytest.fixture
def open_app(
    app: PageServer, daemon: DaemonProcess, open_url: Callable[..., Page], new_context: Callable[..., BrowserContext]
) -> Callable[..., Page]:
    """Opens the app with things of a name of their own: `open_app("one", **playwright_options)`."""

    def open_named(name: str, **options: Any) -> Page:
        query = "&".join(f"{what}={name}" for what in ("campaign", "job", "test", "user"))
        page = open_url(f"{app.origin}/?{query}", context=new_context(locale="en-US", **options))
        page.get_by_text("live", exact=True).nth(3).wait_for()
        return page

    return open_named


def card(page: Page, title: str) -> Locator:
    return page.get_by_role("region", name=title, exact=True)


def shows(where: Locator, text: str) -> None:
    """Wait until it is there and can be seen."""
    where.get_by_text(text, exact=True).first.wait_for()


def publish(redis: RedisServer, channel: str, **event: Any) -> None:
    redis.publish(channel, json.dumps(event | {"timestamp": NOW}).encode())


def publish_variant(redis: RedisServer, name: str, variant: str, clicks: int, is_winner: bool) -> None:
    metrics = {"impressions": 4000, "clicks": clicks, "ctr": clicks / 4000, "conversions": 7, "confidence": 0.97}
    publish(
        redis,
        f"ab_test_results:{name}",
        type="ab_test_result",
        testId=name,
        variantId=variant,
        metrics=metrics,
        isWinner=is_winner,
        statisticalSignificance=0.97,
    )


def publish_campaign(redis: RedisServer, name: str, **changed: float) -> None:
    change = {"impressions": 131, "clicks": 3, "ctr": -0.00012, "spend": 1.2}
    values = VALUES | changed
    publish(redis, f"campaign_metrics:{name}", type="campaign_metrics", campaignId=name, metrics=values, change=change)


def publish_render(redis: RedisServer, name: str, stage: str, progress: float) -> None:
    publish(
        redis,
        f"video_render:{name}",
        type="video_render_progress",
        jobId=name,
        currentFrame=round(720 * progress),
        totalFrames=720,
        progress=progress,
        fps=47.25,
        estimatedTimeRemaining=83,
        stage=stage,
    )


def publish_alert(redis: RedisServer, name: str, number: int, **more: Any) -> None:
    publish(
        redis,
        f"alerts:{name}",
        type="alert",
        alertId=f"a{number}",
        severity="critical",
        category="technical",
        title=f"Page {number} down",
        message="<b>it answers 503</b>",
        actionRequired=True,
        **more,
    )


def test_types(app_folder: Path) -> None:
    """`npm run check` of the app."""
    run(app_folder, "tsc", "--noEmit")


def test_each_card_shows_what_is_published(open_app: Callable[..., Page], module_redis: RedisServer) -> None:
    page = open_app("one", viewport={"width": 1280, "height": 900})
    for title, text in EMPTY.items():
        shows(card(page, title), text)
    publish_campaign(module_redis, "one")
    publish_render(module_redis, "one", "rendering", 0.375)
    publish_variant(module_redis, "one", "A", 84, is_winner=False)
    publish_variant(module_redis, "one", "B", 121, is_winner=True)
    actions = [
        {"label": "Look", "action": "look", "url": "https://example.com/page"},
        {"label": "Run", "action": "run", "url": "javascript:alert(1)"},
    ]
    publish_alert(module_redis, "one", 1)
    publish_alert(module_redis, "one", 2, actions=actions)

    campaign = card(page, "Campaign")
    for text in ("20,431", "428", "2.10%", "$143.20", "32.5", "3.1", "+131", "+3", "−0.012 pp", "+$1.20"):
        shows(campaign, text)
    render = card(page, "Render")
    for text in ("38%", "1 min 23 s left", "Frame 270 of 720", "47.25 frames/s"):
        shows(render, text)
    assert render.locator("[aria-current=step]").inner_text() == "rendering"
    test = card(page, "A/B test")
    shows(test, "Variant B wins, 97.00% sure")
    assert test.get_by_role("row").all_inner_texts() == [
        "Variant\tShown\tClicks\tRate\tConversions",
        "A\t4,000\t84\t2.10%\t7",
        "Bwinner\t4,000\t121\t3.03%\t7",
    ]
    # Wilson's intervals at 95 %, as any table of statistics has them.
    assert test.get_by_role("img").get_attribute("aria-label") == (
        "Click-through rate by variant. A: 2.10%, likely 1.70% to 2.59%; B: 3.03%, likely 2.54% to 3.60%."
    )
    alerts = card(page, "Alerts")
    shows(alerts, "Page 2 down")
    assert alerts.get_by_role("heading", level=3).all_inner_texts() == ["Page 2 down", "Page 1 down"]
    shows(alerts, "<b>it answers 503</b>")
    links = alerts.get_by_role("link")
    assert [(link.inner_text(), link.get_attribute("href")) for link in links.all()] == [
        ("Look", "https://example.com/page")
    ]
    assert axe_faults(page) == []

    # By keyboard alone, and with an end of the stream.
    alerts.get_by_role("button", name="Dismiss: Page 2 down").press("Enter")
    alerts.get_by_role("link").wait_for(state="detached")
    assert alerts.get_by_role("heading", level=3).all_inner_texts() == ["Page 1 down"]
    alerts.get_by_role("button", name="Clear").press("Space")
    shows(alerts, EMPTY["Alerts"])
    publish_render(module_redis, "one", "complete", 1)
    shows(render, "finished")
    publish_render(module_redis, "one", "preparing", 0)
    render.get_by_role("button", name="Watch again").click()
    shows(render, "0%")
    campaign.get_by_role("button", name="Pause").press("Enter")
    shows(campaign, "paused")
    publish_campaign(module_redis, "one", impressions=20562)
    campaign.get_by_role("button", name="Go on").press("Enter")
    shows(campaign, "20,562")


def test_a_council_is_seen_thinking_and_goes_on_over_a_reload(open_app: Callable[..., Page], worker: object) -> None:
    page = open_app("two", viewport={"width": 360, "height": 740}, color_scheme="dark")
    council = card(page, "Council")
    council.get_by_label("Transcript").fill(TRANSCRIPT)
    council.get_by_label("Video").press("Enter")
    council.get_by_role("article").nth(3).wait_for()
    assert [each.get_attribute("aria-label") for each in council.get_by_role("article").all()] == list(MODELS)
    thoughts = council.get_by_role("region", name="What gemini thinks")
    thoughts.get_by_text("Demo: canned words").wait_for()
    said = thoughts.inner_text()

    page.reload()
    thoughts.get_by_text(said).wait_for()
    # Not in this thread, which has the browser's loop.
    with ThreadPoolExecutor() as threads:
        expected, answers = threads.submit(trio.run, _demo_council, TRANSCRIPT).result()
    composite = council.get_by_role("status", name="Final score")
    composite.wait_for(timeout=20_000)
    assert composite.inner_text().split()[0] == f"{expected['compositeScore']:.1f}"
    shows(council, "Without perplexity, which gave no verdict.")
    shows(council, "finished")
    for model, score in [(each["model"], each["score"]) for each in expected["scores"]]:
        member = council.get_by_role("article", name=model)
        assert member.get_by_role("status").inner_text() == str(score)
        thinking = "".join(event.get("thinking", "") for event in answers.of(model))
        assert member.get_by_role("region").inner_text() == thinking.strip()
    shows(council.get_by_role("article", name="perplexity"), "Demo: the text says `fail perplexity`")
    assert axe_faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360

    # Nothing is left of it: another reload begins with nothing.
    page.reload()
    shows(council, EMPTY["Council"])
    council.get_by_role("button", name="Evaluate").click()
    thoughts.get_by_text("Demo: canned words").wait_for()
    council.get_by_role("button", name="Stop").press("Enter")
    shows(council, "stopped")
    assert page.evaluate("sessionStorage.getItem('broker.evaluations')") is None


async def _demo_council(transcript: str) -> tuple[Any, Answers]:
    answers = Answers()
    sent = {"videoUrl": "https://example.com/videos/spring.mp4", "transcript": transcript}
    return await handlers(pace=0)["council_score"](request("council_score", **sent), answers), answers


def test_what_goes_wrong_is_said_in_each_card(
    open_app: Callable[..., Page], daemon: DaemonProcess, module_redis: RedisServer, complaints: Complaints
) -> None:
    complaints.expected += ["ERR_CONNECTION_REFUSED", "WebSocket connection to .* failed"]
    page = open_app("three")
    publish_campaign(module_redis, "three")
    shows(card(page, "Campaign"), "20,431")
    daemon.stop()
    for title in ("Campaign", "Alerts", "Render", "A/B test"):
        card(page, title).get_by_text("again in").wait_for()
        card(page, title).get_by_role("alert").wait_for()
    # Its history is gone when it comes back.
    with module_redis.client() as client:
        client.flushall()
    daemon.listen = f"127.0.0.1:{daemon.port}"
    daemon.start()
    # "Try again", where it has not done so by itself by now.
    page.evaluate("document.querySelector('.alerts [role=alert] button')?.click()")
    campaign = card(page, "Campaign")
    shows(campaign, "live")
    shows(campaign, "Events may be missing here (epoch changed).")
    campaign.get_by_role("button", name="Got it").click()
    campaign.get_by_role("button", name="Got it").wait_for(state="detached")
    assert page.get_by_role("alert").count() == 0
    publish_campaign(module_redis, "three", impressions=30000)
    shows(campaign, "30,000")
