"""`broker top`: a running daemon, watched.

One thread asks the daemon, so that a key is answered at once also while the daemon is slow. A daemon that does not
answer leaves the last figures on the screen, and a line that says so; it is asked again. Without a terminal each
sample is printed below the one before, without colours; with `--json` each is one line.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from attrs import define, field

from broker.cli.keyboard import held_terminal, wait_keys
from broker.cli.sample import Sample, rates
from broker.cli.screen import Shown, frame, rows_for
from broker.cli.sheet import PIPE_COLUMNS, open_console
from broker.cli.source import CHANNELS_PATH, STATS_PATH, Address, Source, other_version, source_options
from broker.cli.view import View
from broker.errors import DaemonNotAsked

_LOOK_SECONDS = 0.25
_ROWS_IN_A_PIPE = 20
_ONCE_SECONDS = 1.0


@click.command("top", short_help="Watch a running daemon: rates, channels, slow clients, Redis.")
@source_options
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often the daemon is asked.",
)
@click.option("--once", is_flag=True, help="Ask twice, a second apart, print that, and end.")
@click.option("--json", "is_json", is_flag=True, help="Print one JSON object a line, for machines.")
def command(
    url: str, token: str | None, ca_file: str | None, node: str | None, interval: float, once: bool, is_json: bool
) -> None:
    """Watch a daemon, or all that share a Redis: rates, connections, channels, slow clients, Redis, nodes.

    Keys: h channels, c clients, n nodes, s another order, / filter, p pause, q quit.

    \b
    broker top
    broker top --once --json | jq .rates
    """
    try:
        with Source(Address(url, token, ca_file, node)) as source:
            watch = Watch(source, View())
            if once:
                watch.look()
                time.sleep(min(interval, _ONCE_SECONDS))
                watch.look()
                _print(watch, is_json)
            elif is_json or not (sys.stdout.isatty() and sys.stdin.isatty()):
                _print_on(watch, interval, is_json)
            else:
                _show(watch, interval)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Python flushes standard output once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@define(eq=False)
class Watch:
    """Asks, and keeps the last two samples. `shown` is None before the first."""

    _source: Source
    view: View
    rows: int = _ROWS_IN_A_PIPE
    shown: Shown | None = None
    _version: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._version = self._source.version()

    def look(self) -> None:
        """Ask once.

        Raises:
            DaemonNotAsked: there are no stats.
        """
        lists: dict[str, list[dict[str, Any]]] = {}
        problem = None
        stats = self._source.ask(STATS_PATH, {"clients": 0})
        at = time.monotonic()
        for path, query in self.view.questions(self.rows):
            try:
                answer = self._source.ask(path, query)
            except DaemonNotAsked as error:
                problem = str(error)
                continue
            name = "channels" if path == CHANNELS_PATH else "clients"
            lists[name] = [each for each in answer.get(name) or () if isinstance(each, dict)]
        sample = Sample(at, stats, lists.get("channels"), lists.get("clients"), problem)
        before = self.shown
        between = rates(before.sample if before is not None else None, sample)
        self.shown = Shown(self._source.url, self._version, other_version(self._version), sample, between)

    def look_again(self) -> None:
        """As `look`, of a daemon that was there before; what is shown says where it is not."""
        from attrs import evolve

        try:
            was_away = self.shown is not None and self.shown.problem is not None
            if was_away:
                self._version = self._source.version()  # it may have been another that came back
            self.look()
        except DaemonNotAsked as error:
            assert self.shown is not None
            self.shown = evolve(self.shown, problem=str(error), rates={})

    def as_json(self) -> dict[str, Any]:
        assert self.shown is not None
        sample = self.shown.sample
        return {
            "url": self.shown.url,
            "version": self.shown.version,
            "problem": self.shown.problem or sample.problem,
            "rates": self.shown.rates,
            "channels": sample.channels,
            "clients": sample.clients,
            "stats": sample.stats,
        }


def _print(watch: Watch, is_json: bool) -> None:
    assert watch.shown is not None
    if is_json:
        click.echo(json.dumps(watch.as_json(), ensure_ascii=False))
        return
    console = open_console()
    console.print(frame(watch.view, watch.shown, max(console.width, PIPE_COLUMNS // 2), None))


def _print_on(watch: Watch, interval: float, is_json: bool) -> None:
    """Print sample after sample. Runs until interrupted, or until nobody reads."""
    watch.look()
    while True:
        _print(watch, is_json)
        sys.stdout.flush()
        time.sleep(interval)
        watch.look_again()


def _show(watch: Watch, interval: float) -> None:
    """The live view. Runs until `q`."""
    from rich.live import Live

    console = open_console()
    watch.rows = rows_for(os.get_terminal_size().lines)
    watch.look()
    with _asking(watch, interval) as (wake, again), held_terminal() as terminal, _interrupts_end(watch.view):
        with Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as live:
            drawn: object = None
            while not watch.view.is_over:
                width, height = os.get_terminal_size()
                console.width, console.height = width, height
                watch.rows = rows_for(height)
                assert watch.shown is not None
                if drawn != (watch.shown, width, height):
                    live.update(frame(watch.view, watch.shown, width, height), refresh=True)
                    drawn = watch.shown, width, height
                try:
                    keys, _ = wait_keys(terminal, wake, _LOOK_SECONDS)
                except EOFError:
                    return
                if keys:
                    drawn = None
                    for key in keys:
                        if watch.view.press(key):
                            again.set()


@contextmanager
def _interrupts_end(view: View) -> Iterator[None]:
    """SIGINT ends the view at its next turn.

    An exception out of the middle of drawing may be swallowed there: what the drawing frees cannot raise.
    """

    def end(number: int, frame: object) -> None:
        view.is_over = True

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _asking(watch: Watch, interval: float) -> Iterator[tuple[int, threading.Event]]:
    """A thread that asks every `interval`. Yields a descriptor with a byte for each sample, and what asks at once."""
    wake, told = os.pipe()
    again, over = threading.Event(), threading.Event()

    def ask() -> None:
        while not over.is_set():
            asked = again.wait(interval)
            again.clear()
            if over.is_set() or (watch.view.is_paused and not asked):
                continue
            watch.look_again()
            os.write(told, b"\0")

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield wake, again
    finally:
        over.set()
        again.set()
        # Not waited for beyond a moment: it may hang on a daemon that says nothing, and ends with the process.
        thread.join(0.2)
        if not thread.is_alive():
            os.close(wake)
            os.close(told)
