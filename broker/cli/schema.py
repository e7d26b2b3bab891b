"""`broker schema`: the events and channels, written down for other programs."""

from __future__ import annotations

import json

import click

from broker.config.address import Address
from broker.config.secret import shown
from broker.events import EVENT_TYPES
from broker.events.asyncapi import asyncapi_document
from broker.events.asyncapi.document import HOST, REDIS_HOST
from broker.events.openapi import openapi_document
from broker.events.schema import event_schema, every_event_schema


def _host(context: click.Context, parameter: click.Parameter, text: str | None) -> str | None:
    """Refuse what no client can connect to."""
    if text is None:
        return None
    try:
        address = Address.parse(text)
    except ValueError:
        # Not the reason itself: its advice is for what to listen on.
        address = Address()
    if not address.port:
        raise click.BadParameter(
            f"{shown(text)} is not HOST:PORT; write such as events.example.com:8000, an IPv6 address in brackets"
        )
    return str(address)


@click.command(name="schema")
@click.argument("event_type", metavar="[TYPE]", required=False, type=click.Choice(list(EVENT_TYPES)))
@click.option("--asyncapi", is_flag=True, help="Print an AsyncAPI 3 document of all channels instead.")
@click.option("--openapi", is_flag=True, help="Print an OpenAPI 3.1 document of the HTTP API instead.")
@click.option(
    "--host",
    metavar="HOST:PORT",
    callback=_host,
    help=f"With --asyncapi and --openapi: where the daemon is. Default: {HOST}.",
)
@click.option(
    "--redis-host",
    metavar="HOST:PORT",
    callback=_host,
    help=f"With --asyncapi: where its Redis is. Default: {REDIS_HOST}.",
)
def command(event_type: str | None, asyncapi: bool, openapi: bool, host: str | None, redis_host: str | None) -> None:
    """Print the JSON Schema of an event TYPE, such as job_progress; without one, of all events."""
    if asyncapi and event_type is not None:
        raise click.UsageError("--asyncapi is about all channels; leave TYPE out")
    if openapi and (event_type is not None or asyncapi):
        raise click.UsageError("--openapi is about the HTTP API alone; leave TYPE and --asyncapi out")
    if redis_host and not asyncapi:
        raise click.UsageError("--redis-host is for --asyncapi")
    if host and not (asyncapi or openapi):
        raise click.UsageError("--host is for --asyncapi and --openapi")
    if openapi:
        document = openapi_document(host or HOST)
    elif asyncapi:
        document = asyncapi_document(host or HOST, redis_host or REDIS_HOST)
    elif event_type is not None:
        document = event_schema(event_type)
    else:
        document = every_event_schema()
    click.echo(json.dumps(document, indent=2))
