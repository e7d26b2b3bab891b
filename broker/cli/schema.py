"""`broker schema`: the events and channels, written down for other programs."""

from __future__ import annotations

import json

import click

from broker.events import EVENT_TYPES
from broker.events.asyncapi import asyncapi_document
from broker.events.schema import event_schema, every_event_schema


@click.command(name="schema")
@click.argument("event_type", metavar="[TYPE]", required=False, type=click.Choice(list(EVENT_TYPES)))
@click.option("--asyncapi", is_flag=True, help="Print an AsyncAPI 3 document of all channels instead.")
def command(event_type: str | None, asyncapi: bool) -> None:
    """Print the JSON Schema of an event TYPE, such as job_progress; without one, of all events."""
    if asyncapi and event_type is not None:
        raise click.UsageError("--asyncapi is about all channels; leave TYPE out")
    if asyncapi:
        document = asyncapi_document()
    elif event_type is not None:
        document = event_schema(event_type)
    else:
        document = every_event_schema()
    click.echo(json.dumps(document, indent=2))
