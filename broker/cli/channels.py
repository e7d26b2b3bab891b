"""`broker channels`: which channels have subscribers, the busiest first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from broker.cli.sheet import Column, count, make_table, open_console, short, text_of
from broker.cli.source import CHANNELS_PATH, Address, Source, source_options

SORTS = ("rate", "subscribers", "name")
COLUMNS = (
    Column("Channel"),
    Column("Rate/s", is_number=True),
    Column("Messages", is_number=True, least=50),
    Column("Subscribers", is_number=True),
)
TITLE_OF_SORT = {"rate": "Rate/s", "subscribers": "Subscribers", "name": "Channel"}


def row(channel: Mapping[str, Any]) -> Sequence[str]:
    """A channel, a cell for each of `COLUMNS`."""
    return (
        text_of(channel.get("name")),
        short(channel.get("rate")),
        count(channel.get("messages")),
        count(channel.get("subscribers")),
    )


@click.command("channels", short_help="List channels, the busiest first.")
@source_options
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default="rate",
    show_default=True,
    help="rate: events a second, over the last seconds. subscribers: how many. name: by name.",
)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="As many at most.")
@click.option("--prefix", metavar="TEXT", help="Only channels whose name begins so.")
@click.option("--json", "is_json", is_flag=True, help="Print what the daemon answers, for machines.")
def command(
    url: str,
    token: str | None,
    ca_file: str | None,
    node: str | None,
    sort: str,
    limit: int,
    prefix: str | None,
    is_json: bool,
) -> None:
    """List the channels that have subscribers, over all daemons that share a Redis.

    \b
    broker channels
    broker channels --prefix job_progress: --sort subscribers
    """
    with Source(Address(url, token, ca_file, node)) as source:
        answer = source.ask(CHANNELS_PATH, {"sort": sort, "limit": limit, "prefix": prefix})
    if is_json:
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    channels = [each for each in answer.get("channels") or () if isinstance(each, dict)]
    console = open_console()
    console.print(make_table(COLUMNS, map(row, channels), console.width, sorted_by=TITLE_OF_SORT[sort]))
    total = answer.get("total")
    if isinstance(total, int) and total > len(channels):
        click.echo(f"{len(channels)} of {total}; --limit shows more", err=True)
