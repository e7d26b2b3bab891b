"""A crew: processes that take pieces of work, each so many inputs for one target, until all is done or one fails.

Its own file, as processes that are spawned import what they run.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from multiprocessing.queues import Queue

from tests.fuzz.campaign import Campaign, Failure
from tests.fuzz.targets import TARGETS

Work = tuple[str, int, int]
"""A target, a seed, a number of inputs."""
Word = int | str | Failure
"""What a worker says: how many more inputs are done, the target when a piece of work is over, or a failure."""


def run(work: list[Work], workers: int) -> int:
    """Do all of it, and print how far it is. Returns the exit status."""
    context = multiprocessing.get_context("spawn")
    words: Queue[Word] = context.Queue()
    tasks: Queue[Work | None] = context.Queue()
    for task in [*work, *[None] * workers]:
        tasks.put(task)
    processes = [context.Process(target=_work, args=(tasks, words), daemon=True) for _ in range(workers)]
    for process in processes:
        process.start()
    total, done, over, began, told_at = sum(task[2] for task in work), 0, 0, time.monotonic(), 0.0
    while over < len(work):
        word = words.get(timeout=600)
        if isinstance(word, Failure):
            print(f"\nFAILED {word}", flush=True)
            return 1
        if isinstance(word, str):
            over += 1
            continue
        done += word
        now = time.monotonic()
        if now - told_at > (1.0 if sys.stdout.isatty() else 15.0):
            told_at = now
            end = "\r" if sys.stdout.isatty() else "\n"
            print(f"{done:>9} of {total}, {done / (now - began):.0f} a second ", end=end, flush=True)
    for process in processes:
        process.join()
    print(f"{done} inputs in {time.monotonic() - began:.0f} s: every promise was kept.")
    return 0


def _work(tasks: Queue[Work | None], words: Queue[Word]) -> None:
    while (task := tasks.get()) is not None:
        name, seed, inputs = task
        failure = Campaign(TARGETS[name], seed).run(inputs, words.put)
        words.put(failure or name)
