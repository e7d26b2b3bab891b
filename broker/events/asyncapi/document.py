"""The whole document: servers, channels, operations, and the messages and schemas that they name.

Law: the schemas of events are the ones of `schema.py`. Source: the AsyncAPI specification 3.0.0.
"""

from __future__ import annotations

from typing import Any

from broker import __version__
from broker.events.asyncapi.eventchannels import event_channels
from broker.events.asyncapi.messages import MESSAGES, SCHEMAS
from broker.events.asyncapi.publishing import http_publishing
from broker.events.asyncapi.sessions import event_streams, websocket_session
from broker.events.registry import EVENT_TYPES
from broker.events.schema import definitions_of

HOST = "127.0.0.1:8000"
REDIS_HOST = "127.0.0.1:6379"
_ABOUT = (
    "Services publish events to Redis channels; browsers and services receive them over WebSocket or Server-Sent "
    "Events, as the same bytes. A channel's name may have a configured prefix in Redis. Channels whose address is a "
    "path are connections or requests; the others are names, which are published to and subscribed to."
)


def asyncapi_document(host: str = HOST, redis_host: str = REDIS_HOST) -> dict[str, Any]:
    """The document, ready to be JSON.

    Args:
        host, redis_host: `HOST:PORT` of the daemon and of its Redis.
    """
    channels = [websocket_session(), *event_streams(), http_publishing(), *event_channels()]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "broker",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": _servers(host, redis_host),
        "channels": {channel.name: channel.document() for channel in channels},
        "operations": {
            operation.name: operation.document(channel.name) for channel in channels for operation in channel.operations
        },
        "components": {
            "messages": _messages(),
            "schemas": {
                **definitions_of(list(EVENT_TYPES.values()), "#/components/schemas/"),
                **SCHEMAS,
                **{name: message.schema for name, message in MESSAGES.items()},
            },
        },
    }


def _servers(host: str, redis_host: str) -> dict[str, Any]:
    return {
        "websocket": {"host": host, "protocol": "ws", "description": "Browsers and services receive here."},
        "sse": {"host": host, "protocol": "sse", "description": "The same as Server-Sent Events, over HTTP."},
        "http": {"host": host, "protocol": "http", "description": "Publishing over HTTP."},
        "redis": {"host": redis_host, "protocol": "redis", "description": "Where services publish."},
    }


def _messages() -> dict[str, Any]:
    messages = {
        event_type.__name__: _message(event_type.type, event_type.__name__) for event_type in EVENT_TYPES.values()
    }
    for title, plain in MESSAGES.items():
        messages[title] = _message(plain.name, title)
        if plain.bindings is not None:
            messages[title]["bindings"] = plain.bindings
    return messages


def _message(name: str, title: str) -> dict[str, Any]:
    return {
        "name": name,
        "title": title,
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{title}"},
    }
