"""`broker stats`: the figures of a running daemon, or of all that share its Redis, as a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from broker.cli.sheet import Column, make_table, open_console, text_of
from broker.cli.source import STATS_PATH, Address, Source, other_version, source_options

# Lists: `broker clients`, `broker channels` and `broker top` show them.
_LISTS = ("sse.clients", "websocket.clients", "channels.channels")


@click.command("stats", short_help="Show the figures of a running daemon.")
@source_options
@click.option("--json", "is_json", is_flag=True, help="Print what the daemon answers, for machines.")
def command(url: str, token: str | None, ca_file: str | None, node: str | None, is_json: bool) -> None:
    """Show how a daemon is: connections, deliveries, Redis, limits, publishing, history.

    Daemons that share a Redis are summed; --node shows one of them.

    \b
    broker stats
    broker stats --json | jq .delivery
    """
    with Source(Address(url, token, ca_file, node)) as source:
        stats = source.ask(STATS_PATH, {"clients": 0})
        if is_json:
            click.echo(json.dumps(stats, indent=2, ensure_ascii=False))
            return
        if note := other_version(source.version()):
            click.echo(f"broker: {note}", err=True)
    console = open_console()
    columns = (Column("Figure"), Column("Value"))
    console.print(make_table(columns, _rows("", stats), console.width))


def _rows(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """Every figure by its path in the JSON; of lists of objects an item is a row each."""
    if name in _LISTS:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _rows(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _rows(f"{name}.{number}", inner)
    else:
        yield name, text_of(value)
