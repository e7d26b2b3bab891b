"""`make screenshots`: pictures of the console and of the example app, in docs/images/, with demo events.

    python -m tests.browser.screenshots [FOLDER]

It starts a daemon with demo events, the demo's worker and the app, and waits until there is something to see: two
minutes in all. Bound: a picture of over 200 KB is an error.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.actors.chromium import Chromium, missing
from tests.actors.daemon_process import DaemonProcess, clean_environ
from tests.actors.redis_server import free_port
from tests.browser.dashboard import ROOT, app_server, build, prepare
from tests.browser.picture import with_few_colours

if TYPE_CHECKING:
    from playwright.sync_api import Page

IMAGE_MAX_BYTES = 200_000
# The demo's alerts come about every twenty seconds, and the charts want some minutes of numbers.
WATCHED_SECONDS = 75
WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


def main() -> int:
    why = missing()
    if why is not None:
        print(why.replace("the tests in a real browser are skipped", "no pictures"), file=sys.stderr)
        return 1
    images = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "images"
    images.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        prepare(folder / "app")
        server = app_server(folder / "app")
        server.start()
        stack.callback(server.stop)
        embedded = free_port()
        flags = ("--dev", "--embedded-port", str(embedded), "--listen-allowed-origins", server.origin)
        daemon = DaemonProcess(None, folder / "daemon.log", flags, is_forked=False)
        daemon.start()
        stack.callback(daemon.stop)
        stack.enter_context(worker(f"redis://127.0.0.1:{embedded}/0"))
        build(folder / "app", daemon.url)
        chromium = Chromium()
        chromium.start()
        stack.callback(chromium.stop)
        take(chromium, daemon.url, server.origin, images)
    too_large = [image.name for image in images.glob("*.png") if image.stat().st_size > IMAGE_MAX_BYTES]
    for name in too_large:
        print(f"{name} has over {IMAGE_MAX_BYTES} bytes", file=sys.stderr)
    return 1 if too_large else 0


@contextmanager
def worker(redis_url: str) -> Iterator[None]:
    command = [sys.executable, "-m", "broker", "evaluate", "--demo", "--redis", redis_url]
    process = subprocess.Popen(command, env=clean_environ(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def take(chromium: Chromium, daemon_url: str, app_url: str, images: Path) -> None:
    counter = chromium.new_context().new_page()

    def open_page(url: str, size: dict[str, int], scheme: str) -> Page:
        page = chromium.new_context(viewport=size, color_scheme=scheme, locale="en-US").new_page()
        page.goto(url)
        return page

    def shoot(page: Page, name: str, *, full: bool) -> None:
        png = page.screenshot(full_page=full, animations="disabled")
        (images / name).write_bytes(with_few_colours(png, counter))
        print(images / name)

    app, phone = open_page(app_url, WIDE, "light"), open_page(app_url, PHONE, "dark")
    console = open_page(daemon_url + "/", WIDE, "light")
    time.sleep(WATCHED_SECONDS)
    # The beginning of a render: a bar on its way says more than a full one.
    watch_again = app.get_by_role("button", name="Watch again")
    while not 10 <= int(app.get_by_role("progressbar").get_attribute("aria-valuenow") or 0) <= 30:
        if watch_again.is_visible():
            watch_again.click()
        time.sleep(0.5)
    app.get_by_role("button", name="Evaluate").click()
    app.get_by_role("status", name="Final score").wait_for(timeout=60_000)
    shoot(app, "dashboard.png", full=True)
    shoot(console, "console.png", full=False)
    shoot(phone, "dashboard-phone.png", full=False)


if __name__ == "__main__":
    sys.exit(main())
