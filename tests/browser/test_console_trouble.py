"""The console when something is wrong: the daemon is away, Redis is away, and who looks has no right to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from tests.actors.chromium import Complaints, axe_faults
from tests.actors.daemon_process import DaemonProcess
from tests.actors.redis_server import RedisServer
from tests.actors.signer import SECRET, token
from tests.browser.console import Console


def test_a_daemon_that_restarts_and_a_redis_that_is_away(
    redis_server: RedisServer,
    start_daemon: Callable[..., DaemonProcess],
    open_url: Callable[..., Any],
    complaints: Complaints,
) -> None:
    # What is asked while the daemon is away, and nothing else: the page's files and styles are there before.
    complaints.expected += [r"net::ERR_\w+ \(.*/(api/|client/brokerstream\.js)", "^WebSocket connection to "]
    daemon = start_daemon(redis_server.url)
    console = Console(open_url(f"{daemon.url}/?tail=job_progress:42"))
    page = console.page
    page.wait_for_selector("#tail-channels .name")
    console.wait_text("#tail-state", "live over WebSocket")
    redis_server.publish("job_progress:42", b'{"type":"job_progress","progress":0.1}')
    console.wait_rows(channel="job_progress:42", text="0.1")

    daemon.stop()
    console.look("document.querySelector('#state').textContent === 'no answer'")
    assert console.text("#problem").startswith("No figures since ")
    assert console.text("#problem").endswith(
        ": the daemon does not answer, it cannot be reached. It is asked again every 2 seconds."
    )
    assert page.title() == "no answer · broker"
    daemon.listen = f"127.0.0.1:{daemon.port}"
    daemon.start()
    console.look("document.querySelector('#state').textContent === 'healthy'")
    assert (page.locator("#problem").is_visible(), page.title()) == (False, "broker")
    console.wait_text("#tail-state", "live over ")
    redis_server.publish("job_progress:42", b'{"type":"job_progress","progress":0.2}')
    console.wait_rows(channel="job_progress:42", text="0.2")
    # The daemon recorded what was published plainly; nobody did while it was away, and the gap is in its place.
    assert [row.partition("T")[0] for row in console.rows(channel="job_progress:42")[1:]] == [
        "gapreason recorder_changed · from " + gap_place(console) + " · to " + gap_place(console),
        "progress 0.1",
    ]
    console.look("document.querySelector('#happenings-rows').textContent.includes('recorder_changed')")
    assert sorted(kinds(console)) == ["answers again", "daemon came", "daemon left", "gap", "no answer"]

    redis_server.kill()
    console.look("document.querySelector('#state').textContent === 'no Redis'")
    assert console.text("#problem") == (
        "Redis is away: no new event reaches a client, and none can be published. "
        "It goes on by itself when Redis is back."
    )
    assert console.text("#redis-facts dd").startswith("away for ")
    redis_server.start()
    console.look("document.querySelector('#state').textContent === 'healthy'")
    console.look("document.querySelector('#happenings-rows').textContent.includes('Redis is back')")
    assert [kind for kind in kinds(console) if "Redis" in kind] == ["Redis is back", "Redis is away"]
    daemon.expected_errors |= {"Redis is away"}


def test_who_has_no_right_is_told_what_to_do(
    redis_server: RedisServer,
    start_daemon: Callable[..., DaemonProcess],
    open_url: Callable[..., Any],
    complaints: Complaints,
) -> None:
    complaints.expected += ["status of 40[13]"]
    daemon = start_daemon(redis_server.url, environ={"BROKER_AUTH_SECRET": SECRET})
    console = Console(open_url(f"{daemon.url}/?tail=job_progress:42"))
    page = console.page
    page.wait_for_selector("#sign-in")
    assert (page.locator("#board").is_visible(), console.text("#sign-in-answer")) == (False, "")

    assert axe_faults(page) == []

    def sign_in(with_token: str) -> None:
        page.fill("#token", with_token)
        page.press("#token", "Enter")

    sign_in("not a token")
    assert console.text("#sign-in-answer") == "A token or a key has no spaces and only ASCII characters."
    soon = {"exp": int(time.time()) + 600, "iat": None}
    sign_in(token(**soon))
    assert console.told("#sign-in-answer", but="A token") == (
        "The daemon answered 403: this needs the right to administrate. "
        "Use a token with broker_admin: true, or a key of auth.admin_keys."
    )
    sign_in(token(**soon, broker_admin=True)[:-4] + "AAAA")
    assert console.told("#sign-in-answer", but="The daemon answered 403").startswith("The daemon answered 401: ")
    stored = "JSON.stringify([...Object.values(sessionStorage), ...Object.values(localStorage), document.cookie])"
    assert json.loads(page.evaluate(stored)) == [""]

    # The right to administrate is none to subscribe.
    sign_in(token(**soon, broker_admin=True))
    [row] = console.wait_rows(channel="job_progress:42")
    assert row.startswith("errorforbidden: job_progress:42 is not for you: ")
    assert console.text("#tail-note") == (
        "To follow a channel the token needs the right to subscribe to it, such as --subscribe '*'."
    )
    page.click("#sign-out")
    page.wait_for_selector("#sign-in", state="visible")
    good = token(**soon, broker_admin=True, subscribe=["*"])
    sign_in(good)
    page.wait_for_selector("#board", state="visible")
    assert json.loads(page.evaluate(stored)) == [good, ""]
    console.wait_text("#tail-state", "live over WebSocket")
    page.click("#publish-form .primary")
    console.wait_text("#publish-answer", "Published on job_progress:42")
    console.wait_rows(channel="job_progress:42", text="Hello from the console")
    # A reload keeps the sign-in and what is followed; signing out leaves nothing.
    page.reload()
    console.wait_rows(channel="job_progress:42", text="Hello from the console")
    page.click("#sign-out")
    page.wait_for_selector("#sign-in", state="visible")
    assert json.loads(page.evaluate(stored)) == [""]
    assert page.locator("#tail-rows details").count() == 0


def kinds(console: Console) -> list[str]:
    """What happened, newest first, without the times."""
    return console.page.locator("#happenings-rows .tag").all_text_contents()


def gap_place(console: Console) -> str:
    """The place that the gap in the tail begins and ends at."""
    row = next(row for row in console.rows(channel="job_progress:42") if row.startswith("gap"))
    return row.partition("from ")[2].partition(" ")[0]
