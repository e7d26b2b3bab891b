"""`broker clients`: who is connected, the slowest first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from broker.cli.sheet import NOTHING, Column, ago, count, make_table, open_console, size, text_of
from broker.cli.source import CLIENTS_PATH, Address, Source, source_options

SORTS = ("queued", "events", "connected")
COLUMNS = (
    Column("Client"),
    Column("User"),
    Column("Transport", least=60),
    Column("Queued", is_number=True),
    Column("Events", is_number=True),
    Column("Last event", is_number=True, least=90),
    Column("Connected", is_number=True, least=70),
    Column("Channels", is_number=True, least=80),
    Column("Node", least=110),
)
TITLE_OF_SORT = {"queued": "Queued", "events": "Events", "connected": "Connected"}


def row(client: Mapping[str, Any]) -> Sequence[str]:
    """A client, a cell for each of `COLUMNS`."""
    last = client.get("lastEventTime")
    return (
        text_of(client.get("id")),
        text_of(client.get("userId")),
        text_of(client.get("transport")),
        size(waiting_bytes(client)),
        count(client.get("eventCount")),
        NOTHING if last is None else f"{ago(last)} ago",
        f"{ago(client.get('connectedAt'))} ago",
        count(client.get("channelCount")),
        text_of(client.get("node")),
    )


def waiting_bytes(client: Mapping[str, Any]) -> int | None:
    """What waits for a client: in its outbox, and in its backlog where it fell behind; None where that is not said."""
    parts = [client.get("queuedBytes"), client.get("backlogBytes")]
    known = [part for part in parts if isinstance(part, int)]
    return sum(known) if known else None


@click.command("clients", short_help="List who is connected, the slowest first.")
@source_options
@click.option(
    "--sort",
    type=click.Choice(SORTS),
    default="queued",
    show_default=True,
    help="queued: for whom most waits. events: who had most. connected: who came last.",
)
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="As many at most.")
@click.option("--user", metavar="ID", help="Only this user's.")
@click.option("--channel", metavar="NAME", help="Only who is subscribed to this channel.")
@click.option("--json", "is_json", is_flag=True, help="Print what the daemon answers, for machines.")
def command(
    url: str,
    token: str | None,
    ca_file: str | None,
    node: str | None,
    sort: str,
    limit: int,
    user: str | None,
    channel: str | None,
    is_json: bool,
) -> None:
    """List clients, of all daemons that share a Redis. Queued is what waits because the client reads too slowly.

    \b
    broker clients
    broker clients --user ann
    broker clients --channel job_progress:42 --sort events --json
    """
    with Source(Address(url, token, ca_file, node)) as source:
        answer = source.ask(CLIENTS_PATH, {"sort": sort, "limit": limit, "user": user, "channel": channel})
    if is_json:
        click.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        return
    clients = [each for each in answer.get("clients") or () if isinstance(each, dict)]
    console = open_console()
    console.print(make_table(COLUMNS, map(row, clients), console.width, sorted_by=TITLE_OF_SORT[sort]))
    total = answer.get("total")
    if isinstance(total, int) and total > len(clients):
        click.echo(f"{len(clients)} of {total}; --limit shows more", err=True)
