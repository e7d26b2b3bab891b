"""A page that is held as loosely as a person's tab: the browser may freeze it, and then nothing runs in it.

A page of Playwright's is always in front and never frozen, as Playwright tells the browser to see it so. This one is
opened in the same browser over its DevTools port, which a person's browser has not either, but changes nothing.
"""

from __future__ import annotations

import json
import time
import urllib.request
from contextlib import ExitStack
from typing import Any, Self

from websockets.sync.client import connect

ANSWER_SECONDS = 15.0


class LivePage:
    """A tab of its own. `evaluate` and `wait_for_function` are as Playwright's, for functions. Use it in a `with`."""

    def __init__(self, devtools_port: int, url: str) -> None:
        self._opening = urllib.request.Request(f"http://127.0.0.1:{devtools_port}/json/new?{url}", method="PUT")
        self._number = 0
        self._left = ExitStack()

    def __enter__(self) -> Self:
        with urllib.request.urlopen(self._opening, timeout=ANSWER_SECONDS) as answer:
            target = json.load(answer)
        self._devtools = self._left.enter_context(connect(target["webSocketDebuggerUrl"], max_size=None))
        return self

    def __exit__(self, *why: object) -> None:
        with self._left:
            self._ask("Page.close")

    def evaluate(self, function: str, given: object = None) -> Any:
        expression = f"({function})({json.dumps(given)})"
        answer = self._ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for_function(self, function: str, *, arg: object = None, polling: float, timeout: float) -> None:
        """Until it holds, asked every `polling` ms. Raises Playwright's TimeoutError behind `timeout` ms."""
        from playwright.sync_api import TimeoutError

        deadline = time.monotonic() + timeout / 1000
        while not self.evaluate(function, arg):
            if time.monotonic() > deadline:
                raise TimeoutError(f"it did not come to {function}")
            time.sleep(polling / 1000)

    def freeze(self) -> None:
        self._ask("Page.setWebLifecycleState", state="frozen")

    def thaw(self) -> None:
        self._ask("Page.setWebLifecycleState", state="active")

    def _ask(self, method: str, **parameters: object) -> Any:
        self._number += 1
        self._devtools.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._devtools.recv(ANSWER_SECONDS))
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
