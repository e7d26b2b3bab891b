"""The harness itself: what a page complains about fails its test, and nobody else sees the browser's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.actors.chromium import Complaints, PageServer, axe_faults
from tests.actors.daemon_process import DaemonProcess

BLANK = "<!doctype html><title>t</title><body>"


def test_a_page_has_its_daemons_origin_or_another(
    module_daemon: DaemonProcess, page_server: PageServer, open_page: Callable[..., Any], complaints: Complaints
) -> None:
    own = open_page("probe", module_daemon.url)
    assert own.evaluate("fetch('/health').then((answer) => answer.json()).then(({ status }) => status)") == "healthy"
    other = open_page("probe", page_server.origin)
    assert other.evaluate("location.origin") == page_server.origin
    assert other.evaluate(f"fetch('{module_daemon.url}/health').catch(() => 'refused')") == "refused"
    complaints.expected += ["blocked by CORS policy", "ERR_FAILED", "status of 403"]


def test_what_a_page_complains_about_is_heard(
    module_daemon: DaemonProcess, open_page: Callable[..., Any], complaints: Complaints
) -> None:
    page = open_page("probe", module_daemon.url)
    assert complaints.unexpected() == []
    page.evaluate("console.error('the first')")
    page.evaluate("new Promise((done) => { setTimeout(done, 1); throwLater('the second'); })")
    assert [said.partition(" (")[0] for said in complaints.unexpected()] == ["the first", "uncaught: the second"]
    complaints.expected += ["the first"]
    assert complaints.unexpected() == ["uncaught: the second"]
    complaints.expected += ["the second"]


def test_axe_sees_an_image_without_words(context: Any) -> None:
    page = context.new_page()
    page.set_content(f"<html lang=en>{BLANK}<main><h1>x</h1><img src='data:,'></main>")
    assert [fault["rule"] for fault in axe_faults(page)] == ["image-alt"]


def test_the_loop_is_put_aside(chromium: Any) -> None:
    assert asyncio.get_running_loop().is_running()
    chromium.put_loop_aside()
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()
    assert asyncio.run(asyncio.sleep(0, "ran")) == "ran"
    chromium.take_loop_back()
