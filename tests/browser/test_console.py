"""The console in a real browser: demo events, the form, what others publish, gaps and refusals as they happen.

One daemon with `--dev` and one page serve all tests here that do not break either. `look` has the page ask for its
figures now, so that no test waits for the next look.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from tests.actors.chromium import Chromium, Complaints, axe_faults
from tests.actors.daemon_process import DaemonProcess
from tests.actors.peers import wait_until
from tests.actors.redis_server import RedisServer
from tests.browser.console import Console

HOSTILE = "<img src=x onerror=document.title='taken'>"
FLAGS = ("--dev", "--clients-subscriptions-max", "20000", "--limits-commands-per-second", "100000")


@pytest.fixture(scope="module")
def dev_daemon(module_redis: RedisServer, start_module_daemon: Callable[..., DaemonProcess]) -> DaemonProcess:
    """Publishes the demo, and takes a client with many subscriptions."""
    return start_module_daemon(module_redis.url, *FLAGS)


@pytest.fixture(scope="module")
def shared(chromium: Chromium, dev_daemon: DaemonProcess) -> Iterator[tuple[Console, Complaints]]:
    """One page for the tests of this file."""
    context = chromium.new_context()
    complaints = Complaints()
    context.on("page", complaints.watch)
    page = context.new_page()
    page.goto(dev_daemon.url)
    yield Console(page), complaints
    context.close()


@pytest.fixture
def console(shared: tuple[Console, Complaints]) -> Iterator[Console]:
    """The shared page; it may complain of nothing, but that the daemon refused what a test had it publish."""
    console, complaints = shared
    complaints.expected = ["status of 400"]
    yield console
    assert complaints.unexpected() == []


def test_the_demo_is_seen_at_once(console: Console) -> None:
    console.wait_rows(channel="job_progress:demo", text="Demo: ")
    assert console.page.locator("#tail-channels .name").all_text_contents() == [
        "video_render:demo",
        "job_progress:demo",
        "campaign_metrics:demo",
        "ab_test_results:demo",
        "live_metrics:demo",
        "alerts:demo",
    ]
    assert console.text("#tail-state") == "live over WebSocket"
    assert (console.text("#state"), console.text("#redis-facts dd")) == ("healthy", "connected")
    # Two looks make a rate; the demo publishes some events a second.
    console.look("document.querySelectorAll('.chart .line')[0].getAttribute('d') !== ''")
    titles = console.page.locator(".chart .title").all_text_contents()
    assert titles == ["Messages in", "Deliveries out", "Bytes out", "Clients"]
    assert console.page.locator(".chart .now").nth(3).inner_text().split() == ["1", "WebSocket", "0", "SSE"]
    console.look_at_lists("document.querySelectorAll('#channels-table tbody tr').length === 6")
    assert sorted(console.column("#channels-table", 0))[:2] == ["ab_test_results:demo", "alerts:demo"]


def test_an_event_of_the_form_and_a_plain_one_are_in_the_tail(console: Console, module_redis: RedisServer) -> None:
    page = console.page
    assert page.locator("#publish-type option").all_text_contents()[:2] == ["job_progress", "video_render_progress"]
    page.fill("#field-jobId", "form")
    assert page.input_value("#publish-channel") == "job_progress:form"
    page.fill("#field-message", "from the form")
    page.click("#publish-form .primary")
    assert console.told("#publish-answer").startswith("Published on job_progress:form at ")
    [row] = console.wait_rows(channel="job_progress:form")
    assert row == "from the form · jobId form · status processing · stage testing · progress 0.5"

    module_redis.publish("job_progress:form", b'{"type":"job_progress","jobId":"form","message":"from redis-cli"}')
    assert console.wait_rows(channel="job_progress:form", text="from redis-cli") == ["from redis-cli · jobId form"]
    page.locator("#tail-rows details", has_text="from redis-cli").locator("summary").click()
    assert json.loads(page.locator("#tail-rows pre").inner_text()) == {
        "type": "job_progress",
        "jobId": "form",
        "message": "from redis-cli",
    }

    # An event with objects in it, as JSON, and a channel that the daemon does not take.
    page.select_option("#publish-type", "ab_test_result")
    page.fill("[id='field-metrics.clicks']", "7")
    page.check("#publish-as-json")
    event = json.loads(page.input_value("#publish-json"))
    assert (event["metrics"]["clicks"], event["isWinner"], sorted(event)) == (
        7,
        False,
        ["isWinner", "metrics", "statisticalSignificance", "testId", "type", "variantId"],
    )
    page.fill("#publish-json", '{"type": "ab_test_result", "big": 12345678901234567890}')
    page.fill("#publish-channel", "a:b:c:d")
    page.click("#publish-form .primary")
    assert console.told("#publish-answer", but="Published") == (
        "Not published, 400: $.channel: channel 'a:b:c:d' has 4 parts; write type, type:id or type:id:userId. "
        "Nothing was published; mend it and send all again."
    )
    console.look("document.querySelector('#happenings-rows')?.textContent.includes('refused publish400 no event')")
    assert "a:b:c:d" not in page.locator("#tail-channels .name").all_text_contents()


def test_what_others_wrote_stays_text(console: Console, module_redis: RedisServer, dev_daemon: DaemonProcess) -> None:
    page = console.page
    with follower(dev_daemon, "hostile:1", user=HOSTILE):
        console.follow("hostile:1")
        wait_until(lambda: subscribers_of(dev_daemon, "hostile:1") == 2)
        for payload in (HOSTILE, {"type": HOSTILE, HOSTILE: HOSTILE}, [HOSTILE], 7, None):
            module_redis.publish("hostile:1", json.dumps(payload).encode())
        page.wait_for_function("() => document.querySelectorAll('#tail-rows [title=\"hostile:1\"]').length === 5")
        assert console.rows(channel="hostile:1") == [
            "no typenull",
            "no type7",
            f'no type["{HOSTILE}"]',
            f"{HOSTILE[:40]}{HOSTILE} {HOSTILE}",
            f"text{HOSTILE}",
        ]
        for row in page.locator("#tail-rows details", has_text="hostile:1").all():
            row.locator("summary").click()
        console.follow(HOSTILE)
        page.wait_for_selector("#tail-channels .failed")
        assert page.locator("#tail-channels .failed .name").text_content() == HOSTILE
        console.look_at_lists(f"document.querySelector('#clients-table').textContent.includes({json.dumps(HOSTILE)})")
        page.click(f'#tail-channels button[aria-label="Stop following {HOSTILE}"]')
    assert (page.locator("img").count(), page.title()) == (0, "broker")


def test_gaps_and_refused_messages_are_told_as_they_happen(
    console: Console, module_redis: RedisServer, dev_daemon: DaemonProcess
) -> None:
    page = console.page
    console.follow("job_progress:gaps")
    page.wait_for_function("() => document.querySelectorAll('#tail-channels .name').length >= 7")
    module_redis.publish("job_progress:gaps", b"no json", b"{", b'{"type":"job_progress","progress":1}')
    console.wait_rows(channel="job_progress:gaps", text="progress 1")
    url = f"{dev_daemon.url}/api/stream?channel=council_score:gaps"
    with httpx.stream("GET", url, headers={"Last-Event-ID": "0:0:0"}) as answer:
        lines = answer.iter_lines()
        while next(lines) != "event: gap":
            pass
    console.look("document.querySelector('#happenings-rows').textContent.includes('no_history')")
    told = page.locator("#happenings-rows li").all_inner_texts()
    assert sorted(" ".join(line.split()[1:]) for line in told if "refused publish" not in line) == [
        "gap no_history a client asked to resume where nothing is kept",
        "refused message job_progress: not_json not JSON ×2",
    ]
    # That somebody closes is ordinary, and there on request.
    page.check("#happenings-all")
    console.look("document.querySelector('#happenings-rows').textContent.includes('endedleft the client closed')")
    page.uncheck("#happenings-all")
    assert "ended" not in page.locator("#happenings-rows").inner_text()
    assert "gaps 1" in console.text("#happenings-totals")


def test_a_flood_neither_freezes_it_nor_fills_it(
    console: Console, module_redis: RedisServer, dev_daemon: DaemonProcess
) -> None:
    page = console.page
    page.evaluate(
        """() => {
            window.frames_ = [performance.now()];
            const count = (at) => { frames_.push(at); requestAnimationFrame(count); };
            requestAnimationFrame(count);
        }"""
    )
    console.follow("flood:1")
    wait_until(lambda: subscribers_of(dev_daemon, "flood:1") == 1)
    page.click("#tail-clear")
    batch = 50
    for number in range(12):
        module_redis.publish(
            "flood:1", *(json.dumps({"n": number * batch + index, "pad": "x" * 200}).encode() for index in range(batch))
        )
        page.wait_for_timeout(100)
    console.wait_rows(channel="flood:1", text="n 599 ")
    longest = page.evaluate("() => Math.max(...frames_.map((at, index) => index ? at - frames_[index - 1] : 0))")
    assert longest < 1000, f"the page stood still for {longest} ms"
    assert page.locator("#tail-rows details").count() == 300
    assert "older ones have left it" in console.text("#tail-note")

    # Paused, it holds what comes, up to a bound; a filter keeps what matches from being pushed out.
    page.click("#tail-pause")
    page.fill("#tail-filter", '"n":1007')
    for number in range(1000, 2400, 100):
        module_redis.publish("flood:1", *(json.dumps({"n": number + index}).encode() for index in range(100)))
    console.wait_text("#tail-note", "Paused: 1 000 wait. 4")
    page.fill("#tail-filter", '"n":2399')
    page.click("#tail-pause")
    console.wait_rows(channel="flood:1", text="n 2399")
    assert [row for row in console.rows(channel="flood:1") if row != "no typen 2399"] == []
    page.fill("#tail-filter", "")
    page.locator("#tail-channels li", has_text="flood:1").locator("button").click()


def test_ten_thousand_channels(console: Console, dev_daemon: DaemonProcess) -> None:
    page = console.page
    page.evaluate("performance.clearResourceTimings()")
    with follower(dev_daemon, *(f"council_score:n{number:05}" for number in range(10_000))):
        console.look_at_lists("/^50 of 10.00\\d$/.test(document.querySelector('#channels-count').textContent)")
        assert page.locator("#channels-table tbody tr").count() == 50
        page.fill("#channels-search", "council_score:n0777")
        page.wait_for_function("() => document.querySelectorAll('#channels-table tbody tr').length === 10")
        page.click("#channels-table th >> text=Channel")
        page.wait_for_selector("#channels-table th[aria-sort=ascending]")
        page.wait_for_function("() => document.querySelector('#channels-table td').textContent.endsWith('n07770')")
        assert console.column("#channels-table", 0) == [f"council_score:n0777{number}" for number in range(10)]
        assert console.text("#channels-count") == "10"
        page.locator("#channels-table tbody button").nth(3).click()
        assert "council_score:n07773" in page.locator("#tail-channels .name").all_text_contents()
    answers = "performance.getEntriesByType('resource').filter(({ name }) => name.includes('/api/realtime/'))"
    sizes = page.evaluate(f"{answers}.map(({{ decodedBodySize }}) => decodedBodySize)")
    assert len(sizes) > 3
    assert max(sizes) < 20_000
    page.fill("#channels-search", "")


def test_nothing_is_asked_while_it_is_hidden(console: Console) -> None:
    page = console.page
    page.evaluate("Object.defineProperty(document, 'hidden', { value: true, configurable: true })")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    asked = "performance.getEntriesByType('resource').filter(({ name }) => name.includes('/stats')).length"
    page.evaluate("performance.clearResourceTimings()")
    page.wait_for_timeout(300)
    before = page.evaluate(asked)
    for _ in range(3):
        page.evaluate("dispatchEvent(new Event('online'))")
    page.wait_for_timeout(100)
    assert page.evaluate(asked) == before
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_function(f"() => {asked} > {before}")


def test_axe_finds_nothing_and_360_pixels_are_enough(console: Console) -> None:
    page = console.page
    page.click("#tail-clear")
    console.follow("job_progress:" + "long" * 30)
    console.follow("not a channel")
    console.wait_rows(channel="not a channel")
    page.locator("#tail-rows summary").first.click()
    page.emulate_media(color_scheme="light")
    assert axe_faults(page) == []
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 360, "height": 740})
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert axe_faults(page) == []


def subscribers_of(daemon: DaemonProcess, channel: str) -> int:
    found = httpx.get(f"{daemon.url}/api/realtime/channels?match={channel}", trust_env=False).json()["channels"]
    return sum(each["subscribers"] for each in found if each["name"] == channel)


@contextmanager
def follower(daemon: DaemonProcess, *channels: str, user: str = "") -> Iterator[ClientConnection]:
    """A client that is subscribed to these channels."""
    with connect(f"{daemon.ws_url}?userId={quote(user)}", compression=None, max_queue=None) as client:
        for channel in channels:
            client.send(json.dumps({"type": "subscribe", "channel": channel}))
        named = 0
        while named < len(channels):
            named += '"subscribed"' in str(client.recv(timeout=10))
        yield client
