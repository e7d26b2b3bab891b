"""`broker sub`: the events of channels on standard output, one a line, as they come.

Laws: a line is written out at once; notices and errors go to standard error. What an event holds
never commands a terminal: JSON escapes what is below U+0020 but not the rest that terminals obey.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from datetime import datetime

import click

from broker.errors import SubscriberError

_LINE_END = re.compile(r"\r\n|\r|\n")  # only JSON whitespace: inside a string they are escaped
# C0, DEL, C1, line separators, and what turns the direction of text round.
_COMMANDS = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_TYPE_CHARACTERS = 80


@click.command("sub", short_help="Print the events of channels as they come.")
@click.argument("channels", metavar="CHANNEL...", nargs=-1, required=True)
@click.option(
    "--url",
    metavar="URL",
    envvar="BROKER_URL",
    default="http://127.0.0.1:8000",
    show_default=True,
    help="The broker (environment: BROKER_URL).",
)
@click.option("--json", "is_json", is_flag=True, help="Print nothing but the events, for pipes.")
def command(channels: tuple[str, ...], url: str, is_json: bool) -> None:
    """Print the events of channels, one a line, until Ctrl-C.

    A lost connection is made again; what was missed meanwhile is told on standard error.

    \b
    broker sub job_progress:42 alerts:ops
    broker sub --json ai_stream:7 | jq -r .chunk
    """
    import trio

    refused = ""
    try:
        trio.run(_print_events, url, channels, is_json)
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


async def _print_events(url: str, channels: tuple[str, ...], is_json: bool) -> None:
    import trio

    from broker.subscriber import Notice, subscribe

    def tell(notice: Notice) -> None:
        away = f" (away for {notice.seconds:.1f} s)" if notice.seconds else ""
        click.echo(f"broker: {notice.kind}: {escaped(notice.text)}{away}", err=True)

    is_terminal = sys.stdout.isatty()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_pipe)
        async with subscribe(url, channels, on_notice=tell) as events:
            if not is_json:
                click.echo(f"broker: subscribed to {', '.join(channels)} at {escaped(url)}", err=True)
            async for event in events:
                line = _LINE_END.sub(" ", event.raw)
                if is_terminal:
                    line = escaped(line)
                if not is_json:
                    now = datetime.now().isoformat(timespec="milliseconds")[11:]
                    line = f"{now} {escaped(event.type[:_TYPE_CHARACTERS]) or '-'} {line}"
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
