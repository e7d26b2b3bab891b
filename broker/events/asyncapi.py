"""An AsyncAPI 3.0 document: every channel, what comes over it, and how to reach it.

Law: written from the point of view of a program that uses the broker: it sends what it publishes, and
receives what it is subscribed to. The messages' schemas are the ones of `schema.py`.

Source: the AsyncAPI specification 3.0.0; the wire contract, "Channels".
"""

from __future__ import annotations

from typing import Any

from broker import __version__
from broker.events.ai import AiEvaluationStream, CouncilScoreStream
from broker.events.evaluation import Complete, EvaluationRestarted
from broker.events.event import Event
from broker.events.registry import EVENT_TYPES
from broker.events.rules import fields_of
from broker.events.schema import definitions_of
from broker.events.session import Error

_ABOUT = (
    "Services publish events to Redis channels; browsers and services receive them over WebSocket or Server-Sent "
    "Events, as the same bytes. A channel's name may have a configured prefix in Redis."
)
_PART = "1 to 128 letters, digits and _ - . @ = + ~"
# Besides its steps, the channel of one evaluation carries these.
_EVALUATIONS = (CouncilScoreStream, AiEvaluationStream)
_BESIDES: tuple[type[Event], ...] = (EvaluationRestarted, Complete, Error)
_SERVERS = {
    "websocket": {
        "host": "127.0.0.1:8000",
        "pathname": "/ws",
        "protocol": "ws",
        "description": 'Send {"type": "subscribe", "channel": "<address>"}; `subscribed` answers.',
    },
    "sse": {
        "host": "127.0.0.1:8000",
        "pathname": "/api/stream",
        "protocol": "sse",
        "description": "Server-Sent Events: GET with ?channel=<address>, as often as there are channels.",
    },
    "redis": {
        "host": "127.0.0.1:6379",
        "protocol": "redis",
        "description": "Where services publish: PUBLISH <address> <event>.",
    },
}


def asyncapi_document() -> dict[str, Any]:
    """The document, ready to be JSON."""
    published = [event_type for event_type in EVENT_TYPES.values() if event_type.channel_type is not None]
    said = [
        event_type
        for event_type in EVENT_TYPES.values()
        if event_type.channel_type is None and event_type is not EvaluationRestarted
    ]
    channels: dict[str, Any] = {"session": _session_channel(said)}
    operations: dict[str, Any] = {"receiveSession": _operation("receive", "session", said)}
    for event_type in published:
        for address, parameters in _addresses(event_type):
            name = "_".join([str(event_type.channel_type), *parameters])
            carried = [event_type, *(_BESIDES if event_type in _EVALUATIONS and parameters else ())]
            channels[name] = _channel(carried, address, parameters)
            operations[f"send_{name}"] = _operation("send", name, carried)
            operations[f"receive_{name}"] = _operation("receive", name, carried)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "broker",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": _SERVERS,
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {event_type.__name__: _message(event_type) for event_type in EVENT_TYPES.values()},
            "schemas": definitions_of(list(EVENT_TYPES.values()), "#/components/schemas/"),
        },
    }


def _addresses(event_type: type[Event]) -> list[tuple[str, dict[str, Any]]]:
    """The channels of a type of event, each with its parameters: the plain one, and the longer one."""
    user = {"userId": {"description": f"The user that it is for: {_PART}."}}
    if event_type.channel_id is None:
        # The type alone; what is for somebody in particular is published to a longer name.
        own = user if event_type.channel_type == "alerts" else {"id": {"description": f"The producer's own: {_PART}."}}
        return [_address(event_type, {}), _address(event_type, own)]
    (wire,) = (field.wire for field in fields_of(event_type) if field.attribute == event_type.channel_id)
    own = {wire: {"description": f"{wire} of the event: {_PART}.", "location": f"$message.payload#/{wire}"}}
    return [_address(event_type, own), _address(event_type, own | user)]


def _address(event_type: type[Event], parameters: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return ":".join([str(event_type.channel_type), *(f"{{{name}}}" for name in parameters)]), parameters


def _channel(event_types: list[type[Event]], address: str, parameters: dict[str, Any]) -> dict[str, Any]:
    channel: dict[str, Any] = {"address": address}
    if parameters:
        channel["parameters"] = parameters
    return {
        **channel,
        "messages": _messages(event_types),
        "servers": [{"$ref": f"#/servers/{name}"} for name in _SERVERS],
    }


def _session_channel(event_types: list[type[Event]]) -> dict[str, Any]:
    return {
        "address": None,
        "description": "What the broker says to one client about its connection; nothing is published here.",
        "messages": _messages(event_types),
        "servers": [{"$ref": "#/servers/websocket"}, {"$ref": "#/servers/sse"}],
    }


def _messages(event_types: list[type[Event]]) -> dict[str, Any]:
    return {event_type.__name__: {"$ref": f"#/components/messages/{event_type.__name__}"} for event_type in event_types}


def _operation(action: str, channel: str, event_types: list[type[Event]]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{event_type.__name__}"} for event_type in event_types],
    }


def _message(event_type: type[Event]) -> dict[str, Any]:
    return {
        "name": event_type.type,
        "title": event_type.__name__,
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{event_type.__name__}"},
    }
