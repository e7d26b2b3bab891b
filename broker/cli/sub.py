"""`broker sub`: the events of channels on standard output, one a line, as they come.

Laws: a line is written out at once; notices and errors go to standard error. What an event holds
never commands a terminal: JSON escapes what is below U+0020 but not the rest that terminals obey.

    TIME TYPE EVENT                                         by default; TYPE is `-` where there is none
    EVENT                                                   --json
    TIME CHANNEL POSITION TYPE EVENT                        --positions; `-` for what is not known
    {"channel":CHANNEL,"position":POSITION,"event":EVENT}   --positions --json; null for what is not known
"""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from datetime import datetime
from typing import TYPE_CHECKING

import click
from attrs import field, frozen

from broker.errors import SubscriberError

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.subscriber import Event, Notice, Subscription

_LINE_END = re.compile(r"\r\n|\r|\n")  # only JSON whitespace: inside a string they are escaped
# C0, DEL, C1, line separators, and what turns the direction of text round.
_COMMANDS = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_TYPE_CHARACTERS = 80


@click.command("sub", short_help="Print the events of channels as they come.")
@click.argument("channels", metavar="CHANNEL...", nargs=-1)
@click.option(
    "--url",
    metavar="URL",
    envvar="BROKER_URL",
    default="http://127.0.0.1:8000",
    show_default=True,
    help="The broker (environment: BROKER_URL).",
)
@click.option(
    "--since",
    metavar="CHANNEL=POSITION",
    multiple=True,
    help="Go on behind this position of one of the channels. May be repeated.",
)
@click.option(
    "--token",
    metavar="TOKEN",
    envvar="BROKER_TOKEN",
    help="Who you are (environment: BROKER_TOKEN, which is not seen in the list of processes).",
)
@click.option(
    "--ca",
    "ca_file",
    metavar="FILE",
    type=click.Path(),
    help="PEM file of the certificates to trust in place of the system's (environment: SSL_CERT_FILE).",
)
@click.option("--positions", is_flag=True, help="Print channel and position with each event, for --since.")
@click.option("--json", "is_json", is_flag=True, help="Print nothing but the events, for pipes.")
def command(
    channels: tuple[str, ...],
    url: str,
    since: tuple[str, ...],
    token: str | None,
    ca_file: str | None,
    positions: bool,
    is_json: bool,
) -> None:
    """Print the events of channels, one a line, until Ctrl-C.

    A lost connection is made again, and goes on where it was; a gap, where events may be missing all the
    same, is told in a line on standard error.

    A line is TIME TYPE EVENT, with --positions TIME CHANNEL POSITION TYPE EVENT, with --json the event, and
    with both {"channel":...,"position":...,"event":...}. What is not known is - or null: a channel without
    history has no positions. With a token, what is published to its user comes too, without a channel, and
    no CHANNEL is needed.

    \b
    broker sub job_progress:42 alerts:ops
    broker sub --json ai_stream:7 | jq -r .chunk
    broker sub --positions ai_stream:7
    broker sub ai_stream:7 --since ai_stream:7=1036:12:9917
    """
    import trio

    if not channels and not token:
        raise click.UsageError("Missing argument 'CHANNEL...'.")
    refused = ""
    try:
        origin = _Origin(url, channels, _positions(since), token or None, ca_file)
        trio.run(_print_events, origin, _Form(positions, is_json))
    except* KeyboardInterrupt:
        pass
    except* BrokenPipeError:
        # Python flushes standard output once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except* SubscriberError as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        refused = escaped(str(error))
    if refused:
        raise SubscriberError(refused)


def _positions(since: tuple[str, ...]) -> dict[str, str]:
    """`--since` by channel. A channel's name may have a `=`, a position has none."""
    found = {}
    for each in since:
        channel, _, position = each.rpartition("=")
        if not channel or not position:
            raise click.BadParameter(f"{each!r} is not CHANNEL=POSITION", param_hint="--since")
        found[channel] = position
    return found


@frozen
class _Origin:
    """What to print, from where, and as whom."""

    url: str
    channels: tuple[str, ...]
    since: dict[str, str]
    token: str | None = field(repr=False)
    ca_file: str | None

    def subscribe(self, tell: Callable[[Notice], None]) -> Subscription:
        from broker.subscriber import subscribe

        return subscribe(
            self.url, self.channels, since=self.since, token=self.token, ca_file=self.ca_file, on_notice=tell
        )


@frozen
class _Form:
    """How an event is printed."""

    has_positions: bool
    is_json: bool

    def line(self, event: Event) -> str:
        raw = _LINE_END.sub(" ", event.raw)
        if self.is_json:
            if not self.has_positions:
                return raw
            return f'{{"channel":{json.dumps(event.channel)},"position":{json.dumps(event.position)},"event":{raw}}}'
        now = datetime.now().isoformat(timespec="milliseconds")[11:]
        kind = escaped(event.type[:_TYPE_CHARACTERS]) or "-"
        where = f"{event.channel or '-'} {event.position or '-'} " if self.has_positions else ""
        return f"{now} {where}{kind} {raw}"


async def _print_events(origin: _Origin, form: _Form) -> None:
    import trio

    def tell(notice: Notice) -> None:
        away = f" (away for {notice.seconds:.1f} s)" if notice.seconds else ""
        gap = notice.gap if form.has_positions else None
        where = "" if gap is None else f" (from {gap.begin or '-'} to {gap.end or '-'})"
        click.echo(f"broker: {notice.kind}: {escaped(notice.text + where)}{away}", err=True)

    is_terminal = sys.stdout.isatty()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_pipe)
        async with origin.subscribe(tell) as events:
            if not form.is_json:
                to = ", ".join(origin.channels) or "what is for the user"
                click.echo(f"broker: subscribed to {to} at {escaped(origin.url)}", err=True)
            async for event in events:
                line = form.line(event)
                if is_terminal:
                    line = escaped(line)
                sys.stdout.buffer.write(line.encode("utf-8", "backslashreplace") + b"\n")
                sys.stdout.buffer.flush()


async def _watch_pipe() -> None:
    """Raise BrokenPipeError when nobody reads standard output any more, also while no event comes."""
    import trio

    if sys.platform == "linux" and stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode):
        # The writing end of a pipe is never readable, except for the error that its reader is gone.
        await trio.lowlevel.wait_readable(sys.stdout.fileno())
        raise BrokenPipeError


def escaped(text: str) -> str:
    """`text` with what a terminal would obey written as JSON escapes, which in JSON mean the same."""
    return _COMMANDS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
