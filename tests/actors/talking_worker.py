"""An evaluation worker in a process of its own, whose evaluations only talk: `python -m tests.actors.talking_worker`.

The request's `transcript` says what to do, as words: `say=N` pieces, `every=SECONDS` between them (on
the first attempt only, unless `always`), then `fail`, `break` or nothing (complete). It prints a line
for what it does: `runs`, `took`, `cancelled`, `done`.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Mapping
from functools import partial
from typing import Any

import trio
from attrs import define, field

from broker.errors import EvaluationError
from broker.evaluation import Answer, EvaluationRequest, serve
from broker.events import CouncilScoreStream
from tests.actors.forks import ForkedProcess, start_fork

LINE_SECONDS = 20.0


async def talk(request: EvaluationRequest, answer: Answer) -> Mapping[str, Any]:
    print("took", request.attempt, flush=True)
    words = request.parameters["transcript"].split()
    facts = dict(word.split("=") for word in words if "=" in word)
    pause = float(facts.get("every", 0)) if request.attempt == 1 or "always" in words else 0
    try:
        for number in range(int(facts.get("say", 1))):
            await answer.send(CouncilScoreStream(stage="claude", thinking=f"piece {number}", is_complete=False))
            await trio.sleep(pause)
    except trio.Cancelled:
        print("cancelled", flush=True)
        raise
    if "fail" in words:
        raise EvaluationError("the model said no")
    if "break" in words:
        raise ZeroDivisionError("secret")
    print("done", flush=True)
    return {"pid": os.getpid(), "parameters": dict(request.parameters)}


async def main(redis_url: str, lease_seconds: float, concurrency: int) -> None:
    stopping = trio.Event()
    async with trio.open_nursery() as nursery:
        await nursery.start(
            partial(
                serve,
                {"council_score": talk},
                redis_url,
                lease_seconds=lease_seconds,
                concurrency=concurrency,
                stopping=stopping,
            )
        )
        print("runs", flush=True)
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                # Ctrl-C lets what runs finish; SIGTERM has it given back.
                if number == signal.SIGINT:
                    stopping.set()
                    break
                nursery.cancel_scope.cancel()


@define(eq=False)
class TalkingWorker:
    """One such process. Blocks; call from a thread or before the loop."""

    redis_url: str
    lease_seconds: float = 3.0
    concurrency: int = 8
    process: ForkedProcess = field(init=False)
    _lines: deque[str] = field(init=False, factory=deque)
    _half: str = field(init=False, default="")

    def start(self) -> None:
        arguments = [self.redis_url, str(self.lease_seconds), str(self.concurrency)]
        with open(os.devnull, "wb") as nothing:
            self.process = start_fork(
                "tests.actors.talking_worker", arguments, environ=os.environ, stderr=nothing.fileno()
            )
        self.await_line("runs")

    def await_line(self, start: str) -> str:
        """Read on to a line that starts so."""
        deadline = time.monotonic() + LINE_SECONDS
        while not any(line.startswith(start) for line in self._lines):
            rest = deadline - time.monotonic()
            assert rest > 0, f"the worker did not say {start!r} within {LINE_SECONDS:g} s"
            self._read(rest)
        while not (line := self._lines.popleft()).startswith(start):
            pass
        return line

    def rest(self) -> list[str]:
        """What it said besides, to its end, without its log. Only of one that has ended."""
        while self._read(LINE_SECONDS):
            pass
        return [line for line in self._lines if line.startswith(("took", "cancelled", "done"))]

    def _read(self, seconds: float) -> bool:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            return True
        data = os.read(self.process.stdout.fileno(), 1 << 16)
        *lines, self._half = (self._half + data.decode()).split("\n")
        self._lines += lines
        return bool(data)

    def kill(self) -> None:
        """kill -9, and wait until it is gone."""
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(15)

    def close(self) -> None:
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()


if __name__ == "__main__":
    trio.run(main, sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
