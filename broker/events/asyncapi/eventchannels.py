"""The channels that carry events, each twice: where services publish, and where clients receive.

They are two objects with one address because they are on different servers: nothing is published over
WebSocket or Server-Sent Events.

Source: the wire contract, "Channels".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.events.ai import AiEvaluationStream, AiStreamChunk, CouncilScoreStream
from broker.events.alert import Alert
from broker.events.asyncapi.channel import PART, ChannelObject, OperationObject
from broker.events.evaluation import Complete, EvaluationRestarted
from broker.events.event import Event
from broker.events.registry import EVENT_TYPES
from broker.events.rules import fields_of
from broker.events.session import Error

# Besides its steps, the channel of one evaluation carries these.
_EVALUATIONS = (CouncilScoreStream, AiEvaluationStream)
_BESIDES = (EvaluationRestarted, Complete, Error)

_USER = {"userId": {"description": f"The user that it is for: {PART}."}}
_ID = {"id": {"description": f"The producer's own: {PART}."}}
_EVALUATION = {"id": {"description": f"The evaluation's: {PART}."}}

# Of the types whose name alone is a channel that everybody hears: the longer names.
# An evaluation's channel has no user: the daemon streams an evaluation by its id alone.
_LONGER_NAMES: Mapping[type[Event], tuple[Mapping[str, Any], ...]] = {
    AiStreamChunk: (_ID, {**_ID, **_USER}),
    Alert: (_USER, {**_ID, **_USER}),
    CouncilScoreStream: (_EVALUATION,),
    AiEvaluationStream: (_EVALUATION,),
}


def event_channels() -> list[ChannelObject]:
    """Every channel that an event is published to, and received from."""
    channels = []
    for event_type in EVENT_TYPES.values():
        if event_type.channel_type is None:
            continue
        for parameters in _parameters_of(event_type):
            name = "_".join([event_type.channel_type, *parameters])
            address = ":".join([event_type.channel_type, *(f"{{{parameter}}}" for parameter in parameters)])
            besides = _BESIDES if event_type in _EVALUATIONS and parameters else ()
            carried = [each.__name__ for each in (event_type, *besides)]
            channels += [
                ChannelObject(
                    name,
                    address,
                    ("websocket", "sse"),
                    (OperationObject(f"receive_{name}", "receive", carried),),
                    "Received by whoever is subscribed: over WebSocket with `subscribe` (session_websocket), "
                    "as Server-Sent Events with `channel` in the query (session_sse).",
                    parameters,
                ),
                ChannelObject(
                    f"publish_{name}",
                    address,
                    ("redis",),
                    (OperationObject(f"send_{name}", "send", carried),),
                    "Published by services: PUBLISH <address> <event>. "
                    "In Redis the configured prefix stands before the address.",
                    parameters,
                ),
            ]
    return channels


def _parameters_of(event_type: type[Event]) -> list[Mapping[str, Any]]:
    """The parameters in each of the names that a type of event may be published to."""
    if event_type.channel_id is None:
        return [{}, *_LONGER_NAMES[event_type]]
    (wire,) = (field.wire for field in fields_of(event_type) if field.attribute == event_type.channel_id)
    own = {wire: {"description": f"{wire} of the event: {PART}.", "location": f"$message.payload#/{wire}"}}
    return [own, own | _USER]
